"""From a job to the scenes a page shows while it goes on. The page may close and come back: the job does not notice."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

from engines.errors import NotFoundError, StudioError
from engines.jobs import ENDED, Job, JobQueue
from webui.stream import JobView, advance, waiting

T = TypeVar("T")
LOOK_S = 0.4
JOB_ID = re.compile(r"[0-9a-f]{32}")


def remembered(jobs: object, limit: int) -> list[str]:
    """Return the names of jobs that a browser keeps, each once. It may send anything: what is none is passed over."""
    names = [name for name in jobs if isinstance(name, str)] if isinstance(jobs, list) else []
    return list(dict.fromkeys(filter(JOB_ID.fullmatch, names)))[:limit]


def jobs_of(queue: JobQueue, jobs: object, kind: type[T], limit: int) -> Iterator[tuple[Job, T]]:
    """Yield the jobs of one kind of request that a browser keeps, each with it. What is none of them is passed over."""
    for name in remembered(jobs, limit):
        with suppress(StudioError):
            job = queue.job(name)
            if isinstance(job.request, kind):
                yield job, job.request


def follow(queue: JobQueue, job_id: str, scene: JobView) -> Iterator[JobView]:
    """Yield one scene per change, from the waiting line to the end."""
    while ahead := queue.ahead(job_id):
        scene = waiting(scene, ahead)
        yield scene
        time.sleep(LOOK_S)
    yield (scene := waiting(scene, 0))
    for event in queue.follow(job_id):
        yield (scene := advance(scene, event))


def resume(queue: JobQueue, job_id: str, scene: JobView) -> Iterator[JobView]:
    """Yield scenes for a page that comes back: the last of a job that ended, all of one that runs, none of others."""
    try:
        ended = queue.job(job_id).state in ENDED
    except NotFoundError:
        return
    scenes = follow(queue, job_id, scene)
    yield from (deque(scenes, maxlen=1) if ended else scenes)
