"""
Doors before workers that announce what a test needs, and workers that pretend to download and to build: what the tests
of panels share with those in a browser. A plugin, declared in tests/conftest.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engines.errors import JobCancelled
from engines.messages import Event, Failed, Fetch, Final, Note, Progress, Request, unpack
from engines.worker import execute
from tests.support.announced import BUNDLES, LORAS, MODELS, SOURCES, STUDIO_LIGHT, TORCH

if TYPE_CHECKING:
    from tests.support.server import Rig

FETCHING = (Note("1. x, 30.0 MB"), Progress("fetch", 12, 30, 90.0))


@dataclass
class FakeHub:
    """Tells FETCHING, then goes on saying how far it is until `finish` is set, or the job is cancelled and it obeys."""

    arrive: Callable[[], None]
    finish: threading.Event = field(default_factory=threading.Event)
    obeys: bool = True

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        yield from FETCHING
        while not self.finish.wait(0.1):
            try:
                yield FETCHING[-1]
            except JobCancelled as exc:
                if self.obeys:
                    yield Failed(exc.code, "")
                    return
        self.arrive()
        yield Final((), 0, 1.5, "", "gpen: GPEN.pth")


@pytest.fixture
def shop(idle: Rig) -> Iterator[Rig]:
    """Doors before a worker that offers MODELS, and does nothing."""
    before = idle.queue.status()
    idle.queue.announce(replace(before, models=MODELS, sources=(("portrait", "z-image"),), can_build=""))
    yield idle
    idle.queue.announce(before)
    for job_id, state in idle.jobs().items():
        if state in ("queued", "running") and isinstance(idle.queue.job(job_id).request, Fetch):
            idle.queue.cancel(job_id)


@pytest.fixture
def hub(shop: Rig) -> Iterator[FakeHub]:
    """Somebody who fetches the next model: then it is here, and there is one more source."""
    now = shop.queue.status()
    models = tuple(replace(status, here=status.model.id == "gpen") for status in MODELS)
    there = replace(now, models=models, sources=(*now.sources, ("restorer", "GPEN.pth")))
    made = FakeHub(lambda: shop.queue.announce(there))

    def work() -> None:
        if (job := shop.queue.claim(30, "builds")) is not None:
            execute(job, shop.queue, made)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield made
    made.finish.set()
    thread.join(30)


def fetches(rig: Rig) -> list[Fetch]:
    return [request for request in map(unpack, rig.requests()) if isinstance(request, Fetch)]


@dataclass
class FakeWorkshop:
    """Tells `events`, then goes on saying that it lives until `finish` is set or the job is cancelled."""

    events: tuple[Event, ...]
    finish: threading.Event = field(default_factory=threading.Event)
    adopt: Callable[[], None] = lambda: None  # what there is to do with the bundle that was made

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        try:
            yield from self.events
            while not self.finish.wait(0.2):
                yield Progress("export", 1, 4, 300.0)
        except JobCancelled as exc:
            yield Failed(exc.code, "the build was cancelled")
            return
        self.adopt()
        yield Final((), 0, 12.3, "toolchain", "mine: 5.2 MB")


BUILD: tuple[Event, ...] = (
    Note("1. store <restorer>"),
    Progress("prepare", 0, 4),
    Note("2. export restorer\n   differs by 8e-07"),
    Progress("export", 1, 4, 300.0),
)


@pytest.fixture
def dressing(idle: Rig) -> Iterator[Rig]:
    """Doors before a worker that tells of LORAS, of PyTorch, and of bundles that wear them and do not."""
    before = idle.queue.status()
    known = (*before.bundles, *BUNDLES)
    idle.queue.announce(
        replace(before, engines=(TORCH,), bundles=known, loras=LORAS, models=(STUDIO_LIGHT,), sources=SOURCES)
    )
    yield idle
    idle.queue.announce(before)


@pytest.fixture(scope="module")
def picture(rig: Rig) -> str:
    """The job of a picture that wears the shipped LoRA."""
    pytest.importorskip("torch", reason="LoRAs are worn on PyTorch")
    asked = {"prompt": "lit", "width": 64, "height": 64, "steps": 1, "preview": "off", "backend": "auto", "seed": 3}
    rig.client.post(
        "/generate", json={**asked, "loras": [{"name": "studio_light", "strength": 0.45}]}
    ).raise_for_status()
    return rig.queue.finished(1)[0].job.id
