"""A page without Gradio, for what is said before anybody is in: a few words, perhaps a form."""

from __future__ import annotations

from markupsafe import Markup

from engines.messages import CREDIT

# Without a referrer a form is sent with the origin "null" (Fetch standard, "append a request Origin header"), which the
# guard takes for another site's.
SENDS_ORIGIN = Markup('<meta name="referrer" content="same-origin">')
TITLE = "人像工作室"
PAGE = Markup(
    '<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    "<title>{title}</title>{head}<style>"
    "body {{ font: 18px/1.6 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto 0; padding: 0 20px;"
    " overflow-wrap: anywhere }} h1 {{ font-size: 1.5rem }} small {{ opacity: .75 }}"
    " input, button, .button {{ font: inherit; min-height: 48px; box-sizing: border-box; width: 100%;"
    " padding: 10px 14px; border-radius: 10px; border: 1px solid #94a3b8; margin: 0 0 14px;"
    " display: block; text-align: center }}"
    " input {{ text-align: start }} button, .button {{ background: #4f46e5; color: #fff; border: 0;"
    " text-decoration: none; cursor: pointer }} .quiet {{ background: none; color: inherit;"
    " border: 1px solid #94a3b8 }} .wrong {{ color: #b91c1c; background: #fef2f2; padding: 10px 14px;"
    " border-radius: 10px }} code {{ user-select: all }}"
    " .qr {{ display: block; width: min(260px, 100%); margin: 0 auto; border-radius: 10px;"
    " image-rendering: pixelated }} .picture {{ display: block; max-width: 100%; border-radius: 10px }}"
    "</style></head><body><main><h1>{title}</h1>{body}<p><small>{credit}</small></p></main></body></html>"
)


def page(body: Markup, language: str = "zh", head: str = "") -> Markup:
    """Return the whole page. `head`: Markup that goes into its head."""
    return PAGE.format(title=TITLE, body=body, head=head, language=language, credit=CREDIT)
