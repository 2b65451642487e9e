"""
What a worker does all day: load the models, take jobs, prove engines while nobody asks, rest while it is too hot, and
say how it is. One worker owns one device. It is a process of its own, which its supervisor starts and stops; in tests,
threads.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import replace
from functools import partial

from engines.bundle import Shelf
from engines.catalogue import Machine
from engines.errors import StudioError
from engines.jobs import Job, Lane
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages.status import Status, WorkerState
from engines.studio import DETECTOR, Studio
from engines.worker import execute, insist, surviving
from engines.worker.builds import BackgroundJobs
from engines.worker.heat import Rest
from engines.worker.inventory import cannot_build, sources, strays, survey, weights_bytes

log = logging.getLogger(__name__)
DEFAULTS = ("portrait", "restorer", DETECTOR)  # what the server loads before it calls itself ready
WAIT_S = 0.5  # how long an idle worker takes to notice that it should stop
FINISH_SHARE = 0.6  # of the time for a stop, in which the present job may still end by itself
RELEASE_S = 10.0  # without a picture to draw, before the memory that the last one took is given back
QUIET_S = 4.0  # without a picture to draw, before engines are proved: timings mean something then
DUE_S = 60.0  # after which a proof waits for the next moment without a picture, however short
TIME_AGAIN_S = 60.0  # until it is looked again whether what is not sure can be timed


class Worker:
    """
    Loads the default bundles, says how it is, and works until it is stopped. With `background`, a second thread makes
    bundles, and proves engines while nothing is to be drawn. Nothing is begun that `rest` has a reason against.
    """

    def __init__(
        self,
        queue: SqliteQueue,
        studio: Studio,
        shelf: Shelf,
        backend: str,
        background: BackgroundJobs | None = None,
        rest: Rest | None = None,
    ) -> None:
        self.queue, self.studio, self.shelf, self.backend, self.background = queue, studio, shelf, backend, background
        self.rest = rest or Rest()
        self.rest.announce = self._announce_rest
        self._status, self._status_lock = Status("loading"), threading.Lock()
        self._warned: set[str] = set()  # names of strays
        self._before: tuple[WorkerState, str] | None = None  # while the disk refuses: how it was before
        self._stopping, self._breaking_off, self._changed = threading.Event(), threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._work, name="worker", daemon=True)]
        if studio.experience is not None:
            studio.experience.refresh = self._refresh
        if background is not None:
            background.refresh = self._refresh
            self._threads.append(threading.Thread(target=self._run_background, name="background jobs", daemon=True))

    def start(self, cold: str = "") -> None:
        """`cold`: why no model is to be loaded before a job asks for it."""
        self._cold = cold
        self._status = self._inventory()
        self._announce("loading")
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float) -> bool:
        """
        Take no further job, and give the present one some time to end; then break off after its next event. Return
        whether nothing runs any more, `wait_s` later at most: what still does is for the queue to `release`.
        """
        begun = time.monotonic()
        self._stopping.set()
        self.queue.retire()
        if self.background is not None:
            self.background.stop()
        ended = self._join(begun + FINISH_SHARE * wait_s)
        self._breaking_off.set()
        return ended or self._join(begun + wait_s)

    def _join(self, deadline: float) -> bool:
        """Return whether all threads have ended by then."""
        for thread in self._threads:
            if thread.ident is not None:  # it has been started
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        """The first thread: pictures first, and after each of them one bundle of those that are still to be loaded."""
        to_load, release_at = list(DEFAULTS), math.inf
        if self._cold:
            to_load.clear()
            self._announce("failed", self._cold)
        while not self._stopping.is_set():
            with surviving("the queue", lambda: self._stopping.wait(WAIT_S)):
                if (job := self._claim("pictures", 0.0 if to_load else WAIT_S)) is not None:
                    execute(job, self.queue, self.studio, self._breaking_off, self._hear)
                    self.rest.begin_pause()
                    release_at = time.monotonic() + RELEASE_S
                elif time.monotonic() > release_at:
                    self.studio.release_memory()
                    release_at = math.inf
                if to_load and not self._stopping.is_set():
                    self._load(to_load)
                elif job is None and self._changed.is_set() and not self._cold:  # another engine serves now
                    self._changed.clear()
                    to_load = list(DEFAULTS)

    def _run_background(self) -> None:
        """
        The second thread: builds first; proofs when it has been quiet for a while, or, where it never is, between two
        pictures; and when all is proved, what is not sure is timed again.
        """
        assert self.background is not None  # or the thread would not be
        quiet_since = due_since = time.monotonic()
        proving, time_again = True, 0.0
        while not self._stopping.is_set():
            with surviving("the background jobs", lambda: self._stopping.wait(QUIET_S)):
                if (job := self._claim("builds", WAIT_S)) is not None:
                    execute(job, self.queue, self.background, self._breaking_off, self._hear)
                    proving, due_since = True, time.monotonic()
                if self._occupied():
                    quiet_since = time.monotonic()
                    continue
                now = time.monotonic()
                if self._rests() or (now - quiet_since <= QUIET_S and not (proving and now - due_since > DUE_S)):
                    continue
                if proving:
                    proving = self.background.prove_next(self._occupied)
                    self._refresh()
                elif now > time_again:
                    if self.background.time_next(self._occupied):
                        self._refresh()
                    else:
                        time_again = time.monotonic() + TIME_AGAIN_S

    def _rests(self) -> bool:
        """Whether nothing is to be done that nobody waits for."""
        return bool(self.rest.reason("builds")) or self.queue.is_quiet()

    def _claim(self, lane: Lane, wait_s: float) -> Job | None:
        if self.rest.reason(lane):
            self._stopping.wait(wait_s)
            return None
        return insist(partial(self.queue.claim, wait_s, lane), self._stopping, self._hear)

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

    def _load(self, to_load: list[str]) -> None:
        """Load the first of these bundles, and after the last one be ready; after one that cannot be had, try none."""
        name, failed = to_load.pop(0), "see the server's log"
        wanted = "auto" if name == DETECTOR else self.backend  # which any engine runs for all of them
        try:
            loaded, reason = self.studio.loaded_bundles.get(name, wanted)
            loaded.load_all()
            log.info("%s: %s", name, reason)
            failed = ""
        except StudioError as exc:
            log.error("%s", exc)
            failed = str(exc)
        finally:
            if failed:
                to_load.clear()
                self._announce("failed", failed)
        if not failed and not to_load:
            self._announce("ready")

    def _announce(self, state: WorkerState, detail: str = "") -> None:
        """How it is now, with what was found here last."""
        with self._status_lock:
            self._status = replace(self._status, state=state, detail=detail)
            self.queue.announce(self._status)

    def _announce_rest(self, resting: str, temperature_c: float | None) -> None:
        with self._status_lock:
            self._status = replace(self._status, resting=resting, temperature_c=temperature_c)
            self.queue.announce(self._status)

    def _refresh(self) -> None:
        """Say what is here now; how it is may change while the disk is read."""
        inventory = self._inventory()
        with self._status_lock:
            now = self._status
            self._status = replace(
                inventory,
                state=now.state,
                detail=now.detail,
                resting=now.resting,
                temperature_c=now.temperature_c,
            )
            self.queue.announce(self._status)
        self._changed.set()

    def _inventory(self) -> Status:
        """What is here, as a Status of which only the state is not meant. Reads the disk, so nobody waits for it."""
        jobs, loras, lenders = self.background, self.studio.loras.names(), self.studio.loaded_bundles.lenders
        if jobs is None:
            engines, bundles = survey(self.shelf, self.backend, lenders=lenders)
            return Status("loading", engines=engines, bundles=bundles, loras=loras)
        engines, bundles = survey(self.shelf, self.backend, jobs.verdicts, jobs.too_large, lenders)
        origins, machine = sources(self.shelf, jobs.checkpoints), Machine.of(jobs.checkpoints)
        return Status(
            "loading",
            engines=engines,
            bundles=bundles,
            sources=tuple(origins),
            source_mb=tuple(round(weights_bytes(path) / 1e6, 1) for path in origins.values()),
            can_build=cannot_build(),
            loras=loras,
            models=jobs.offered(),
            memory_gb=round(machine.memory_gb, 1),
            free_gb=round(machine.free_gb, 1),
            strays=strays(jobs.models, self._warned),
        )
