"""Between the queue and the studio. One worker owns one device; the embedded one is a thread of the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from engines import backends
from engines.bundle import Bundle, Shelf
from engines.errors import StudioError
from engines.jobs import Job, JobQueue
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import BundleStatus, EngineStatus, Failed, Status
from engines.studio import Studio

log = logging.getLogger(__name__)
DEFAULTS = ("portrait", "restorer")  # what the server loads before it calls itself ready
Survey = tuple[tuple[EngineStatus, ...], tuple[BundleStatus, ...]]
WAIT_S = 0.5  # how long an idle worker takes to notice that it should stop


@contextmanager
def surviving(what: str, otherwise: Callable[[], object]) -> Iterator[None]:
    """The one catch-all of the program: a bug must neither take the worker down nor be retried for ever."""
    try:
        yield
    except Exception:
        log.exception("%s", what)
        otherwise()


def execute(job: Job, queue: JobQueue, studio: Studio) -> None:
    """Run one job to its last event. The embedded loop and a remote task both end here."""
    go_on = True

    def cancelled() -> bool:
        return not go_on

    def give_up() -> None:
        queue.publish(job, Failed("internal", "see the server's log"))

    with surviving(f"job {job.id}", give_up):
        for event in studio.run(job.request, queue.folder, cancelled):
            go_on = queue.publish(job, event)


class EmbeddedWorker:
    """Loads the default bundles, says how it is, and works until it is stopped."""

    def __init__(self, queue: SqliteQueue, studio: Studio, shelf: Shelf, backend: str) -> None:
        self.queue, self.studio, self.shelf, self.backend = queue, studio, shelf, backend
        self.known: Survey = ((), ())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        self.queue.recover()
        self.known = survey(self.shelf, self.backend)
        self._announce("loading")
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Take no further job; wait for the present one. What is not finished by then waits for the next start."""
        self._stopping.set()
        self.queue.retire()
        self._thread.join(wait_s)

    def _work(self) -> None:
        with surviving("loading the models", lambda: self._announce("failed", "see the server's log")):
            self._warm_up()
        while not self._stopping.is_set():
            with surviving("the queue", lambda: self._stopping.wait(WAIT_S)):
                if (job := self.queue.claim(WAIT_S)) is not None:
                    execute(job, self.queue, self.studio)

    def _warm_up(self) -> None:
        try:
            for name in DEFAULTS:
                kit, reason = self.studio.kits.take(name, self.backend)
                kit.load_all()
                log.info("%s: %s", name, reason)
        except StudioError as exc:
            log.error("%s", exc)
            self._announce("failed", str(exc))
        else:
            self._announce("ready")

    def _announce(self, state: Literal["loading", "ready", "failed"], detail: str = "") -> None:
        self.queue.announce(Status(state, detail, *self.known))


def survey(shelf: Shelf, backend: str) -> Survey:
    """What is here: every engine, and every bundle with the engine that would serve it."""
    probes = [(engine.name, engine.probe()) for engine in backends.engines()]
    engines = tuple(EngineStatus(name, probe.ok, probe.device, probe.reason) for name, probe in probes)
    return engines, tuple(_bundle_status(bundle, backend) for bundle in _readable(shelf))


def _readable(shelf: Shelf) -> Iterator[Bundle]:
    for name in shelf.names():
        try:
            yield shelf.open(name)
        except StudioError as exc:
            log.error("left out: %s", exc)


def _bundle_status(bundle: Bundle, backend: str) -> BundleStatus:
    try:
        engine, reason = backends.select(bundle, backend)
        chosen = engine.name
    except StudioError as exc:
        chosen, reason = "", str(exc)
    sampling = bundle.sampling
    return BundleStatus(
        name=bundle.name,
        kind="restorer" if "restorer" in bundle.roles else "portrait",
        title=bundle.title,
        dialect=bundle.dialect,
        sizes=bundle.sizes,
        steps=sampling.steps if sampling else 0,
        guidance=sampling.guidance if sampling else 0.0,
        engine=chosen,
        reason=reason,
    )
