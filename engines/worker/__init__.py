"""Between the queue and the studio. One worker owns one device; the embedded one is a thread of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from engines.bundle import Shelf
from engines.errors import JobCancelled, StudioError
from engines.jobs import ENDED, Job, JobQueue, state_after
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Failed
from engines.messages.status import Status
from engines.studio import DETECTOR, Studio
from engines.worker.builds import BackgroundJobs
from engines.worker.inventory import cannot_build, sources, strays, survey

log = logging.getLogger(__name__)
DEFAULTS = ("portrait", "restorer", DETECTOR)  # what the server loads before it calls itself ready
WAIT_S = 0.5  # how long an idle worker takes to notice that it should stop
QUIET_S = 4.0  # without a picture to draw, before engines are proved: timings mean something then


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


def execute(job: Job, queue: JobQueue, runner: Runner) -> None:
    """Run one job to its last event. The embedded loop and a remote task both end here."""
    started = time.perf_counter()

    def give_up() -> None:
        queue.publish(job, Failed("internal", "see the server's log"))

    with surviving(f"job {job.id}", give_up):
        events = runner.run(job.request, queue.folder)
        for event in events:
            if not queue.publish(job, event) and state_after(event) not in ENDED:
                with suppress(StopIteration):  # what a cancelled job still says is its last event
                    passed_s = time.perf_counter() - started
                    queue.publish(job, events.throw(JobCancelled(f"after {passed_s:.1f} s")))


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
        self._stopping, self._changed = threading.Event(), threading.Event()
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

    def stop(self, wait_s: float) -> None:
        """Take no further job; wait for the present one. What is not finished by then waits for the next start."""
        self._stopping.set()
        self.queue.retire()
        if self.background is not None:
            self.background.stop()
        deadline = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        with surviving("loading the models", lambda: self._announce("failed", "see the server's log")):
            self._warm_up()
        while not self._stopping.is_set():
            with surviving("the queue", lambda: self._stopping.wait(WAIT_S)):
                if (job := self.queue.claim(WAIT_S)) is not None:
                    execute(job, self.queue, self.studio)
                elif self._changed.is_set():  # another engine serves now: load it before somebody waits for it
                    self._changed.clear()
                    self._warm_up()

    def _run_background(self) -> None:
        """The second thread: builds first; proofs when it has been quiet for a while."""
        assert self.background is not None  # or the thread would not be
        quiet_since, proving = time.monotonic(), True
        while not self._stopping.is_set():
            with surviving("the background jobs", lambda: self._stopping.wait(QUIET_S)):
                if (job := self.queue.claim(WAIT_S, "builds")) is not None:
                    execute(job, self.queue, self.background)
                    proving = True
                if self._occupied():
                    quiet_since = time.monotonic()
                elif proving and time.monotonic() - quiet_since > QUIET_S:
                    proving = self.background.prove_next(self._occupied)
                    self._refresh()

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

    def _announce(self, state: Literal["loading", "ready", "failed"], detail: str = "") -> None:
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
