"""
The door of machines that work for this house: each says how it is, takes the job whose turn it is there, and sends what
comes of it. Who they are, Admission has looked at; what is given to whom, the queue knows. A job is a machine's as long
as that attempt is the latest: then its photo can be fetched, and what is sent is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, open_file, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from engines import files
from engines.errors import ImageError, JobMoved, NotFoundError, RequestError
from engines.images import mapped_storage, names
from engines.jobs import Job
from engines.jobs.dispatch import Dispatcher
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Event, Failed, Final, Generate, Preview, pack, photo_of, unpack
from engines.messages.order import PHOTO, Echo, Order
from engines.messages.status import Status
from webui.people import WORKER, person_of

T = TypeVar("T")
PATHS = ("/workers/",)  # what Guard lets through
MOST_WAIT_S = 20.0  # for a job: less than proxies wait
THREADS = 40  # that may wait for jobs, beside all other requests


def add(routes: APIRouter, dispatcher: Dispatcher) -> None:
    queue, waiting = dispatcher.queue, CapacityLimiter(THREADS)

    async def beside(call: Callable[..., T], *arguments: object) -> T:
        return await to_thread.run_sync(call, *arguments)

    def theirs(request: Request, job_id: str, attempt: int) -> Job:
        """JobMoved: it is not this machine's, or not any more. NotFoundError."""
        job = queue.job(job_id)
        if job.state != "running" or job.attempts != attempt or queue.worker_of(job_id) != _name(request):
            raise JobMoved(f"job {job_id} is another's")
        return job

    @routes.post("/workers/status", include_in_schema=False)
    async def status(request: Request, job: str = "", called: bool = False) -> JSONResponse:
        """Hear how it is, which job it does, and whether it waits to be `called` to the next. The answer is an Echo."""
        status = unpack((await request.body()).decode("utf-8", "replace"))
        if not isinstance(status, Status):
            raise RequestError("this says nothing of a worker")
        name = _name(request)
        if called and not dispatcher.calls:  # it would wait for ever
            return JSONResponse(asdict(Echo(name, calls=False)))
        dispatcher.hear(name, status, job, called)
        return JSONResponse(asdict(Echo(name, dispatcher.calls, tuple(await beside(queue.cancelled_of, name)))))

    @routes.post("/workers/leave", include_in_schema=False)
    async def leave(request: Request) -> JSONResponse:
        await beside(dispatcher.leave, _name(request))
        return JSONResponse({})

    @routes.post("/workers/claim", include_in_schema=False)
    async def claim(request: Request, wait_s: float = 0.0) -> Response:
        """The job whose turn it is there, as Order says; 204: there is none yet."""
        wait_s = min(max(wait_s, 0.0), MOST_WAIT_S)
        order = await to_thread.run_sync(_next_order, dispatcher, _name(request), wait_s, limiter=waiting)
        return Response(status_code=204) if order is None else JSONResponse(asdict(order))

    @routes.get("/workers/jobs/{job_id}/{attempt}/photo", include_in_schema=False)
    def photo(request: Request, job_id: str, attempt: int) -> Response:
        path = photo_of(theirs(request, job_id, attempt).request)
        if not path or not Path(path).is_file():
            raise NotFoundError("picture", job_id)
        return FileResponse(path, media_type="application/octet-stream")

    @routes.get("/workers/jobs/{job_id}/{attempt}/pictures/{name}", include_in_schema=False)
    def picture(request: Request, job_id: str, attempt: int, name: str) -> Response:
        """One on which the job's snapshot counts."""
        if name not in queue.counted(theirs(request, job_id, attempt).id):
            raise NotFoundError("picture", name[:40])
        return FileResponse(queue.folder / name, media_type="application/octet-stream")

    @routes.put("/workers/jobs/{job_id}/{attempt}/pictures/{name}", include_in_schema=False)
    async def send_picture(request: Request, job_id: str, attempt: int, name: str) -> JSONResponse:
        """Take a picture, whose SHA-256 is in the header X-SHA256. The answer: what it is called here."""
        await beside(theirs, request, job_id, attempt)
        with mapped_storage(queue.folder), files.temporary(queue.folder) as path:
            await _received(request, path)
            await beside(theirs, request, job_id, attempt)  # the sending took its time
            return JSONResponse({"name": await beside(_adopted, queue, path, job_id, name)})

    @routes.get("/workers/jobs/{job_id}/{attempt}/snapshot", include_in_schema=False)
    def snapshot(request: Request, job_id: str, attempt: int) -> Response:
        return Response(queue.snapshot(theirs(request, job_id, attempt)), media_type="application/octet-stream")

    @routes.put("/workers/jobs/{job_id}/{attempt}/snapshot", include_in_schema=False)
    async def send_snapshot(request: Request, job_id: str, attempt: int) -> JSONResponse:
        job = await beside(theirs, request, job_id, attempt)
        pictures = request.query_params.getlist("picture")
        await beside(queue.save_snapshot, job, await request.body(), pictures)
        return JSONResponse({})

    @routes.post("/workers/jobs/{job_id}/{attempt}/events", include_in_schema=False)
    async def events(request: Request, job_id: str, attempt: int) -> JSONResponse:
        """Take what has happened. The answer: whether it shall go on."""
        events = _events(await request.body())

        def taken() -> bool:
            job = theirs(request, job_id, attempt)
            images = [image for event in events for image in _pictures_of(event)]
            if not all(queue.is_of(job_id, image) for image in images):
                raise RequestError("it names a picture that was not sent with this job")
            goes_on = queue.publish(job, *events)
            for image in images:
                queue.arriving.pop(image, None)
            return goes_on

        return JSONResponse({"goes_on": await beside(taken)})


def _name(request: Request) -> str:
    return person_of(request).id.removeprefix(WORKER)


def _events(body: bytes) -> list[Event]:
    """RequestError: these are none."""
    try:
        events = [unpack(text) for text in files.validate(list[str], files.parse_json(body))]
    except ValueError as exc:
        raise RequestError("these are no events") from exc
    if not events or not all(isinstance(event, Event) for event in events):
        raise RequestError("these are no events")
    return events


def _pictures_of(event: Event) -> tuple[str, ...]:
    match event:
        case Final():
            return event.images
        case Preview():
            return (event.image,)
    return ()


def _next_order(dispatcher: Dispatcher, worker: str, wait_s: float) -> Order | None:
    """A job whose photo has been deleted ends here."""
    job = dispatcher.claim(worker, wait_s)
    if job is None:
        return None
    try:
        return _order(dispatcher.queue, job)
    except OSError as exc:
        why = exc.strerror or "?"
        dispatcher.queue.publish(job, Failed(ImageError.code, f"its photo cannot be read: {why}", {"why": why}))
        return None


def _order(queue: SqliteQueue, job: Job) -> Order:
    """OSError: its photo cannot be read."""
    path, size, digest, asked = photo_of(job.request), 0, "", job.request
    if path:
        with open(path, "rb") as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    match asked:
        case Generate() if path:
            asked = replace(asked, start=PHOTO)
        case Enhance():
            asked = replace(asked, image=PHOTO)
    has_snapshot, pictures = queue.snapshot(job) is not None, tuple(queue.counted(job.id))
    return Order(job.id, job.attempts, pack(asked), Path(path).name, size, digest, has_snapshot, pictures)


async def _received(request: Request, path: Path) -> None:
    """Write what is sent into a new file. RequestError: it is not what its sender has checked. OSError."""
    digest = hashlib.sha256()
    async with await open_file(path, "wb") as file:
        async for piece in request.stream():
            digest.update(piece)
            await file.write(piece)
    if digest.hexdigest() != request.headers.get("x-sha256"):
        raise RequestError("what has come is not what was sent")


def _adopted(queue: SqliteQueue, path: Path, job_id: str, wish: str) -> str:
    """Give what has come a name among the pictures. RequestError: that is none. OSError."""
    files.sync(path)
    try:
        name = names.adopt(path, queue.folder, wish)
    except ValueError as exc:
        raise RequestError(str(exc)) from exc
    queue.arriving[name] = job_id
    return name
