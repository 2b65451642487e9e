"""Between the queue and the studio. One worker owns one device; the embedded one is a thread of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from engines.bundle import Shelf
from engines.errors import JobCancelled, StorageError, StudioError
from engines.jobs import ENDED, Job, JobQueue, Lane, state_after
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Failed
from engines.messages.status import Status, WorkerState
from engines.studio import DETECTOR, Studio
from engines.worker.builds import BackgroundJobs
from engines.worker.inventory import cannot_build, sources, strays, survey

log = logging.getLogger(__name__)
DEFAULTS = ("portrait", "restorer", DETECTOR)  # what the server loads before it calls itself ready
WAIT_S = 0.5  # how long an idle worker takes to notice that it should stop
AGAIN_S = 1.0  # until what the disk refused is tried again
FINISH_SHARE = 0.6  # of the time for a stop, in which the present job may still end by itself
QUIET_S = 4.0  # without a picture to draw, before engines are proved: timings mean something then


NEVER, IGNORE = threading.Event(), lambda why: None
T = TypeVar("T")


class Runner(Protocol):
    """What does a job: the studio, or BackgroundJobs. JobCancelled is thrown in when the job is to end."""

    def run(self, request: Any, folder: Path) -> Generator[Event]: ...


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
    that the disk refuses is kept until it takes it, and `hear` is told why. The embedded loop and a remote task both
    end here.
    """
    started = time.perf_counter()

    def publish(event: Event) -> bool | None:
        return insist(partial(queue.publish, job, event), stopping, hear)

    def give_up() -> None:
        publish(Failed("internal", "see the server's log"))

    with surviving(f"job {job.id}", give_up), closing(runner.run(job.request, queue.folder)) as events:
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


class EmbeddedWorker:
    """
    Loads the default bundles, says how it is, and works until it is stopped. With `background`, a second thread makes
    bundles, and proves engines while nothing is to be drawn.
    """

    def __init__(
        self, queue: SqliteQueue, studio: Studio, shelf: Shelf, backend: str, background: BackgroundJobs | None = None
    ) -> None:
        self.queue, self.studio, self.shelf, self.backend, self.background = queue, studio, shelf, backend, background
        self._status, self._status_lock = Status("loading"), threading.Lock()
        self._warned: set[str] = set()  # names of strays
        self._before: tuple[WorkerState, str] | None = None  # while the disk refuses: how it was before
        self._stopping, self._breaking_off, self._changed = threading.Event(), threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._work, name="worker", daemon=True)]
        if background is not None:
            background.refresh = self._refresh
            self._threads.append(threading.Thread(target=self._run_background, name="background jobs", daemon=True))

    def start(self) -> None:
        self.queue.recover()
        self._status = self._inventory()
        self._announce("loading")
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float) -> bool:
        """
        Take no further job, and give the present one some time to end; then break off after its next event. What has
        not ended within `wait_s` waits for the next start, unspent. Return whether nothing runs any more.
        """
        begun = time.monotonic()
        self._stopping.set()
        self.queue.retire()
        if self.background is not None:
            self.background.stop()
        ended = self._join(begun + FINISH_SHARE * wait_s)
        self._breaking_off.set()
        ended = ended or self._join(begun + wait_s)
        with surviving("putting jobs back", lambda: None):
            self.queue.release()
        return ended

    def _join(self, deadline: float) -> bool:
        """Return whether all threads have ended by then."""
        for thread in self._threads:
            if thread.ident is not None:  # it has been started
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        with surviving("loading the models", lambda: self._announce("failed", "see the server's log")):
            self._warm_up()
        while not self._stopping.is_set():
            with surviving("the queue", lambda: self._stopping.wait(WAIT_S)):
                if (job := self._claim("pictures")) is not None:
                    execute(job, self.queue, self.studio, self._breaking_off, self._hear)
                elif self._changed.is_set():  # another engine serves now: load it before somebody waits for it
                    self._changed.clear()
                    self._warm_up()

    def _run_background(self) -> None:
        """The second thread: builds first; proofs when it has been quiet for a while."""
        assert self.background is not None  # or the thread would not be
        quiet_since, proving = time.monotonic(), True
        while not self._stopping.is_set():
            with surviving("the background jobs", lambda: self._stopping.wait(QUIET_S)):
                if (job := self._claim("builds")) is not None:
                    execute(job, self.queue, self.background, self._breaking_off, self._hear)
                    proving = True
                if self._occupied():
                    quiet_since = time.monotonic()
                elif proving and time.monotonic() - quiet_since > QUIET_S:
                    proving = self.background.prove_next(self._occupied)
                    self._refresh()

    def _claim(self, lane: Lane) -> Job | None:
        return insist(partial(self.queue.claim, WAIT_S, lane), self._stopping, self._hear)

    def _hear(self, why: str) -> None:
        """Say why nothing can be stored; "": it can again, and all is as before."""
        if why:
            self._before = self._before or (self._status.state, self._status.detail)
            self._announce("failed", why)
        elif self._before:
            self._announce(*self._before)
            self._before = None

    def _occupied(self) -> bool:
        return self.queue.status().state == "loading" or self.queue.busy()

    def _warm_up(self) -> None:
        try:
            for name in DEFAULTS:
                wanted = "auto" if name == DETECTOR else self.backend  # which any engine runs for all of them
                loaded, reason = self.studio.loaded_bundles.get(name, wanted)
                loaded.load_all()
                log.info("%s: %s", name, reason)
        except StudioError as exc:
            log.error("%s", exc)
            self._announce("failed", str(exc))
        else:
            self._announce("ready")

    def _announce(self, state: WorkerState, detail: str = "") -> None:
        """How it is now, with what was found here last."""
        with self._status_lock:
            self._status = replace(self._status, state=state, detail=detail)
            self.queue.announce(self._status)

    def _refresh(self) -> None:
        """Say what is here now; how it is may change while the disk is read."""
        inventory = self._inventory()
        with self._status_lock:
            self._status = replace(inventory, state=self._status.state, detail=self._status.detail)
            self.queue.announce(self._status)
        self._changed.set()

    def _inventory(self) -> Status:
        """What is here, as a Status of which only the state is not meant. Reads the disk, so nobody waits for it."""
        jobs, loras = self.background, self.studio.loras.names()
        engines, bundles = survey(self.shelf, self.backend, jobs.verdicts if jobs else None)
        if jobs is None:
            return Status("loading", engines=engines, bundles=bundles, loras=loras)
        return Status(
            "loading",
            engines=engines,
            bundles=bundles,
            sources=tuple(sources(self.shelf, jobs.checkpoints)),
            can_build=cannot_build(),
            loras=loras,
            models=jobs.offered(),
            strays=strays(jobs.models, self._warned),
        )
