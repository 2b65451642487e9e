"""The REST door: submits to the queue and waits. Errors leave as JSON with a code and a sentence, never a trace."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from engines import errors, files
from engines.errors import Fact, OptionError, StudioError
from engines.jobs import JobQueue
from engines.messages import CREDIT, Enhance, Event, Failed, Final, Generate, parse
from engines.settings import Settings
from webui import archive, uploads
from webui.boards import photos
from webui.follow import events
from webui.guard import is_form
from webui.i18n import LANGUAGES, spoken, words

PICTURE_NAME = re.compile(r"outputs_\d{14}(_\d{3,})?(-[\w-]{1,60})?\.(png|jpg|webp)|preview_[0-9a-f]{32}\.webp")
MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
FIELD_BYTES = 16_000  # of a form's field: the longest prompt, in any letters
PATHS = ("/healthz", "/generate", "/enhance", "/outputs/", "/batch.zip", "/favicon.ico")  # what Guard lets through
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ASSETS = Path(__file__).parent / "assets"
STATUS: Mapping[type[StudioError], int] = {
    errors.StudioError: 500,
    errors.RequestError: 400,
    errors.NotFoundError: 404,
    errors.ImageError: 415,
    errors.ImageTooLarge: 413,
    errors.NoFaceError: 422,
    errors.LoraError: 422,
    errors.MemoryShort: 507,
    errors.DownloadError: 502,
    errors.EngineUnavailable: 503,
    errors.StorageError: 507,
    errors.QueueFull: 429,
    errors.JobCancelled: 409,
    errors.JobPostponed: 503,
}


def router(queue: JobQueue, settings: Settings) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    def healthz() -> JSONResponse:
        status = queue.status()
        body: dict[str, Any] = {"status": status.state, "credit": CREDIT}
        if status.detail:
            body["detail"] = status.detail
        body["engines"] = {e.name: f"{e.device}, {e.reason}" if e.ok else f"— {e.reason}" for e in status.engines}
        body["bundles"] = {b.name: b.reason for b in status.bundles}
        return JSONResponse(body, 200 if status.state == "ready" else 503)

    @routes.post("/generate")
    async def generate(request: Request) -> JSONResponse:
        asked, start = await _asked(request, settings.uploads)
        order = parse(Generate, {"backend": settings.backend, **asked, "start": start})
        final = await outcome(queue, order, request)
        return JSONResponse(await to_thread.run_sync(drawn, queue.folder, final))

    @routes.post("/enhance")
    async def enhance(request: Request) -> JSONResponse:
        fields, path, name = await _form(request, "image", settings.uploads)
        defaults = {"backend": settings.backend, "name": uploads.own_name(name)}
        order = parse(Enhance, {**defaults, **fields, "image": path})
        return JSONResponse(restored(await outcome(queue, order, request)))

    @routes.get("/outputs/{name}")
    def picture(name: str) -> FileResponse:
        path = queue.folder / name
        if not PICTURE_NAME.fullmatch(name) or not path.is_file():
            raise errors.NotFoundError("picture", name)
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return FileResponse(path, headers=headers, media_type=MEDIA[path.suffix])

    @routes.get("/batch.zip")
    def batch(jobs: str = "") -> StreamingResponse:
        """`jobs`: names with "-" between, which only those know who gave the photos."""
        names = [name for name in photos.results(queue, jobs.split("-")) if PICTURE_NAME.fullmatch(name)]
        if not names:
            raise errors.NotFoundError("picture", "batch.zip")
        headers = {"Content-Disposition": time.strftime('attachment; filename="photos_%Y%m%d%H%M%S.zip"')}
        pieces = archive.stream(queue.folder / name for name in names)
        return StreamingResponse(pieces, headers=headers, media_type="application/zip")

    @routes.get("/favicon.ico")
    def favicon() -> FileResponse:
        return FileResponse(ASSETS / "favicon.ico")

    _end_here(routes)
    return routes


def _end_here(routes: APIRouter) -> None:
    """Whatever else is asked of these addresses: Gradio, mounted at the root, would answer in its own way."""
    served = {route.path: route.methods for route in routes.routes if isinstance(route, APIRoute) and route.methods}
    for path, methods in served.items():
        routes.add_api_route(path, _raise(405, ", ".join(methods)), methods=METHODS)
    routes.add_api_route("/outputs/{rest:path}", _raise(404), methods=METHODS)


def _raise(status: int, allow: str = "") -> Callable[[], Awaitable[Response]]:
    async def refuse() -> Response:
        raise HTTPException(status, headers={"Allow": allow} if allow else None)

    return refuse


class JobFailed(Exception):
    """A job ended with Failed."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.detail)
        self.failed = failed


def drawn(folder: Path, final: Final) -> dict[str, Any]:
    """Read and encode the picture: in a thread, so that the event loop answers others meanwhile."""
    return {
        "status": "success",
        "image_base64": base64.b64encode((folder / final.images[0]).read_bytes()).decode(),
        "seed": final.seed,
        "seconds": final.seconds,
        "engine": final.engine,
        "reason": final.reason,
        "without": list(final.without),
        "images": [f"/outputs/{name}" for name in final.images],
    }


def restored(final: Final) -> dict[str, Any]:
    return {
        "status": "success",
        "output_path": f"/outputs/{quote(final.images[0])}",
        "inference_time": f"{final.seconds:.2f}s",
        "engine": final.engine,
        "reason": final.reason,
        "faces": [asdict(face) for face in final.faces],
    }


async def outcome(queue: JobQueue, order: Generate | Enhance, request: Request) -> Final:
    """
    Submit and wait; if whoever asked hangs up, cancel: nobody else knows of the job. JobFailed: with what it says.
    QueueFull, StorageError, JobPostponed.
    """
    job_id = await to_thread.run_sync(queue.submit, order)
    last, gone = asyncio.ensure_future(_last(queue, job_id)), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((last, gone), return_when=asyncio.FIRST_COMPLETED)
        if not last.done():
            await to_thread.run_sync(queue.cancel, job_id)
        event = await last
    finally:
        last.cancel()
        gone.cancel()
    if isinstance(event, Final):
        return event
    raise JobFailed(event if isinstance(event, Failed) else Failed("internal", "the stream ended without an end"))


async def _last(queue: JobQueue, job_id: str) -> Event | None:
    last = None
    async for event in events(queue, job_id):
        last = event or last
    return last


async def _hung_up(request: Request) -> None:
    """The request has been read to its end: what is received now says that there is nobody left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _asked(request: Request, folder: Path) -> tuple[dict[str, Any], str]:
    """
    The fields of a Generate, and where its photo lies, if it has one: as JSON and in the address; or, with a photo, in
    a form. A path is nobody's to name.
    """
    fields: dict[str, Any]
    fields, path, _ = (
        await _form(request, "start", folder) if is_form(request.headers) else (await _json(request), "", "")
    )
    asked = {**fields, **request.query_params}
    if asked.get("start"):
        raise OptionError("start", "", "a file")
    if isinstance(asked.get("loras"), str):  # a form and an address have text only
        asked["loras"] = _parsed("loras", asked["loras"], "JSON")
    return asked, path


async def _form(request: Request, photo: str, folder: Path) -> tuple[dict[str, str], str, str]:
    """Return its fields, where the photo lies, and its name. OptionError: no photo. ImageError, StorageError."""
    async with request.form(max_files=1, max_fields=25, max_part_size=FIELD_BYTES) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        file = form.get(photo)
        if not isinstance(file, UploadFile):
            raise OptionError(photo, "", "a file")
        path = await to_thread.run_sync(uploads.keep, file.file, folder)
        return fields, str(path), file.filename or ""


async def _json(request: Request) -> dict[str, Any]:
    body = await request.body()
    values = _parsed("body", body, "a JSON object") if body else {}
    if not isinstance(values, dict):
        raise OptionError("body", "", "a JSON object")
    return values


def _parsed(field: str, text: str | bytes, allowed: str) -> Any:
    """OptionError: that is no JSON."""
    try:
        values = files.parse_json(text)
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as exc:
        raise OptionError(field, "", allowed) from exc
    return values


def install_errors(app: FastAPI) -> None:
    """Every error leaves as {"status": "error", "code", "message"}."""

    @app.exception_handler(StudioError)
    async def studio_error(request: Request, exc: StudioError) -> Response:
        return _refusal(request, exc.code, exc.facts)

    @app.exception_handler(JobFailed)
    async def job_failed(request: Request, exc: JobFailed) -> Response:
        return _refusal(request, exc.failed.code, exc.failed.facts)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        code = {404: "no_such_address", 405: "wrong_method", 400: "bad_request"}.get(exc.status_code, "bad_request")
        return _refusal(request, code, {}, exc.status_code, exc.headers)

    @app.exception_handler(500)
    async def bug(request: Request, exc: Exception) -> Response:
        return _refusal(request, "internal", {}, 500)


def _refusal(
    request: Request,
    code: str,
    facts: Mapping[str, Fact],
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    message = sentence(request.headers.get("accept-language"), code, facts)
    if "retry_s" in facts:
        headers = {**(headers or {}), "Retry-After": str(facts["retry_s"])}
    return JSONResponse({"status": "error", "code": code, "message": message}, status or status_of(code), headers)


def sentence(accept_language: str | None, code: str, facts: Mapping[str, Fact]) -> str:
    """Return it in the caller's language; in both when it names none, as programs do."""
    if accept_language and accept_language != "*":
        return spoken(accept_language).error(code, facts)
    return " ".join(words(language).error(code, facts) for language in LANGUAGES)


def status_of(code: str) -> int:
    """Return the status of an error's code: that of the nearest class up the tree which has one."""
    kind = next((kind for kind in _tree(StudioError) if kind.code == code), StudioError)
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def _tree(root: type[StudioError]) -> Iterator[type[StudioError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)
