"""The pages at the door: the password is asked for, a guest is welcome, a link for guests. HTML is Markup."""

from __future__ import annotations

from markupsafe import Markup

from webui.i18n import Words
from webui.plain_page import SENDS_ORIGIN, page

# A link from elsewhere comes without the cookie (SameSite=Strict); what a page of ours loads has it, and says who it is
ALREADY_IN = Markup(
    '<script>fetch("{}/me").then((answer) => answer.json()).then(({{ role }}) => role && location.reload())</script>'
)
LOG_OUT = Markup('<form method="post" action="logout"><button class="quiet">{}</button></form>')
TO_STUDIO = Markup('<p><a class="button" href="{}">{}</a></p>')
TO_TRUST = Markup('<p><a href="trust">{}</a></p>')


def login(say: Words, root: str, wrong: str = "", to: str = "/") -> Markup:
    """
    Return the page that stands at any address. `root`: as addresses.root has it. `wrong`: why the password has to be
    asked for again. `to`: what was asked for, within the house, where a login may lead.
    """
    body = Markup(
        '<p>{ask}</p>{wrong}<form method="post" action="{root}/login"><input type="password" name="password" required'
        ' autofocus autocomplete="current-password" aria-label="{label}">'
        '<input type="hidden" name="to" value="{to}"><button>{enter}</button></form>'
    ).format(
        ask=say("door_ask"),
        wrong=Markup('<p class="wrong" role="alert">{}</p>').format(wrong) if wrong else "",
        label=say("door_password"),
        enter=say("door_enter"),
        to=to,
        root=root,
    )
    return page(body, say.tag, SENDS_ORIGIN + (ALREADY_IN.format(root) if not wrong else ""))


def welcome(say: Words) -> Markup:
    """What an invitation leads to. It leads on by itself: a redirection would go there without the new cookie."""
    body = Markup("<p>{}</p>").format(say("door_welcome")) + TO_STUDIO.format("..", say("door_enter"))
    return page(body, say.tag, Markup('<meta http-equiv="refresh" content="1; url=..">'))


def ended(say: Words) -> Markup:
    return page(Markup('<p class="wrong">{}</p>').format(say("door_ended")), say.tag)


def invitation(say: Words, link: str, hours: int | None) -> Markup:
    """`hours`: how long it lasts; None: the house is open, and the link is its address."""
    import segno  # here: few pages have it

    words = say("door_invite", hours=hours) if hours else say("door_open")
    body = Markup('<p>{}</p><p><code>{}</code></p><p><img class="qr" src="{}" alt="{}"></p>').format(
        words, link, segno.make(link).png_data_uri(scale=8), say("door_qr")
    ) + TO_STUDIO.format(".", say("door_back"))
    leave = LOG_OUT.format(say("door_log_out")) if hours else Markup()
    if link.startswith("https:"):
        body += TO_TRUST.format(say("trust_more"))
    return page(body + leave, say.tag, SENDS_ORIGIN)
