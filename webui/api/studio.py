"""The house's own dialect: draw, restore, and the pictures. Every field of a request is one of the messages'."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from engines.errors import NotFoundError, OptionError
from engines.messages import Enhance, Generate, parse
from engines.settings import Settings
from webui import archive, thumbnails, uploads
from webui.addresses import root
from webui.api import answers, choices
from webui.api.bodies import Values, parse_text, read_form, read_json
from webui.api.outcome import Accepted, accepted, goes_on_without, outcome
from webui.api.schemas import FILE, body, schema
from webui.connections import BELIEVED
from webui.guard import is_form
from webui.own_jobs import HouseJobs

PICTURE_NAME = re.compile(r"outputs_\d{14}(_\d{3,})?(-[\w-]{1,60})?\.(png|jpg|webp)|preview_[0-9a-f]{32}\.webp")
MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}  # under its name a picture never changes
MOST_OF_A_ZIP = 1000  # jobs
LISTS = ("loras", "faces")
AT_ONCE = 1  # pictures that are made smaller: one of 50 megapixels takes 150 MB meanwhile


def add_jobs(routes: APIRouter, jobs: HouseJobs, settings: Settings) -> None:
    """Add what makes pictures."""

    @routes.post(
        "/generate",
        responses={200: {"model": answers.DrawnHere}, 202: {"model": Accepted}},
        openapi_extra=body(json=schema(Generate, ("start",)), form=schema(Generate, start=FILE)),
    )
    async def generate(request: Request) -> JSONResponse:
        """Draw portraits, with a photo to start from in a form. `Prefer: respond-async`: 202, and the job's address."""
        asked, start = await _asked(request, settings.uploads)
        order = parse(Generate, {"backend": settings.backend, **asked, "start": start})
        if "backend" in asked:
            choices.check_backend(jobs.status, order.backend)
        if goes_on_without(request.headers):
            return await accepted(jobs.of(request), order)
        final = await outcome(jobs.of(request), order, request)
        return JSONResponse(await to_thread.run_sync(answers.drawn_here, jobs, final, root(request.scope)))

    @routes.post(
        "/enhance",
        responses={200: {"model": answers.Restored}, 202: {"model": Accepted}},
        openapi_extra=body(form=schema(Enhance, image=FILE)),
    )
    async def enhance(request: Request) -> JSONResponse:
        """Restore a photo. `Prefer: respond-async` as in /generate."""
        form = await read_form(request, ("image",), settings.uploads)
        defaults = {"backend": settings.backend, "name": uploads.own_name(form.name)}
        asked = _read_lists(form.fields)
        order = parse(Enhance, {**defaults, **asked, "image": form.path})
        if "backend" in form.fields:
            choices.check_backend(jobs.status, order.backend)
        if goes_on_without(request.headers):
            return await accepted(jobs.of(request), order)
        final = await outcome(jobs.of(request), order, request)
        return JSONResponse(answers.restored(final, root(request.scope)))


def add_files(routes: APIRouter, house: HouseJobs, settings: Settings) -> None:
    """Add what lies there."""
    turn = CapacityLimiter(AT_ONCE)

    @routes.get("/outputs/{key}/{name}", response_class=FileResponse)
    def picture(key: str, name: str, request: Request) -> Response:
        """A picture, by the address that an answer gave: nobody guesses its key."""
        path = _picture(key, name)
        if not path.is_file():
            raise NotFoundError("picture", name)
        media = MEDIA[path.suffix]
        if settings.accel and request.scope.get(BELIEVED):  # others would get nothing, and hear where it lies
            place = quote(path.relative_to(settings.outputs).as_posix())
            return Response(headers={**FOR_GOOD, "X-Accel-Redirect": f"{settings.accel}/{place}"}, media_type=media)
        return FileResponse(path, headers=FOR_GOOD, media_type=media)

    @routes.get("/thumbnails/{key}/{name}", include_in_schema=False)  # the page's own
    async def thumbnail(key: str, name: str) -> Response:
        """A small copy of a picture, 384 px and 30 KB at most, by the key and the name of the picture."""
        path = await to_thread.run_sync(_picture, key, name)
        data = await to_thread.run_sync(thumbnails.stored, path)
        if data is None:
            data = await to_thread.run_sync(thumbnails.make, path, limiter=turn)
        return Response(data, headers=FOR_GOOD, media_type="image/webp")

    def _picture(key: str, name: str) -> Path:
        path = house.file(f"{key}/{name}")
        if not PICTURE_NAME.fullmatch(name):
            raise NotFoundError("picture", name)
        return path

    @routes.get("/batch.zip", response_class=StreamingResponse)
    def batch(request: Request, jobs: str = "") -> StreamingResponse:
        """The pictures of the caller's own jobs, 1000 at most. `jobs`: their names with "-" between."""
        paths = [house.file(picture) for picture in house.of(request).pictures(jobs.split("-")[:MOST_OF_A_ZIP])]
        if not paths:
            raise NotFoundError("picture", "batch.zip")
        headers = {"Content-Disposition": time.strftime('attachment; filename="pictures_%Y%m%d%H%M%S.zip"')}
        pieces = archive.stream(paths)
        return StreamingResponse(pieces, headers=headers, media_type="application/zip")


async def _asked(request: Request, folder: Path) -> tuple[Values, str]:
    """
    The fields of a Generate, and where its photo lies, if it has one: as JSON and in the address; or, with a photo, in
    a form. A path is nobody's to name.
    """
    fields: Values = {}
    path = ""
    if is_form(request.headers):
        form = await read_form(request, ("start",), folder)
        fields, path = dict(form.fields), form.path
    else:
        fields = await read_json(request)
    asked = {**fields, **request.query_params}
    if asked.get("start"):
        raise OptionError("start", "", "a file")
    return _read_lists(asked), path


def _read_lists(fields: Values) -> Values:
    """Return the fields with those read that are lists: a form and an address have text only. OptionError."""
    texts = {name: fields[name] for name in LISTS if isinstance(fields.get(name), str)}
    return {**fields, **{name: parse_text(name, text, "JSON") for name, text in texts.items()}}
