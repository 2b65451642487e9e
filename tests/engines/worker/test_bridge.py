"""A machine that works for a studio on another: what it fetches, sends, gives back, and leaves behind."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import JobCancelled, JobMoved
from engines.images.kept_latents import KEPT_SUFFIX
from engines.jobs.plan import HOME
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Event, Failed, Final, Generate, Preview, Progress, pack
from engines.messages.order import Echo, Order
from engines.messages.status import Status
from engines.studio.snapshot import Snapshot
from engines.worker import bridge, execute
from engines.worker.bridge import OWNER, Bridge
from engines.worker.studio_client import StudioAway

PHOTO = b"a photo"
FINAL = Final(("outputs_20260102030405.png",), 7, 1.5, "ort", "why")


@dataclass
class Studio:
    """A studio as a machine sees it; it renames what it is sent, if it has one so called. `away`: calls that fail."""

    orders: list[Order] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    snapshots: list[tuple[bytes, tuple[str, ...]]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    away: int = 0
    goes_on: bool = True
    moved_after: float = math.inf  # events, after which another machine has the job
    left: int = 0
    heard: list[tuple[str, bool]] = field(default_factory=list)
    idle: threading.Event = field(default_factory=threading.Event)  # somebody asks, and there is nothing to do

    def _asked(self) -> None:
        if self.away:
            self.away -= 1
            raise StudioAway("no answer")

    def claim(self, wait_s: float) -> Order | None:
        if self.orders:
            return self.orders.pop(0)
        self.idle.set()
        return None

    def announce(self, status: Status, job: str, called: bool) -> Echo:
        self.heard.append((job, called))
        return Echo("desk", called, tuple(self.cancelled))

    def leave(self) -> None:
        self.left += 1

    def fetch_photo(self, order: Order, path: Path) -> None:
        self._asked()
        path.write_bytes(PHOTO)

    def fetch_picture(self, order: Order, name: str, path: Path) -> None:
        path.write_bytes(self.pictures[name])

    def snapshot(self, order: Order) -> bytes:
        return self.snapshots[-1][0]

    def send_snapshot(self, order: Order, body: bytes, pictures: tuple[str, ...]) -> None:
        self.snapshots.append((body, tuple(pictures)))

    def send_picture(self, order: Order, path: Path, name: str) -> str:
        self._asked()
        name = self.renamed.get(name, name)
        self.pictures[name] = path.read_bytes()
        return name

    def send_events(self, order: Order, events: list[Event]) -> bool:
        self._asked()
        if len(self.events) >= self.moved_after:
            raise JobMoved("another's")
        self.events += events
        return self.goes_on


@dataclass
class Runner:
    """What this machine's worker does for a request: `act` yields events, and writes pictures into the folder."""

    act: Callable[[Any, Path, Any], Iterator[Event]]
    requests: list[Any] = field(default_factory=list)
    snapshots: Any = None
    cancelled: int = 0

    def run(self, request: Any, folder: Path) -> Iterator[Event]:
        self.requests.append(request)
        try:
            yield from self.act(request, folder, self.snapshots)
        except JobCancelled as exc:
            self.cancelled += 1
            yield Failed("cancelled", str(exc))


@dataclass
class Machine:
    queue: SqliteQueue
    bridge: Bridge
    studio: Studio
    stopping: threading.Event

    def work_off(self, *orders: Order, runner: Runner) -> None:
        """Let it do these, and wait until it has let go of the last."""
        self.studio.orders += orders
        done = threading.Event()

        def engines() -> None:
            while not done.is_set():
                if (job := self.queue.claim(0.05)) is not None:
                    execute(job, self.queue, runner)  # type: ignore[arg-type]

        threads = [threading.Thread(target=engines), threading.Thread(target=self.bridge.work, args=(self.stopping,))]
        for thread in threads:
            thread.start()
        try:
            assert self.studio.idle.wait(60), "it does not come to an end"
        finally:
            self.stopping.set()
            done.set()
            for thread in threads:
                thread.join(30)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    queue.folder.mkdir()
    queue.announce(Status("ready"))
    studio = Studio()
    bridge = Bridge(studio, queue, tmp_path / "photos", "desk")  # type: ignore[arg-type]
    yield Machine(queue, bridge, studio, threading.Event())
    queue.close()


PLAIN = Generate("p")


def order(request: Any = PLAIN, **more: Any) -> Order:
    values: dict[str, Any] = {"photo_name": "", "photo_bytes": 0, "has_snapshot": False, "pictures": (), **more}
    return Order(id="a" * 32, attempt=1, request=pack(request), photo_sha256="", **values)


def drawn(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
    yield Progress("denoise", 1, 2)
    (folder / f"preview_{'b' * 32}.webp").write_bytes(b"small")
    yield Preview(1, f"preview_{'b' * 32}.webp")
    (folder / FINAL.images[0]).write_bytes(b"large")
    yield FINAL


def left_behind(machine: Machine) -> list[str]:
    photos = machine.bridge.photos
    return [path.name for folder in (machine.queue.folder, photos) if folder.exists() for path in folder.iterdir()]


def test_what_happens_here_is_told_there_and_nothing_stays(machine: Machine) -> None:
    machine.work_off(order(), runner=(runner := Runner(drawn)))
    assert runner.requests == [Generate("p")]
    assert machine.studio.pictures[FINAL.images[0]] == b"large"
    assert machine.studio.events[-1] == replace(FINAL, reason="why (desk)")
    assert left_behind(machine) == [] and not machine.queue.owners("")


def test_what_nobody_waits_for_is_told_with_what_comes_next(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message costs the studio as much as three steps; and of what is told late, only the latest is."""
    monkeypatch.setattr(bridge, "GATHER_S", 1e6)

    def two(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
        def look(step: int, picture: int, kind: Any = "step") -> Preview:
            (folder / f"{picture}-{step}.webp").write_bytes(b"small")
            return Preview(step, f"{picture}-{step}.webp", picture=picture, kind=kind)

        def heard(*events: Event) -> bool:
            while machine.studio.events[-len(events) :] != list(events):
                assert not machine.stopping.wait(0.01)
            return True

        yield Progress("denoise", 1, 4)
        assert heard(Progress("denoise", 1, 4)), "at once: it has begun"
        yield Progress("denoise", 2, 4)
        yield Progress("denoise", 3, 4)
        yield look(3, picture=1)
        assert heard(Progress("denoise", 3, 4), look(3, picture=1)), "at once: there is something to see"
        yield look(4, picture=1)
        yield look(5, picture=1)
        yield Progress("denoise", 4, 4)
        yield look(8, picture=1, kind="result")
        yield look(3, picture=2)
        assert heard(Progress("denoise", 4, 4), look(8, picture=1, kind="result"), look(3, picture=2))
        yield Progress("decode", 1, 1)
        yield look(4, picture=2)
        (folder / FINAL.images[0]).write_bytes(b"large")
        yield FINAL

    machine.work_off(order(), runner=Runner(two))
    assert len(machine.studio.events) == 7
    assert sorted(machine.studio.pictures) == ["1-3.webp", "1-8.webp", "2-3.webp", FINAL.images[0]]


def test_a_job_that_fails_leaves_the_last_look_at_it(machine: Machine) -> None:
    def fails(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
        for step in (1, 2, 3):
            (folder / f"{step}.webp").write_bytes(b"small")
            yield Preview(step, f"{step}.webp")
        yield Failed("image", "broken")

    machine.work_off(order(), runner=Runner(fails))
    assert machine.studio.events[-2:] == [Preview(3, "3.webp"), Failed("image", "broken")]


def test_the_photo_is_fetched_once_and_deleted(machine: Machine) -> None:
    photos: list[bytes] = []

    def restored(request: Enhance, folder: Path, snapshots: Any) -> Iterator[Event]:
        photos.append(Path(request.image).read_bytes())
        yield from drawn(request, folder, snapshots)

    job = order(Enhance("photo", name="mine.jpg"), photo_name="0f.jpg", photo_bytes=len(PHOTO))
    machine.work_off(job, runner=Runner(restored))
    assert photos == [PHOTO] and left_behind(machine) == []
    assert isinstance(machine.studio.events[-1], Final)


def test_what_it_is_called_there_is_what_it_is_called_there(machine: Machine) -> None:
    """In every event, in the snapshot, and of what is kept beside it."""
    machine.studio.renamed = {FINAL.images[0]: "outputs_20260102030405_007.png"}

    def both(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
        (folder / FINAL.images[0]).write_bytes(b"large")
        (folder / FINAL.images[0]).with_suffix(KEPT_SUFFIX).write_bytes(b"latents")
        yield Preview(8, FINAL.images[0], kind="result")
        snapshots.save(Snapshot("d", 7, names=FINAL.images).pack(), FINAL.images)
        while not machine.studio.snapshots:
            yield Progress("denoise", 1, 2)
            machine.stopping.wait(0.05)
        yield FINAL

    machine.work_off(order(), runner=Runner(both))
    there = ("outputs_20260102030405_007.png",)
    assert machine.studio.events[0] == Preview(8, there[0], kind="result")
    assert machine.studio.events[-1] == replace(FINAL, images=there, reason="why (desk)")
    ((body, pictures),) = machine.studio.snapshots
    assert (Snapshot.unpack(body).names, pictures) == (there, there)
    assert machine.studio.pictures["outputs_20260102030405_007.negative.npz"] == b"latents"


def test_it_goes_on_where_another_has_come_to(machine: Machine) -> None:
    """Though there is a picture here that is called as the one that is done."""
    (machine.queue.folder / FINAL.images[0]).write_bytes(b"mine")
    machine.studio.pictures = {FINAL.images[0]: b"done there"}
    latents = np.ones((1, 4, 2, 2), np.float32)
    begun = Snapshot("d", 7, 3.0, FINAL.images, (), latents, 5)
    machine.studio.snapshots = [(begun.pack(), FINAL.images)]
    loaded: list[Snapshot] = []

    def second(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
        loaded.append(snapshot := Snapshot.unpack(snapshots.load()))
        assert (folder / snapshot.names[0]).read_bytes() == b"done there"
        yield replace(FINAL, images=snapshot.names)

    machine.work_off(order(has_snapshot=True, pictures=FINAL.images), runner=Runner(second))
    assert (loaded[0].step, loaded[0].names) == (5, ("outputs_20260102030405_001.png",))
    assert np.array_equal(loaded[0].latents, latents)  # type: ignore[arg-type]
    assert machine.studio.events == [replace(FINAL, reason="why (desk)")], "called as it is there, and not sent again"
    assert left_behind(machine) == [FINAL.images[0]]


def test_what_it_goes_on_from_is_not_sent_back(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count as progress of a job that has ended one machine after the other."""
    monkeypatch.setattr(bridge, "SNAPSHOT_S", 0.0)
    machine.studio.pictures = {FINAL.images[0]: b"done there"}
    machine.studio.snapshots = [(Snapshot("d", 7, names=FINAL.images).pack(), FINAL.images)]

    def slow(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
        for step in (1, 2, 3):  # a look at the snapshot comes after each of the first two is sent
            yield Progress("denoise", step, 3)
            while len(machine.studio.events) < step:
                machine.stopping.wait(0.01)
        yield replace(FINAL, images=Snapshot.unpack(snapshots.load()).names)

    machine.work_off(order(has_snapshot=True, pictures=FINAL.images), runner=Runner(slow))
    assert len(machine.studio.snapshots) == 1


def test_a_damaged_snapshot_costs_time_alone(machine: Machine) -> None:
    machine.studio.snapshots = [(b"nonsense", ())]
    machine.work_off(order(has_snapshot=True), runner=Runner(drawn))
    assert isinstance(machine.studio.events[-1], Final)


@pytest.mark.timeout(120)
def test_a_studio_that_is_away_for_a_while_is_waited_for(machine: Machine) -> None:
    machine.studio.away = 2
    job = order(Enhance("photo"), photo_name="0f.jpg", photo_bytes=len(PHOTO))
    machine.work_off(job, runner=(runner := Runner(drawn)))
    assert len(runner.requests) == 1 and isinstance(machine.studio.events[-1], Final)


def endless(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
    while True:
        yield Progress("denoise", 1, 2)


def test_what_the_studio_ends_ends_and_says_so(machine: Machine) -> None:
    machine.studio.goes_on = False
    machine.work_off(order(), runner=(runner := Runner(endless)))
    assert runner.cancelled == 1
    last = machine.studio.events[-1]
    assert isinstance(last, Failed) and last.code == "cancelled"


def test_what_another_does_by_now_ends_here(machine: Machine) -> None:
    machine.studio.moved_after = 1
    machine.work_off(order(), runner=(runner := Runner(endless)))
    assert runner.cancelled == 1 and left_behind(machine) == []
    assert not any(isinstance(event, Final | Failed) for event in machine.studio.events)


def test_the_heartbeat_ends_a_job_that_says_nothing(machine: Machine) -> None:
    machine.studio.cancelled = ["a" * 32]

    def silent(request: Any, folder: Path, snapshots: Any) -> Iterator[Event]:
        beating = threading.Event()
        thread = threading.Thread(target=machine.bridge.beat, args=(beating,))
        thread.start()
        while not machine.queue.cancelled_of(HOME):
            machine.stopping.wait(0.05)
        beating.set()
        thread.join(30)
        yield Progress("denoise", 1, 2)
        raise AssertionError("it goes on")

    machine.work_off(order(), runner=(runner := Runner(silent)))
    assert runner.cancelled == 1


def test_what_a_crash_has_left_goes_at_the_next_start(machine: Machine) -> None:
    (machine.queue.folder / "outputs_20200101000000.png").write_bytes(b"own")
    own = machine.queue.submit(Generate("mine"), "me")
    mine = replace(FINAL, images=("outputs_20200101000000.png",))
    machine.queue.publish(machine.queue.claim() or pytest.fail(), mine)
    (machine.queue.folder / FINAL.images[0]).write_bytes(b"the studio's")
    machine.queue.submit(Generate("theirs"), OWNER + "b" * 32)
    machine.queue.publish(machine.queue.claim() or pytest.fail(), FINAL)
    machine.bridge.photos.mkdir()
    (machine.bridge.photos / "old.jpg").write_bytes(PHOTO)
    machine.stopping.set()
    machine.bridge.work(machine.stopping)
    assert left_behind(machine) == ["outputs_20200101000000.png"]
    assert machine.queue.job(own).state == "done"
