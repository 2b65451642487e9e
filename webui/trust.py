"""How a phone comes to trust a home that serves https with certificates of its own, and what that means."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from markupsafe import Markup

from engines.settings import Settings
from webui.doctor.server import AUTHORITY
from webui.i18n import Words, preferred, spoken
from webui.plain_page import page

PATHS = ("/trust", "/trust/")  # open to all: who cannot come in yet needs it
FILE = "/trust/authority.crt"


def add(routes: APIRouter, settings: Settings) -> None:
    @routes.get("/trust", include_in_schema=False)
    def trust(request: Request) -> Response:
        say = spoken(preferred(request.headers))
        if not settings.https:
            return HTMLResponse(page(Markup("<p>{}</p>").format(say("trust_off")), say.tag))
        from webui import certificates  # here: it imports cryptography, which a house without https need not wait for

        return HTMLResponse(trust_html(say, certificates.fingerprint(settings.state / AUTHORITY)))

    @routes.get(FILE, include_in_schema=False)
    def authority() -> FileResponse:
        """What people trust, without its key."""
        if not settings.https:
            raise HTTPException(404)
        file = settings.state / AUTHORITY
        return FileResponse(file, media_type="application/x-x509-ca-cert", filename="awportrait-edge.crt")


def trust_html(say: Words, mark: str) -> Markup:
    """`mark`: its fingerprint, as the terminal has it, for people to compare."""
    ways = (
        ("iPhone · iPad", say("trust_ios")),
        ("Android", say("trust_android")),
        ("Windows", say("trust_windows")),
        ("macOS", say("trust_macos")),
        ("Linux", say("trust_linux")),
    )
    body = Markup(
        '<p>{what}</p><p class="wrong">{means}</p><p><a class="button" href="{file}" download>{get}</a></p>'
        "<p>{compare}<br><code>{mark}</code></p>{ways}"
    ).format(
        what=say("trust_what"),
        means=say("trust_means"),
        file=FILE.removeprefix("/"),
        get=say("trust_get"),
        compare=say("trust_compare"),
        mark=mark,
        ways=Markup().join(Markup("<p><b>{}</b><br>{}</p>").format(*way) for way in ways),
    )
    return page(body, say.tag)
