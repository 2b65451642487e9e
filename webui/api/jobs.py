"""
A job by its address: how it is, what happens to it as it happens, and its end; and the caller's own jobs. A job of
nobody in particular has an address that cannot be guessed, so who has that may ask and cancel. Shows the jobs that
programs can ask for, and no path of this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from typing_extensions import TypedDict

from engines.errors import JobPostponed, NotFoundError
from engines.jobs import ENDED, State, state_after
from engines.messages import Enhance, Event, Failed, Final, Generate, Preview, Progress, Stage
from webui.addresses import root
from webui.api import answers
from webui.api.errors import sentence
from webui.api.outcome import Accepted
from webui.follow import JOB_ID, numbered_events
from webui.i18n import preferred
from webui.own_jobs import HouseJobs, OwnJobs
from webui.pictures import address

Order = Generate | Enhance
Numbered = tuple[int, Event]
EVENT_NUMBER = re.compile(r"[0-9]{1,18}")
LISTED = 50  # jobs


@dataclass(frozen=True)
class Reader:
    """For whom an answer is written. `root`: as addresses.root has it."""

    language: str | None
    root: str

    @classmethod
    def of(cls, request: Request) -> Reader:
        return cls(preferred(request.headers), root(request.scope))


class Step(TypedDict):
    """`step` of `total`, of picture `picture` of `pictures`, and how long the rest takes, in seconds."""

    stage: Stage
    step: int
    total: int
    eta_s: float | None
    picture: int
    pictures: int


class Fault(TypedDict):
    code: str
    message: str


class JobBody(TypedDict, total=False):
    """
    `position`: how many are ahead, while it waits. `eta_s`: in how many seconds it will have ended, if that is known.
    `progress`: the latest. `result`, `error`: of its end.
    """

    id: str
    kind: Literal["generate", "enhance"]
    state: State
    position: int
    eta_s: float
    progress: Step
    result: answers.Drawn | answers.Restored
    error: Fault


class QueueBody(TypedDict):
    paused: bool


class JobList(TypedDict):
    jobs: list[JobBody]


def add(routes: APIRouter, jobs: HouseJobs) -> None:
    @routes.get("/jobs", responses={200: {"model": JobList}})
    def own_jobs(request: Request) -> JSONResponse:
        """The caller's latest jobs, newest first: none are those of a caller without a cookie or a token."""
        own = jobs.of(request)
        orders = [(job.id, job.request) for job in own.latest_jobs(LISTED)]
        reader = Reader.of(request)
        bodies = [_body(own, job_id, order, reader) for job_id, order in orders if isinstance(order, Order)]
        return JSONResponse({"jobs": bodies})

    @routes.get("/jobs/{job_id}", responses={200: {"model": JobBody}})
    def look(job_id: str, request: Request) -> JSONResponse:
        """How the job is."""
        own = jobs.of(request)
        order = _find(own, job_id)
        return JSONResponse(_body(own, job_id, order, Reader.of(request)))

    @routes.delete("/jobs/{job_id}", responses={200: {"model": JobBody}, 202: {"model": JobBody}})
    def cancel(job_id: str, request: Request) -> JSONResponse:
        """Cancel the job. 202: it runs, and is told at its next step. 200: it has ended, now or before."""
        own = jobs.of(request)
        order = _find(own, job_id)
        own.cancel(job_id)
        body = _body(own, job_id, order, Reader.of(request))
        return JSONResponse(body, 200 if body["state"] in ENDED else 202)

    @routes.post("/jobs/{job_id}/retry", status_code=202, responses={202: {"model": Accepted}})
    def retry(job_id: str, request: Request) -> JSONResponse:
        """Submit a job that failed or was cancelled once more: a new job. 404: its photo has been deleted since."""
        own = jobs.of(request)
        _find(own, job_id)
        anew = own.retry(job_id)
        return JSONResponse(Accepted(id=anew, state=own.job(anew).state), 202, {"Location": f"/jobs/{anew}"})

    @routes.post("/jobs/{job_id}/first", responses={200: {"model": JobBody}})
    def first(job_id: str, request: Request) -> JSONResponse:
        """Let the job begin before the caller's others that wait. Nobody else waits longer."""
        own = jobs.of(request)
        order = _find(own, job_id)
        own.move_first(job_id)
        return JSONResponse(_body(own, job_id, order, Reader.of(request)))

    @routes.get("/jobs/{job_id}/events", response_class=StreamingResponse)
    async def follow(job_id: str, request: Request) -> Response:
        """
        The job's events as they come, past ones first (text/event-stream). `Last-Event-ID`: only those after it. 204:
        there is none after it and none will come, which ends a browser's reconnecting.
        """
        own = jobs.of(request)
        order = await to_thread.run_sync(_find, own, job_id)
        events, ended = await to_thread.run_sync(_past, own, job_id)
        after = _after(request.headers.get("last-event-id", ""), events)
        if ended and not [number for number, _ in events if number > after]:
            return Response(status_code=204)
        pieces = _stream(own, job_id, order, after, Reader.of(request))
        return StreamingResponse(pieces, headers={"Cache-Control": "no-store"}, media_type="text/event-stream")


def add_queue(routes: APIRouter, jobs: HouseJobs) -> None:
    """Add what is done with the whole queue, by the owner of the house."""

    @routes.post("/queue/pause", responses={200: {"model": QueueBody}})
    def pause(request: Request) -> JSONResponse:
        """Begin no more pictures, also after a restart; what is being drawn goes on. 403: that is the owner's."""
        jobs.of(request).pause()
        return JSONResponse(QueueBody(paused=True))

    @routes.post("/queue/resume", responses={200: {"model": QueueBody}})
    def resume(request: Request) -> JSONResponse:
        """Go on. 403: that is the owner's."""
        jobs.of(request).resume()
        return JSONResponse(QueueBody(paused=False))


def _find(own: OwnJobs, job_id: str) -> Order:
    """NotFoundError: there is no such job, or it is none that programs ask for: of a build the log names folders."""
    if not JOB_ID.fullmatch(job_id):
        raise NotFoundError("job", job_id)
    order = own.job(job_id).request
    if not isinstance(order, Order):
        raise NotFoundError("job", job_id)
    return order


def _past(own: OwnJobs, job_id: str) -> tuple[list[Numbered], bool]:
    """Return the events so far, and whether that is all. While the program stops there is nothing to wait for."""
    with suppress(JobPostponed):
        return own.since(job_id, 0)
    return [], False


def _body(own: OwnJobs, job_id: str, order: Order, reader: Reader) -> JobBody:
    state = own.job(job_id).state  # asked first: the events are then as new as it, or newer, and decide
    events = [event for _, event in _past(own, job_id)[0]]
    last = events[-1] if events else None
    if isinstance(last, Final | Failed):
        state = state_after(last)
    body: JobBody = {"id": job_id, "kind": "generate" if isinstance(order, Generate) else "enhance", "state": state}
    if state not in ENDED:
        with suppress(JobPostponed):
            place = own.place(job_id)
            if state == "queued":
                body["position"] = place.ahead
            if place.eta_s is not None:
                body["eta_s"] = round(place.eta_s, 1)
    for progress in [event for event in events if isinstance(event, Progress)][-1:]:
        body["progress"] = _step(progress)
    if isinstance(last, Final):
        body["result"] = answers.of(order, last, reader.root)
    elif isinstance(last, Failed):
        body["error"] = _fault(last, reader.language)
    return body


def _step(event: Progress) -> Step:
    return {
        "stage": event.stage,
        "step": event.step,
        "total": event.total,
        "eta_s": event.eta_s,
        "picture": event.picture,
        "pictures": event.pictures,
    }


def _fault(event: Failed, language: str | None) -> Fault:
    return {"code": event.code, "message": sentence(language, event.code, event.facts)}


def _after(last_event_id: str, events: Sequence[Numbered]) -> int:
    """Return the number that a follower has heard last: 0 for what is none, or was never given."""
    number = int(last_event_id) if EVENT_NUMBER.fullmatch(last_event_id) else 0
    return number if events and number <= events[-1][0] else 0


async def _stream(own: OwnJobs, job_id: str, order: Order, after: int, reader: Reader) -> AsyncIterator[str]:
    """Yield server-sent events (HTML standard, section 9.2): a comment where there is nothing to say."""
    try:
        async for numbered in numbered_events(own, job_id, after):
            yield _written(numbered, order, reader) if numbered else ": waiting\n\n"
    except NotFoundError:  # its visitor's time at a frame is over, and nothing of it is left
        return
    except JobPostponed as exc:  # without a number, so that who comes back goes on where it was
        yield _message("postponed", {"code": exc.code, "message": sentence(reader.language, exc.code, exc.facts)})


def _written(numbered: Numbered, order: Order, reader: Reader) -> str:
    number, event = numbered
    match event:
        case Progress():
            return _message("progress", _step(event), number)
        case Preview():
            shown = {**asdict(event), "image": f"{reader.root}/{address(event.image)}"}
            return _message("preview", shown, number)
        case Final():
            return _message("final", answers.of(order, event, reader.root), number)
        case Failed():
            return _message("failed", _fault(event, reader.language), number)
    return f"id: {number}\n\n"  # nothing for those who follow; the number counts


def _message(kind: str, data: object, number: int | None = None) -> str:
    numbered = "" if number is None else f"id: {number}\n"
    return f"{numbered}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
