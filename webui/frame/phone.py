"""
The two pages that a phone opens from a frame's screen, without a login and without scripts: one sends a photo there,
the other takes a picture away. Who has the code may, once.
"""

from __future__ import annotations

from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from markupsafe import Markup
from starlette.datastructures import UploadFile

from engines.errors import LinkEnded, StudioError
from engines.messages.photos import ACCEPT
from webui.frame.links import LINK_S, Direction, Links
from webui.i18n import Words, preferred, spoken
from webui.plain_page import SENDS_ORIGIN, page

COOKIE = "frame_link"  # holds which browser was the first
NO_STORE = {"Cache-Control": "no-store"}
MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
SEND = Markup(
    '<p>{what}</p>{wrong}<form method="post" enctype="multipart/form-data"><input type="file" name="photo"'
    ' accept="{accept}" required aria-label="{label}"><button>{send}</button></form>'
)
WRONG = Markup('<p class="wrong" role="alert">{}</p>')
TAKE = Markup(
    '<p><img class="picture" src="{source}" alt="{label}"></p><p><a class="button" href="{source}" download="{name}">'
    "{save}</a></p><p>{hint}</p>"
)


def add(routes: APIRouter, links: Links) -> None:
    _add_send(routes, links)
    _add_take(routes, links)


def _add_send(routes: APIRouter, links: Links) -> None:
    @routes.get("/frame/send/{code}", include_in_schema=False)
    def send_page(code: str, request: Request) -> Response:
        say = spoken(preferred(request.headers))
        try:
            _, browser = links.open("send", code, request.cookies.get(COOKIE, ""))
        except StudioError as exc:
            return _refused(exc, say)
        return _kept(_page(_send_form(say), say), request, "send", code, browser)

    @routes.post("/frame/send/{code}", include_in_schema=False)
    async def send(code: str, request: Request) -> Response:
        say = spoken(preferred(request.headers))
        try:
            links.open("send", code, request.cookies.get(COOKIE, ""))
            async with request.form(max_files=1, max_fields=0) as form:
                photo = form.get("photo")
                if not isinstance(photo, UploadFile) or not photo.filename:
                    return _page(_send_form(say, say("phone_choose")), say, 400)
                await to_thread.run_sync(links.receive, code, photo.file, photo.filename)
        except StudioError as exc:
            return _refused(exc, say)
        return _page(Markup("<p>{}</p>").format(say("phone_sent")), say)


def _send_form(say: Words, wrong: str = "") -> Markup:
    said = WRONG.format(wrong) if wrong else ""
    words = {"what": say("phone_send"), "label": say("phone_photo"), "send": say("phone_send_now")}
    return SEND.format(**words, wrong=said, accept=ACCEPT)


def _add_take(routes: APIRouter, links: Links) -> None:
    @routes.get("/frame/take/{code}", include_in_schema=False)
    def take_page(code: str, request: Request) -> Response:
        say = spoken(preferred(request.headers))
        try:
            link, browser = links.open("take", code, request.cookies.get(COOKIE, ""))
        except StudioError as exc:
            return _refused(exc, say)
        picture = link.picture or Path("picture.png")
        body = TAKE.format(
            source=f"{code}/{picture.name}", name=picture.name, label=say("phone_picture"),
            save=say("phone_save"), hint=say("phone_save_hint"),
        )  # fmt: skip
        return _kept(_page(body, say), request, "take", code, browser)

    @routes.get("/frame/take/{code}/{name}", include_in_schema=False)
    def picture(code: str, name: str, request: Request) -> Response:
        """The picture, for the browser that was the first to open the page."""
        if not (browser := request.cookies.get(COOKIE, "")):
            raise LinkEnded()
        link, _ = links.open("take", code, browser)
        if link.picture is None or name != link.picture.name or not link.picture.is_file():
            raise LinkEnded()
        return FileResponse(link.picture, headers=NO_STORE, media_type=MEDIA.get(link.picture.suffix))


def _page(body: Markup, say: Words, status: int = 200) -> HTMLResponse:
    return HTMLResponse(page(body, say.tag, SENDS_ORIGIN), status, NO_STORE)


def _refused(exc: StudioError, say: Words) -> Response:
    status = 410 if isinstance(exc, LinkEnded) else 400
    return _page(WRONG.format(say.error(exc.code, exc.facts)), say, status)


def _kept(answer: Response, request: Request, direction: Direction, code: str, browser: str) -> Response:
    secure = request.url.scheme == "https"
    path = f"/frame/{direction}/{code}"
    answer.set_cookie(COOKIE, browser, round(LINK_S), path=path, httponly=True, samesite="strict", secure=secure)
    return answer
