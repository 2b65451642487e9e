"""
Between the queue and the studio: how one job is done, whoever carries it. Knows a queue and something that runs a
request; which models there are, and in which process this is, the loop and its supervisor know.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from engines import logs
from engines.errors import JobCancelled, StorageError
from engines.jobs import ENDED, Job, JobQueue, state_after
from engines.messages import Event, Failed

log = logging.getLogger(__name__)
STOP = "stop"  # what the supervisor says to a worker's process
AGAIN_S = 1.0  # until what the disk refused is tried again
NEVER, IGNORE = threading.Event(), lambda why: None
T = TypeVar("T")


class Runner(Protocol):
    """What does a job: the studio, or BackgroundJobs. JobCancelled is thrown in when the job is to end."""

    def run(self, request: Any, folder: Path) -> Generator[Event]: ...


@runtime_checkable
class Resumable(Protocol):
    """A runner that goes on from the snapshots of the job which it is about to run."""

    snapshots: Any


@dataclass(frozen=True)
class JobSnapshots:
    """Where one attempt keeps how far it has come, and finds how far the one before it came."""

    queue: JobQueue
    job: Job

    @property
    def attempt(self) -> int:
        return self.job.attempts

    def load(self) -> bytes | None:
        return self.queue.snapshot(self.job)

    def save(self, body: bytes, pictures: Sequence[str]) -> None:
        with suppress(StorageError):  # a full disk costs time, after a crash, and no picture
            self.queue.save_snapshot(self.job, body, pictures)


@contextmanager
def surviving(what: str, otherwise: Callable[[], object]) -> Iterator[None]:
    """The one catch-all of the program: a bug must neither take the worker down nor be retried for ever."""
    try:
        yield
    except Exception:
        log.exception("%s", what)
        otherwise()


def execute(
    job: Job, queue: JobQueue, runner: Runner, stopping: threading.Event = NEVER, hear: Callable[[str], None] = IGNORE
) -> None:
    """
    Run one job to its last event; or, once it is `stopping`, to its next one, and then it is still to be done. An event
    that the disk refuses is kept until it takes it, and `hear` is told why. A worker's loop and a remote task both
    end here.
    """
    started = time.perf_counter()
    if isinstance(runner, Resumable):
        runner.snapshots = JobSnapshots(queue, job)

    def publish(event: Event) -> bool | None:
        goes_on = insist(partial(queue.publish, job, event), stopping, hear)
        if goes_on is not None and (state := state_after(event)) in ENDED:
            why = f" ({event.code})" if isinstance(event, Failed) else ""
            log.info("%s%s after %.1f s", state, why, time.perf_counter() - started)
        return goes_on

    def give_up() -> None:
        publish(Failed("internal", "see the server's log"))

    with (
        logs.about(job.id),
        surviving(f"job {job.id[: logs.LETTERS]}", give_up),
        closing(runner.run(job.request, queue.folder)) as events,
    ):
        log.info("%s begins, attempt %d", type(job.request).__name__.lower(), job.attempts)
        for event in events:
            goes_on = publish(event)
            if stopping.is_set():
                break
            if not goes_on and state_after(event) not in ENDED:
                with suppress(StopIteration):  # what a cancelled job still says is its last event
                    passed_s = time.perf_counter() - started
                    publish(events.throw(JobCancelled(f"after {passed_s:.1f} s")))


def insist(act: Callable[[], T], stopping: threading.Event, hear: Callable[[str], None]) -> T | None:
    """
    Do what the disk may refuse, again and again: what a job has come to is not lost because there was no space. `hear`
    is told why it has to wait, and "" when that is over. None: it is `stopping`, and the disk still refuses.
    """
    refused = False
    while True:
        try:
            result = act()
        except StorageError as exc:
            if not refused:
                log.error("%s; it is tried again every %.0f s", exc, AGAIN_S)
                hear(str(exc))
            refused = True
            if stopping.wait(AGAIN_S):
                return None
        else:
            if refused:
                hear("")
            return result
