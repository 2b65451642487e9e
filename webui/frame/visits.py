"""
Visits: what somebody who stands before a frame can do there, without a keyboard and a name. All that a visitor makes is
his alone, by a token that only the frame's page has, and gone when the visit ends, but for what he leaves for the wall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.datastructures import UploadFile

import presets
from engines.errors import LinkEnded, NotFoundError, OptionError, OwnerOnly
from engines.messages import Enhance, Final, Generate
from engines.messages import Request as Order
from engines.settings import Settings
from webui import addresses, sweep, uploads
from webui.connections import base_url
from webui.frame.links import Links
from webui.i18n import Words, preferred, spoken
from webui.own_jobs import HouseJobs, OwnJobs

MOST_FIELDS = 4
FIELD_BYTES = 200
NO_STORE = {"Cache-Control": "no-store"}


class Card(TypedDict):
    name: str
    title: str
    picture: str  # its address


class Visit(TypedDict):
    """`token`: what the visitor's requests bear. `approval`: the owner looks at what is left for the wall first."""

    token: str
    cards: list[Card]
    approval: bool


@dataclass(frozen=True)
class Visits:
    """What its addresses share."""

    house: HouseJobs
    settings: Settings
    links: Links

    def own(self, request: Request) -> OwnJobs:
        """OwnerOnly: who asks is no visitor."""
        own = self.house.of(request)
        if not own.person.is_visitor:
            raise OwnerOnly("a visit is a visitor's")
        return own


def add(routes: APIRouter, visits: Visits, begin: Callable[[], str]) -> None:
    """`begin`: gives the token of somebody new."""
    _add_visit(routes, visits, begin)
    _add_orders(routes, visits)
    _add_links(routes, visits)


def _add_visit(routes: APIRouter, visits: Visits, begin: Callable[[], str]) -> None:
    @routes.post("/frame/visit", include_in_schema=False)
    def visit(request: Request) -> JSONResponse:
        """Begin a visit, for whoever may see the frame."""
        say, root = spoken(preferred(request.headers)), addresses.root(request.scope)
        cards = [
            Card(name=preset.name, title=say.choose(preset.title), picture=f"{root}/thumbnails/{preset.name}.webp")
            for preset in presets.load()
        ]
        body = Visit(token=begin(), cards=cards, approval=visits.settings.wall_approval)
        return JSONResponse(body, headers=NO_STORE)

    @routes.delete("/frame/visit", include_in_schema=False)
    def end(request: Request) -> Response:
        """End the visit: nothing of it is left, but what a phone is taking away for some minutes more."""
        visitor = visits.own(request).person.id
        visits.links.forget(visitor)
        sweep.erase(visits.house.queue, visitor)
        return Response(status_code=204)

    @routes.post("/frame/visit/wall/{job_id}", include_in_schema=False)
    def leave(job_id: str, request: Request) -> JSONResponse:
        """Leave a picture for the wall; it is there at once, unless the owner looks at it first."""
        at_once = not visits.settings.wall_approval
        visits.own(request).leave_for_wall(job_id, at_once)
        return JSONResponse({"on_wall": at_once})


def _add_orders(routes: APIRouter, visits: Visits) -> None:
    @routes.post("/frame/visit/draw", include_in_schema=False)
    async def draw(request: Request) -> JSONResponse:
        """Draw in the style of a card, from the photo in the form, if there is one."""
        own, say = visits.own(request), spoken(preferred(request.headers))
        fields, photo, _ = await _form(request, visits.settings.uploads)
        order = _drawing(visits, fields.get("card", ""), photo, say)
        return await _taken(own, order)

    @routes.post("/frame/visit/restore", include_in_schema=False)
    async def restore(request: Request) -> JSONResponse:
        """Restore the photo in the form as looking at it advises."""
        own = visits.own(request)
        _, photo, name = await _form(request, visits.settings.uploads)
        if not photo:
            raise OptionError("photo", "", "a file")
        return await _taken(own, Enhance(photo, auto=True, name=name, backend=visits.settings.backend))


def _drawing(visits: Visits, card: str, photo: str, say: Words) -> Generate:
    """NotFoundError: there is no such card, or nothing to draw with."""
    preset = presets.named(card)
    bundles = [bundle for bundle in visits.house.status.bundles if bundle.kind == "portrait"]
    usual = [bundle for bundle in bundles if bundle.name == Generate("").bundle] or bundles
    if preset is None:
        raise NotFoundError("preset", card[:40])
    if not usual:
        raise NotFoundError("bundle", "portrait")
    bundle = usual[0]
    wording = preset.wording(bundle.dialect)
    width, height = presets.nearest_size(preset.width, preset.height, bundle.sizes)
    return Generate(
        say.choose(wording.prompt), say.choose(wording.negative), width, height, guidance=wording.guidance,
        bundle=bundle.name, backend=visits.settings.backend, preset=preset.name, start=photo,
    )  # fmt: skip


async def _form(request: Request, folder: Path) -> tuple[Mapping[str, str], str, str]:
    """Return a form's fields, where its photo lies, and what that is called; "": it has none. StorageError."""
    async with request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=FIELD_BYTES) as form:
        photo = form.get("photo")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        if not isinstance(photo, UploadFile):
            return fields, "", ""
        path = await to_thread.run_sync(uploads.keep, photo.file, folder)
        return fields, str(path), uploads.own_name(photo.filename or "")


async def _taken(own: OwnJobs, order: Order) -> JSONResponse:
    job_id = await to_thread.run_sync(own.submit, order)
    return JSONResponse({"id": job_id}, 202, {"Location": f"/jobs/{job_id}"})


def _add_links(routes: APIRouter, visits: Visits) -> None:
    @routes.post("/frame/visit/links/send", include_in_schema=False)
    def send(request: Request) -> JSONResponse:
        """Give a link by which one phone sends a photo to this visit."""
        return _link(request, "send", visits.links.make("send", visits.own(request).person.id))

    @routes.post("/frame/visit/links/take/{job_id}", include_in_schema=False)
    def take(job_id: str, request: Request) -> JSONResponse:
        """Give a link by which one phone takes the picture of a job away."""
        own = visits.own(request)
        final = own.latest(job_id)
        if not isinstance(final, Final) or not final.images:
            raise NotFoundError("picture", job_id[:40])
        return _link(request, "take", visits.links.make("take", own.person.id, own.file(final.images[0])))

    @routes.get("/frame/visit/links/{code}", include_in_schema=False)
    def look(code: str, request: Request) -> JSONResponse:
        """How far a photo is that a phone sends: its page is open there, or it is here."""
        link = _own_link(request, code)
        state = "here" if link.picture else "open" if link.browser else "waiting"
        return JSONResponse({"state": state, "name": link.name}, headers=NO_STORE)

    @routes.get("/frame/visit/links/{code}/photo", include_in_schema=False)
    def photo(code: str, request: Request) -> FileResponse:
        """The photo as it was sent: the visitor's own page looks at it, and nothing else does."""
        link = _own_link(request, code)
        if link.picture is None:
            raise NotFoundError("picture", code[:40])
        return FileResponse(link.picture, headers=NO_STORE, media_type="application/octet-stream")

    def _own_link(request: Request, code: str) -> Any:
        link = visits.links.look("send", code)
        if link.visitor != visits.own(request).person.id:
            raise LinkEnded()
        return link


def _link(request: Request, direction: str, code: str) -> JSONResponse:
    import segno  # here: few pages have it

    qr = segno.make(f"{base_url(request)}frame/{direction}/{code}", error="m")
    return JSONResponse({"code": code, "qr": qr.svg_data_uri(border=2)}, headers=NO_STORE)
