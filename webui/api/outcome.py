"""
Two ways to what becomes of a job: wait for it, or go and come back to its address (RFC 7240). Who waits and hangs up
cancels the job; who was given its address need not stay.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

from anyio import to_thread
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from typing_extensions import TypedDict

from engines.jobs import State
from engines.messages import Enhance, Event, Failed, Final, Generate
from webui.api.errors import JobFailed
from webui.follow import events
from webui.own_jobs import OwnJobs

QUOTED = re.compile(r'"[^"]*"')  # a preference's value may be any text (RFC 7240, section 2)
RESPOND_ASYNC = "respond-async"


class Accepted(TypedDict):
    id: str
    state: State


def goes_on_without(headers: Headers) -> bool:
    """Return whether the caller would rather not wait: `Prefer: respond-async`, among others perhaps."""
    preferences = ",".join(QUOTED.sub("", line) for line in headers.getlist("prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == RESPOND_ASYNC for preference in preferences)


async def accepted(own: OwnJobs, order: Generate | Enhance) -> JSONResponse:
    """Submit, and answer with the job's address. QueueFull, StorageError."""
    job_id = await to_thread.run_sync(own.submit, order)
    state = (await to_thread.run_sync(own.job, job_id)).state
    headers = {"Location": f"/jobs/{job_id}", "Preference-Applied": RESPOND_ASYNC}
    return JSONResponse(Accepted(id=job_id, state=state), 202, headers)


async def outcome(own: OwnJobs, order: Generate | Enhance, request: Request) -> Final:
    """Submit and wait, as `final` does. QueueFull, StorageError: it was not taken."""
    return await final(own, await to_thread.run_sync(own.submit, order), request)


async def final(own: OwnJobs, job_id: str, request: Request) -> Final:
    """
    Wait for a job's end; if whoever asked hangs up, cancel: nobody else knows of it. JobFailed: with what it says.
    JobPostponed.
    """
    return await _final(own, job_id, asyncio.ensure_future(_hung_up(request)))


async def outcome_until(own: OwnJobs, order: Generate | Enhance, leaving: Coroutine[Any, Any, object]) -> Final:
    """Submit and wait, as `outcome` does, for whoever has hung up when `leaving` ends."""
    job_id = await to_thread.run_sync(own.submit, order)
    return await _final(own, job_id, asyncio.ensure_future(leaving))


async def attended(own: OwnJobs, order: Generate | Enhance) -> Final:
    """
    Submit and wait, as `outcome` does, for whoever cancels this when they leave: the job is cancelled then, at whatever
    point that comes, also where nothing more can be awaited here.
    """
    leaving = asyncio.Event()
    work = asyncio.ensure_future(outcome_until(own, order, leaving.wait()))
    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # which nobody hears who has left
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        leaving.set()
        raise


async def _final(own: OwnJobs, job_id: str, gone: asyncio.Future[object]) -> Final:
    last = asyncio.ensure_future(_last(own, job_id))
    try:
        await asyncio.wait((last, gone), return_when=asyncio.FIRST_COMPLETED)
        if not last.done():
            await to_thread.run_sync(own.cancel, job_id)
        event = await last
    finally:
        last.cancel()
        gone.cancel()
    if isinstance(event, Final):
        return event
    raise JobFailed(event if isinstance(event, Failed) else Failed("internal", "the stream ended without an end"))


async def _last(own: OwnJobs, job_id: str) -> Event | None:
    last = None
    async for event in events(own, job_id):
        last = event or last
    return last


async def _hung_up(request: Request) -> None:
    """The request has been read to its end: what is received now says that there is nobody left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
