"""Submit a job and wait for its end, without a thread; who waits and hangs up cancels it."""

from __future__ import annotations

import asyncio

from anyio import to_thread
from fastapi import Request

from engines.jobs import JobQueue
from engines.messages import Enhance, Event, Failed, Final, Generate
from webui.api.errors import JobFailed
from webui.follow import events


async def outcome(queue: JobQueue, order: Generate | Enhance, request: Request) -> Final:
    """Submit and wait, as `final` does. QueueFull, StorageError: it was not taken."""
    return await final(queue, await to_thread.run_sync(queue.submit, order), request)


async def final(queue: JobQueue, job_id: str, request: Request) -> Final:
    """
    Wait for a job's end; if whoever asked hangs up, cancel: nobody else knows of it. JobFailed: with what it says.
    JobPostponed.
    """
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
