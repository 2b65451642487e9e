"""The HTML of what a frame shows when it is touched; what it does is in assets/touch.js."""

from __future__ import annotations

from markupsafe import Markup

from engines.messages.photos import ACCEPT
from webui.i18n import Words

ICON = Markup('<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{}"/></svg>')
# Strokes on a field of 24 by 24.
PATHS = {
    "photo": "M3 8h4l2-3h6l2 3h4v12H3zM12 10a4 4 0 1 0 0 8 4 4 0 0 0 0-8",
    "style": "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
    "draw": "M12 3l2.2 6.3L21 12l-6.8 2.7L12 21l-2.2-6.3L3 12l6.8-2.7z",
    "restore": "M4 20l9-9M15 4v4M13 6h4M19 9v4M17 11h4M12 9l3 3",
    "heart": "M12 20S4 15 4 9a4 4 0 0 1 8-1 4 4 0 0 1 8 1c0 6-8 11-8 11z",
    "next": "M5 5l8 7-8 7zM17 5v14",
}
BUTTON = Markup('<button type="button" data-do="{do}">{icon}<img alt="" hidden><span>{label}</span></button>')
QR = Markup('<figure class="qr" hidden><img alt="{label}"><figcaption>{hint}</figcaption></figure>')
TOUCH = Markup(
    '<section id="touch" aria-label="{name}" hidden><div id="stage" hidden>'
    '<div class="pane" data-pane="photo"><div class="camera" hidden><video muted playsinline></video>'
    '<b class="count" hidden></b><button type="button" data-do="shoot">{shoot}</button></div>'
    '{send}<label class="file"><input type="file" accept="{accept}">{file}</label></div>'
    '<div class="pane cards" data-pane="style"></div>'
    '<div class="pane" data-pane="ready"><img class="mine" alt="{photo}" hidden><figure class="card" hidden>'
    '<img alt=""><figcaption></figcaption></figure></div>'
    '<div class="pane" data-pane="work"><img class="preview" alt="{preview}" hidden>'
    '<progress aria-label="{working}"></progress><button type="button" data-do="cancel">{cancel}</button></div>'
    '<div class="pane" data-pane="result"><img class="picture" alt="{picture}">{take}</div>'
    '<p id="said" role="status"></p></div>'
    '<nav id="dock" aria-label="{name}">{buttons}</nav>'
    '<p id="idle" hidden><b></b></p>'
    '<div id="still" role="alertdialog" aria-label="{still}" hidden><p>{still}</p><b></b>'
    '<button type="button" data-do="stay">{stay}</button></div></section>'
)
# What the script says.
WORDS = (
    "touch_photo_first", "touch_style_first", "touch_queue", "touch_step", "touch_eta", "touch_lost", "touch_on_wall",
    "touch_asked", "touch_favourite", "touch_nothing", "touch_wall", "touch_ask_wall", "touch_heart", "touch_next",
    "touch_done", "touch_phone_open", "touch_hold", "touch_no_preview", "touch_no_camera",
)  # fmt: skip


def touch_html(say: Words) -> Markup:
    labels = {
        "photo": say("touch_photo"),
        "style": say("touch_style"),
        "draw": say("touch_draw"),
        "restore": say("touch_restore"),
        "heart": say("touch_heart"),
        "next": say("touch_next"),
    }
    return TOUCH.format(
        name=say("touch_name"),
        shoot=say("touch_shoot"),
        send=QR.format(label=say("touch_qr_send"), hint=say("touch_send")),
        file=say("touch_file"),
        accept=ACCEPT,
        photo=say("touch_your_photo"),
        preview=say("touch_preview"),
        working=say("touch_working"),
        cancel=say("touch_cancel"),
        picture=say("phone_picture"),
        take=QR.format(label=say("touch_qr_take"), hint=say("touch_take")),
        still=say("touch_still"),
        stay=say("touch_stay"),
        buttons=Markup().join(
            BUTTON.format(do=do, icon=ICON.format(PATHS[do]), label=label) for do, label in labels.items()
        ),
    )
