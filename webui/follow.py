"""
From a job to what is told of it while it goes on: its events, and the scenes a page shows. Whoever follows may go and
come back, which the job does not notice; and whoever waits holds no thread, however many they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TypeVar

from anyio import to_thread

from engines.errors import JobPostponed, NotFoundError, StudioError
from engines.jobs import ENDED, Job
from engines.messages import Event
from webui.own_jobs import OwnJobs
from webui.stream import JobView, advance, begun, waiting

T = TypeVar("T")
LOOK_S = 0.4  # how often to look how many are ahead, and how long that takes
POLL_S = 5.0  # how often to look at a job of which nothing was heard: another process may have written
JOB_ID = re.compile(r"[0-9a-f]{32}")


def remembered(jobs: object, limit: int) -> list[str]:
    """Return the names of jobs that a browser keeps, each once. It may send anything: what is none is passed over."""
    names = [name for name in jobs if isinstance(name, str)] if isinstance(jobs, list) else []
    return list(dict.fromkeys(filter(JOB_ID.fullmatch, names)))[:limit]


def jobs_of(own: OwnJobs, jobs: object, kind: type[T], limit: int) -> Iterator[tuple[Job, T]]:
    """Yield the jobs of one kind of request that a browser keeps, each with it. What is none of them is passed over."""
    for name in remembered(jobs, limit):
        with suppress(StudioError):
            job = own.job(name)
            if isinstance(job.request, kind):
                yield job, job.request


async def events(own: OwnJobs, job_id: str) -> AsyncIterator[Event | None]:
    """
    Yield past and coming events, to the last one, and None after every POLL_S of silence: Gradio notices only then that
    nobody listens any more. NotFoundError: no such job. JobPostponed: it does not end before a restart.
    """
    async for numbered in numbered_events(own, job_id):
        yield numbered and numbered[1]


async def numbered_events(own: OwnJobs, job_id: str, after: int = 0) -> AsyncIterator[tuple[int, Event] | None]:
    """Yield what `events` does, with the numbers of the events, from after that number on."""
    loop, news, ended = asyncio.get_running_loop(), asyncio.Event(), False

    def call() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(news.set)

    with own.listening(job_id, call):
        while not ended:
            news.clear()  # before looking: what comes meanwhile is seen, or heard
            happened, ended = await to_thread.run_sync(own.since, job_id, after)
            for number, event in happened:
                after = number
                yield number, event
            if not happened and not ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await news.wait()
                if not news.is_set():
                    yield None


async def follow(own: OwnJobs, job_id: str, scene: JobView) -> AsyncIterator[JobView]:
    """Yield one scene per change, from the waiting line to the end, or to the program's: a page comes back to it."""
    with suppress(JobPostponed):
        while (place := await to_thread.run_sync(own.place, job_id)).waits:
            yield (scene := waiting(scene, place))
            await asyncio.sleep(LOOK_S)
        yield (scene := begun(scene))
        async for event in events(own, job_id):
            scene = advance(scene, event) if event else scene
            yield scene


async def resume(own: OwnJobs, job_id: str, scene: JobView) -> AsyncIterator[JobView]:
    """Yield scenes for a page that comes back: the last of a job that ended, all of one that runs, none of others."""
    try:
        ended = (await to_thread.run_sync(own.job, job_id)).state in ENDED
    except NotFoundError:
        return
    last = None
    async for last in follow(own, job_id, scene):
        if not ended:
            yield last
    if ended and last:
        yield last
