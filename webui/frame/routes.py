"""The addresses of the frame: its page, what it may show, pictures in its size, and what it is told from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from engines.errors import FolderAway, ImageError, NotFoundError, OptionError, OwnerOnly
from engines.jobs import JobQueue
from engines.settings import Settings
from webui import asset_files
from webui.albums.copies import MEDIA, Copies
from webui.albums.folders import Folder
from webui.frame import page, phone, visits
from webui.frame.feeds import Feeds
from webui.frame.immich_albums import ImmichAlbums
from webui.frame.links import Links
from webui.frame.remote import Remote
from webui.frame.sources import Elsewhere, Sources
from webui.i18n import preferred, spoken
from webui.immich import Immich
from webui.own_jobs import HouseJobs
from webui.people import person_of

if TYPE_CHECKING:
    from engines.images.scaling import Fit, Palette, Scaling, ScreenFormat

T = TypeVar("T")
PATHS = ("/frame", "/frame/")  # what Guard lets through
HELD_S, LOOK_S = 6.0, 0.5  # how long a frame is let wait for news, and how often there may be some
LOOK_AGAIN_S = 3.0  # at the listing, which takes longer
THREADS = 4  # of the frame's own, so that a disk or a machine that is slow keeps nobody waiting but frames
BROKEN_IN_A_ROW = 8  # pictures that are passed over for a frame that fetches one
NO_STORE = {"Cache-Control": "no-store"}  # a page of a frame has them in memory; its card need not wear out
ID = re.compile(r"[0-9a-f]{1,64}")
FRAME = re.compile(r"[\w-]{0,40}")
FITS, PALETTES = ("auto", "contain", "cover"), ("", "mono", "grey4", "grey16", "spectra6", "acep7")
Side = Annotated[int, Query(ge=16, le=4096)]  # pixels


@dataclass(frozen=True)
class Frame:
    """What its addresses share."""

    queue: JobQueue
    sources: Sources
    copies: Copies
    remote: Remote
    limiter: CapacityLimiter
    remote_limiter: CapacityLimiter
    cache: Path  # for what is only needed for a moment

    def copy(self, names: Sequence[str], picture_id: str, how: Scaling) -> bytes:
        """
        Return a picture of these sources in a size. NotFoundError, ImageError, as Copies.get. FolderAway: its share
        does not answer; who asks while it does not is told so at once.
        """
        shown, folder = self.sources.picture(names, picture_id), self.sources.folder_of(names, picture_id)
        if folder is None:
            return self.copies.get(shown, how)
        how = replace(how, focus=shown.focus)
        return self.copies.of(picture_id, shown.name, how, lambda: folder.lent(shown, self.cache))

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run what may wait for a disk, beside the other requests."""
        return await to_thread.run_sync(call, *arguments, limiter=self.limiter)

    async def run_for(self, names: Sequence[str], call: Callable[..., T], *arguments: Any) -> T:
        """Run what may fetch a picture of these sources: then only who does so too waits for it."""
        limiter = self.remote_limiter if self.sources.are_remote(names) else self.limiter
        return await to_thread.run_sync(call, *arguments, limiter=limiter)


def add(
    routes: APIRouter,
    house: HouseJobs,
    settings: Settings,
    folders: Mapping[str, Folder],
    begin_visit: Callable[[], str],
) -> None:
    sources = Sources(house.queue, house.keys.secret, folders, elsewhere=_elsewhere(settings))
    copies = Copies(settings.state / "frame", settings.decode_s, settings.upload_mb)
    frame = Frame(
        house.queue, sources, copies, Remote(), CapacityLimiter(THREADS), CapacityLimiter(THREADS), settings.cache
    )
    if settings.mqtt:
        from webui.frame.mqtt import Door  # here: whoever has no broker need not have its package

        door = Door(settings, house.keys.secret, frame.remote, partial(_favour, frame))
        routes.lifespan_context = door.serving
    _add_page(routes)
    _add_listing(routes, frame)
    _add_pictures(routes, frame)
    _add_remote(routes, frame)
    links = Links(settings.phone_links)
    visits.add(routes, visits.Visits(house, settings, links), begin_visit)
    phone.add(routes, links)


def _elsewhere(settings: Settings) -> list[Elsewhere]:
    feeds = Feeds(settings.feed_addresses)
    return [feeds, ImmichAlbums(Immich(settings.immich, settings.immich_key))] if settings.immich else [feeds]


def _add_page(routes: APIRouter) -> None:
    scripts = {name: asset_files.script(name) for name in page.SCRIPTS}
    styles = {name: asset_files.style(name) for name in page.STYLES}
    headers = {"Cache-Control": "no-cache"}

    @routes.get("/frame", include_in_schema=False)
    def frame_page(request: Request) -> HTMLResponse:
        return HTMLResponse(page.frame_html(spoken(preferred(request.headers))), headers=headers)

    @routes.get("/frame/{name}.js", include_in_schema=False)
    def frame_script(name: str) -> Response:
        return Response(_asset(scripts, f"{name}.js"), headers=headers, media_type="text/javascript")

    @routes.get("/frame/{name}.css", include_in_schema=False)
    def frame_style(name: str) -> Response:
        return Response(_asset(styles, f"{name}.css"), headers=headers, media_type="text/css")

    def _asset(assets: Mapping[str, str], name: str) -> str:
        if name not in assets:
            raise HTTPException(404)
        return assets[name]


def _add_listing(routes: APIRouter, frame: Frame) -> None:
    @routes.get("/frame/list", include_in_schema=False)
    async def listing(show: str = "") -> JSONResponse:
        """The pictures that a frame may show, newest first, by their ids."""
        listed = await frame.run(frame.sources.listing, frame.sources.parse(show))
        return JSONResponse({"version": listed.version, "pictures": list(listed.pictures)}, headers=NO_STORE)

    @routes.get("/frame/state", include_in_schema=False)
    async def state(
        show: str = "", version: str = "", presses: int = 0, paused: bool = False, name: str = "", shown: str = ""
    ) -> JSONResponse:
        """
        What is new to a frame that shows this version of the listing, has heard of so many presses of "next", and is
        paused or not: at once, or after HELD_S that there is nothing.
        """
        names = frame.sources.parse(show)
        if FRAME.fullmatch(name):
            frame.remote.says(name, [each for each in shown.split(",")[:2] if ID.fullmatch(each)])
        body = await _news(frame, names, (version, presses, paused))
        return JSONResponse({**body, "code": page.code()}, headers=NO_STORE)


async def _news(frame: Frame, names: tuple[str, ...], before: tuple[str, int, bool]) -> dict[str, Any]:
    left_s, listed = HELD_S, await frame.run(frame.sources.listing, names)
    while True:
        orders = frame.remote.state
        now = (listed.version, orders.next, orders.paused_at is not None)
        if now != before or left_s <= 0:
            return dict(zip(("version", "presses", "paused"), now, strict=True))
        await anyio.sleep(LOOK_S)
        left_s -= LOOK_S
        if left_s % LOOK_AGAIN_S < LOOK_S:
            listed = await frame.run(frame.sources.listing, names)


def _add_pictures(routes: APIRouter, frame: Frame) -> None:
    @routes.get("/frame/picture/{picture_id}", include_in_schema=False)
    async def picture(
        picture_id: str, request: Request, w: Side = 1920, h: Side = 1080, fit: str = "auto", show: str = ""
    ) -> Response:
        """A picture of the listing, no larger than the screen, in the best format that it reads."""
        names = frame.sources.parse(show)
        kind = best_format(request.headers.get("accept", ""))
        data = await frame.run_for(names, frame.copy, names, picture_id, _scaling(w, h, fit, kind))
        return Response(data, headers={**NO_STORE, "Vary": "Accept"}, media_type=MEDIA[kind])

    @routes.get("/frame/image.{ending}", response_class=Response)
    async def image(
        ending: str,
        w: Side = 1024,
        h: Side = 600,
        fit: str = "cover",
        palette: str = "",
        max_kb: Annotated[int, Query(ge=0, le=10_000)] = 0,
        seconds: Annotated[float, Query(ge=5, le=86400)] = 60.0,
        show: str = "",
    ) -> Response:
        """
        The picture whose turn it is, for frames that only fetch one: another after so many `seconds`. `ending`: jpg,
        png or webp. `fit`: auto, contain, cover. `palette`: of an e-ink panel (mono, grey4, grey16, spectra6, acep7),
        as png. `max_kb`: 0, or how large it may be. `show`: album, favourites, folder:NAME, feed:NAME, immich,
        immich:ALBUM, with commas between.
        """
        kinds: dict[str, ScreenFormat] = {"jpg": "jpeg", "png": "png", "webp": "webp"}
        if ending not in kinds:
            raise NotFoundError("picture", f"image.{ending}"[:40])
        how = _scaling(w, h, fit, kinds[ending], palette, max_kb * 1000)
        names = frame.sources.parse(show)
        data = await frame.run_for(names, _whose_turn, frame, names, how, seconds)
        return Response(data, headers=NO_STORE, media_type=MEDIA[kinds[ending]])


def _whose_turn(frame: Frame, names: tuple[str, ...], how: Scaling, seconds: float) -> bytes:
    """Pass over pictures that cannot be read. NotFoundError: there is none that can."""
    listed = list(frame.sources.listing(names).pictures)
    for picture_id in frame.remote.turn(listed, seconds)[:BROKEN_IN_A_ROW]:
        try:
            return frame.copy(names, picture_id, how)
        except (FolderAway, ImageError, NotFoundError):
            continue
    raise NotFoundError("picture", ",".join(names))


def _scaling(width: int, height: int, fit: str, kind: ScreenFormat, palette: str = "", most_bytes: int = 0) -> Scaling:
    from engines.images.scaling import Scaling

    for name, value, allowed in (("fit", fit, FITS), ("palette", palette, PALETTES)):
        if value not in allowed:
            raise OptionError(name, value[:40], ", ".join(filter(None, allowed)))
    fitted: Fit = fit  # type: ignore[assignment]  # it is one of them
    inks: Palette = palette  # type: ignore[assignment]
    return Scaling(width, height, fitted, format=kind, palette=inks, most_bytes=most_bytes)


def best_format(accept: str) -> ScreenFormat:
    """Return the format with the fewest bytes of those that a browser says it reads; what says nothing reads JPEG."""
    if "image/avif" in accept:
        return "avif"
    return "webp" if "image/webp" in accept else "jpeg"


def _add_remote(routes: APIRouter, frame: Frame) -> None:
    @routes.post("/frame/next")
    def go_on(request: Request) -> JSONResponse:
        """Show the next picture on all frames, for programs with a token and the owner."""
        _check(request)
        frame.remote.next()
        return JSONResponse({"paused": False})

    @routes.post("/frame/pause")
    def pause(request: Request, paused: bool | None = None) -> JSONResponse:
        """Stay at the present picture, or go on. Without `paused`: the other of the two."""
        _check(request)
        return JSONResponse({"paused": frame.remote.pause(paused).paused_at is not None})

    @routes.post("/frame/favourite")
    async def favourite(request: Request, name: str = "") -> JSONResponse:
        """
        Let the pictures of the album that frames show now be favourites; with a frame's `name`, which anybody may do
        who stands before it, those of that one. 404: they show none.
        """
        if not FRAME.fullmatch(name) or not name:
            _check(request)
        return JSONResponse({"favourites": await frame.run(_favour, frame, name)})


def _check(request: Request) -> None:
    person = person_of(request)
    if not (person.is_owner or person.is_program):
        raise OwnerOnly("frames are the owner's")


def _favour(frame: Frame, name: str = "") -> int:
    """`name`: of the frame that is meant; empty: all. NotFoundError: nothing of the album is shown."""
    listed = frame.sources.listing(("album",)).pictures
    job_ids = dict.fromkeys(listed[each].job_id for each in frame.remote.shown(name) if each in listed)
    marked = [job for job in job_ids if frame.queue.favour([job], frame.queue.job(job).owner, True)]
    if not marked:
        raise NotFoundError("picture", "frame")
    return len(marked)
