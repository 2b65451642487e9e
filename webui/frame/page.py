"""The HTML of the frame's page; what it does is in assets/frame.js."""

from __future__ import annotations

import hashlib
import json
from functools import cache

from markupsafe import Markup

from engines.messages import CREDIT
from webui import asset_files
from webui.frame import touch
from webui.i18n import Words
from webui.plain_page import TITLE

PAGE = Markup(
    '<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">'
    '<meta name="color-scheme" content="dark"><meta name="theme-color" content="#000000">'
    '<link rel="icon" href="icons/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="frame/frame.css">'
    '<link rel="stylesheet" href="frame/touch.css">'
    "</head><body data-words='{words}'>"
    '<main id="wall" aria-label="{title}">{layer}{layer}</main>'
    '<p id="note" role="status" hidden></p>'
    '<footer><time id="clock" hidden></time><small id="credit">{credit}</small></footer>'
    '<div id="dark" hidden></div>{touch}'
    '<script src="frame/frame.js"></script><script src="frame/touch.js"></script></body></html>'
)
LAYER = Markup('<canvas class="layer" role="img" aria-label="{}"></canvas>')
SCRIPTS, STYLES = ("frame.js", "touch.js"), ("frame.css", "touch.css")
WORDS = ("frame_empty", "frame_away")


def frame_html(say: Words) -> Markup:
    """Return the page, whose messages are in the caller's language."""
    words = {key: say(key) for key in (*WORDS, *touch.WORDS)} | {"code": code()}
    layer, text = LAYER.format(say("frame_picture")), json.dumps(words, ensure_ascii=False)
    return PAGE.format(
        title=TITLE, credit=CREDIT, language=say.tag, layer=layer, words=text, touch=touch.touch_html(say)
    )


@cache
def code() -> str:
    """Return what changes with the page: a frame that shows another one loads it anew."""
    scripts, styles = map(asset_files.script, SCRIPTS), map(asset_files.style, STYLES)
    return hashlib.sha256("".join((*scripts, *styles, PAGE, touch.TOUCH)).encode()).hexdigest()[:12]
