"""The worker's second thread: builds beside the pictures, proofs when it is quiet, and everybody is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest

from engines import backends
from engines.backends import Engine
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle, Shelf
from engines.bundle.loras import Loras
from engines.errors import JobCancelled
from engines.jobs import Job, Lane
from engines.jobs.quiet import NEVER_QUIET, QuietHours
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Build, Event, Failed, Final, Generate, Note, Progress, Request
from engines.messages.status import Status
from engines.studio import Studio
from engines.worker import heat, loop
from engines.worker.builds import BackgroundJobs
from engines.worker.heat import Limits, Rest
from engines.worker.loop import Worker
from tests.conftest import Within
from tests.support.fakes import FakeEngine, write_detector, write_portrait, write_restorer

LIMIT_S = 60.0
BUILD = Build("restorer", "mine.pth", "edge-int8", "mine")
Open = Callable[..., "FakeWorkshop"]


class FakeWorkshop(BackgroundJobs):
    """A build that lasts until it is let go of, and then puts a bundle on the shelf; `due` engines to prove."""

    def __init__(self, home: Path, due: int = 0) -> None:
        shelf = Shelf((home / "shelf",))
        super().__init__(shelf, home / "shelf", home / "checkpoints", Verdicts(home / "verdicts"))
        self.due, self.proving_s, self.waited = due, list[float](), list[bool]()
        self.go_on = threading.Event()
        self.proved = threading.Event()

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        while not self.go_on.wait(0.01):
            if self._stopped.is_set():
                return
            try:
                yield Progress("export", 1, 3)
            except JobCancelled as exc:
                yield Failed(exc.code, "")
                return
        write_restorer(self.models / "mine")
        yield Note("made")
        self.refresh()
        yield Final((), 0, 1.0, "", "mine: 1 MB")

    def prove_next(self, wait: Callable[[], bool]) -> bool:
        self.proving_s.append(time.monotonic())
        self.waited.append(wait())
        if not self.due:
            self.proved.set()
            return False
        self.due -= 1
        verdict = Verdict("openvino", "CPU", "v", "fp32", "", 44.0, 0.99, 4, 0.1, 0.2)
        for name in self.shelf.names():
            found = backends.candidate(self.shelf.open(name), backends.engine("openvino"))
            self.verdicts.put(found.key, verdict)
        return True


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    write_detector(tmp_path / "shelf" / "detector")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pth").touch()
    return tmp_path


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def queue(home: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(home / "queue.db", home / "outputs")
    yield opened
    opened.close()


@pytest.fixture
def begin(home: Path, queue: SqliteQueue, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """begin(due, rest): a worker at work with a workshop that has so many engines to prove."""
    monkeypatch.setattr(loop, "QUIET_S", 0.15)
    monkeypatch.setattr(loop, "WAIT_S", 0.02)
    started: list[Worker] = []

    def start(due: int = 0, rest: Rest | None = None) -> FakeWorkshop:
        shelf, shop = Shelf((home / "shelf",)), FakeWorkshop(home, due)
        started.append(Worker(queue, Studio(shelf, home / "state", engine.select), shelf, "auto", shop, rest))
        started[-1].start()
        until(lambda: queue.status().state == "ready")
        return shop

    yield start
    for one in started:
        one.stop(LIMIT_S)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def events_of(queue: SqliteQueue, job_id: str) -> list[Event]:
    return list(queue.follow(job_id))


def names(status: Status) -> list[str]:
    return [bundle.name for bundle in status.bundles]


def test_pictures_are_drawn_while_a_bundle_is_made(
    begin: Open, queue: SqliteQueue, within: Within[list[Event]]
) -> None:
    shop = begin(0)
    build = queue.submit(BUILD)
    until(lambda: queue.job(build).state == "running")
    for _ in range(2):
        picture = queue.submit(Generate("p"))
        assert isinstance(within(LIMIT_S, partial(events_of, queue, picture))[-1], Final)
    assert queue.job(build).state == "running"
    shop.go_on.set()
    assert isinstance(within(LIMIT_S, partial(events_of, queue, build))[-1], Final)


def test_a_bundle_that_was_made_is_announced(begin: Open, queue: SqliteQueue) -> None:
    shop = begin(0)
    assert names(queue.status()) == ["detector", "portrait", "restorer"]
    shop.go_on.set()
    queue.submit(BUILD)
    until(lambda: names(queue.status()) == ["detector", "mine", "portrait", "restorer"])
    assert queue.status().state == "ready"


class SlowFolder(Loras):
    """A folder of LoRAs that the thread of background jobs cannot list until `go_on` is set; everybody else can."""

    def __init__(self, folder: Path) -> None:
        super().__init__((folder,))
        self.reached, self.go_on = threading.Event(), threading.Event()

    def names(self) -> tuple[str, ...]:
        if threading.current_thread().name == "background jobs":
            self.reached.set()
            assert self.go_on.wait(LIMIT_S)
        return super().names()


class CountingQueue(SqliteQueue):
    """Counts how often somebody looked for a picture to draw."""

    looks = 0

    def claim(self, wait_s: float = 0.0, lane: Lane = "pictures") -> Job | None:
        self.looks += lane == "pictures"
        return super().claim(wait_s, lane)


def test_models_that_are_loaded_while_it_is_looked_what_is_here_are_ready(
    home: Path, engine: FakeEngine, within: Within[list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that the last program left ends while the models load: its news and theirs cross."""
    monkeypatch.setattr(loop, "WAIT_S", 0.02)
    queue, slow = CountingQueue(home / "queue.db", home / "outputs"), SlowFolder(home / "loras")

    def select(bundle: Bundle, wanted: str, *, passed_over: int = 0) -> tuple[Engine, str]:
        assert slow.reached.wait(LIMIT_S), "the models are loaded in the middle of the look"
        return engine.select(bundle, wanted)

    shelf, shop = Shelf((home / "shelf",)), FakeWorkshop(home)
    shop.go_on.set()
    build = queue.submit(BUILD)
    at_work = Worker(queue, Studio(shelf, home / "state", select, slow), shelf, "auto", shop)
    at_work.start()
    try:
        until(lambda: queue.looks > 3)  # all three were loaded, and whatever the build changed has been loaded as well
        assert queue.status().state == "ready"
        slow.go_on.set()
        assert isinstance(within(LIMIT_S, partial(events_of, queue, build))[-1], Final)
        assert queue.status().state == "ready" and "mine" in names(queue.status())
    finally:
        slow.go_on.set()
        at_work.stop(LIMIT_S)
        queue.close()


def test_a_cancelled_build_ends_and_the_next_one_is_made(
    begin: Open, queue: SqliteQueue, within: Within[list[Event]]
) -> None:
    shop = begin(0)
    build, waiting = queue.submit(BUILD), queue.submit(BUILD)
    until(lambda: queue.job(build).state == "running")
    queue.cancel(build)
    last = within(LIMIT_S, partial(events_of, queue, build))[-1]
    assert isinstance(last, Failed) and last.code == "cancelled" and queue.job(build).state == "cancelled"
    shop.go_on.set()
    assert isinstance(within(LIMIT_S, partial(events_of, queue, waiting))[-1], Final)


def test_a_build_whose_download_failed_says_so(tmp_path: Path) -> None:
    """As both were asked for in one press: that the file was deleted would be wrong."""
    models, verdicts = tmp_path / "models", Verdicts(tmp_path / "verdicts")
    shop = BackgroundJobs(Shelf((models,)), models, tmp_path / "checkpoints", verdicts)
    for source, code in (("GPEN-BFR-512.pth", "not_downloaded"), ("mine.pth", "not_found")):
        (event,) = shop.run(Build("restorer", source, "edge-bf16", "x"), tmp_path)
        assert isinstance(event, Failed) and event.code == code


def test_what_can_be_built_from_is_announced(begin: Open, queue: SqliteQueue) -> None:
    begin(0)
    assert queue.status().sources == (("restorer", "mine.pth"),)
    assert len(queue.status().source_mb) == 1


def test_a_file_that_is_no_bundle_is_logged_once(
    begin: Open, home: Path, queue: SqliteQueue, within: Within[list[Event]], caplog: pytest.LogCaptureFixture
) -> None:
    (home / "shelf" / "lost.pth").touch()
    shop = begin(0)
    shop.go_on.set()
    assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(BUILD)))[-1], Final)
    assert queue.status().strays == ("lost.pth",) and caplog.text.count("lost.pth is no bundle") == 1


def test_engines_are_proved_when_it_is_quiet_until_none_is_left(begin: Open, queue: SqliteQueue) -> None:
    ready = time.monotonic()
    shop = begin(2)
    assert shop.proved.wait(LIMIT_S)
    assert shop.proving_s[0] - ready > 0.1, "not at once: somebody may be about to draw"
    assert len(shop.proving_s) == 3 and shop.waited == [False] * 3
    time.sleep(0.3)
    assert len(shop.proving_s) == 3, "when nothing is left, nobody looks again and again"


def test_nothing_is_built_or_proved_while_it_is_too_hot(
    begin: Open, queue: SqliteQueue, within: Within[list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat, "LOOK_S", 0.0)
    temperatures_c = [95.0]
    shop = begin(1, Rest(Limits(80.0, 72.0), read=lambda: temperatures_c[0]))
    shop.go_on.set()
    build = queue.submit(BUILD)
    time.sleep(0.3)
    assert queue.job(build).state == "queued" and shop.proving_s == []
    temperatures_c[0] = 60.0
    assert isinstance(within(LIMIT_S, partial(events_of, queue, build))[-1], Final)
    assert shop.proved.wait(LIMIT_S)


def test_in_quiet_hours_nothing_is_proved_but_what_is_asked_for_is_built(
    begin: Open, queue: SqliteQueue, within: Within[list[Event]]
) -> None:
    now = time.localtime()
    queue.quiet = QuietHours((60 * now.tm_hour + now.tm_min) % 1440, (60 * now.tm_hour + now.tm_min + 120) % 1440)
    shop = begin(1)
    shop.go_on.set()
    assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(BUILD)))[-1], Final)
    time.sleep(0.3)
    assert shop.proving_s == []
    queue.quiet = NEVER_QUIET
    assert shop.proved.wait(LIMIT_S)


def test_what_was_proved_is_announced(begin: Open, queue: SqliteQueue) -> None:
    if not backends.engine("openvino").probe().ok:
        pytest.skip("OpenVINO is not installed")
    begin(1)
    until(lambda: queue.status().bundles[0].engine == "openvino")
    choice = next(c for c in queue.status().bundles[0].choices if c.engine == "openvino")
    assert choice.state == "accepted" and choice.verdict is not None
    assert (choice.verdict.psnr_db, choice.verdict.finish_s) == (44.0, 0.2)


def test_nothing_is_proved_while_pictures_wait_or_are_drawn(
    begin: Open, queue: SqliteQueue, engine: FakeEngine, within: Within[list[Event]]
) -> None:
    engine.slow_s = {"denoiser": 0.2}
    shop = begin(1)
    picture = queue.submit(Generate("p", preview="off"))  # four steps: far longer than the quiet that is asked for
    decoded: list[float] = []
    engine.spoil = {"decoder": lambda result: decoded.append(time.monotonic()) or result}
    drawn = within(LIMIT_S, partial(events_of, queue, picture))
    assert isinstance(drawn[-1], Final)
    assert shop.proved.wait(LIMIT_S) and shop.proving_s[0] > decoded[0]


def test_a_proof_is_told_when_a_picture_comes(begin: Open, queue: SqliteQueue, engine: FakeEngine) -> None:
    shop = begin(0)
    engine.slow_s = {"denoiser": 0.3}
    asked: list[bool] = []

    def prove_next(wait: Callable[[], bool]) -> bool:
        asked.append(wait())
        if len(asked) == 1:
            queue.submit(Generate("p", preview="off"))
            asked.append(wait())
        shop.proved.set()
        return False

    shop.prove_next = prove_next  # type: ignore[method-assign]
    assert shop.proved.wait(LIMIT_S)
    assert asked[:2] == [False, True]


def test_where_it_is_never_quiet_a_proof_runs_between_two_pictures(
    begin: Open, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch, within: Within[list[Event]]
) -> None:
    """Once it has been due for a while, it does not wait for a moment of quiet; but pictures go before."""
    monkeypatch.setattr(loop, "QUIET_S", 1000.0)
    shop = begin(1)
    for _ in range(3):
        assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(Generate("p"))))[-1], Final)
    assert shop.proving_s == [], "it may still become quiet"
    monkeypatch.setattr(loop, "DUE_S", 0.0)
    assert shop.proved.wait(LIMIT_S) and len(shop.proving_s) == 2


def test_when_all_is_proved_what_is_not_sure_is_timed_again(
    begin: Open, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TIME_AGAIN_S", 0.2)
    shop, timed = begin(1), list[float]()

    def time_next(wait: Callable[[], bool]) -> bool:
        timed.append(time.monotonic())
        return len(timed) < 3

    shop.time_next = time_next  # type: ignore[method-assign]
    until(lambda: len(timed) >= 5)
    assert timed[0] > shop.proving_s[-1], "proofs first"
    assert timed[3] - timed[2] > 0.2 < timed[4] - timed[3], "one after the other; when there is none, now and then"


def test_after_a_build_it_is_looked_again_for_what_to_prove(begin: Open, queue: SqliteQueue) -> None:
    shop = begin(0)
    assert shop.proved.wait(LIMIT_S)
    shop.proved.clear()
    shop.go_on.set()
    queue.submit(BUILD)
    assert shop.proved.wait(LIMIT_S)


def test_a_workshop_that_stumbles_takes_nobody_along(
    begin: Open, queue: SqliteQueue, within: Within[list[Event]], caplog: pytest.LogCaptureFixture
) -> None:
    shop = begin(0)

    def stumble(wait: Callable[[], bool]) -> bool:
        shop.proved.set()
        raise ZeroDivisionError

    shop.prove_next = stumble  # type: ignore[method-assign]
    assert shop.proved.wait(LIMIT_S)
    shop.go_on.set()
    for request in (Generate("p"), BUILD):
        assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(request)))[-1], Final)


def test_stopping_leaves_a_build_for_the_next_start(
    home: Path, queue: SqliteQueue, engine: FakeEngine, within: Within[list[Event]], begin: Open
) -> None:
    shelf, shop = Shelf((home / "shelf",)), FakeWorkshop(home)
    first = Worker(queue, Studio(shelf, home / "state", engine.select), shelf, "auto", shop)
    first.start()
    build = queue.submit(BUILD)
    until(lambda: queue.job(build).state == "running")
    stopped = time.monotonic()
    first.stop(LIMIT_S)
    queue.release()
    assert time.monotonic() - stopped < LIMIT_S / 2 and queue.job(build).state == "queued"
    again = SqliteQueue(home / "queue.db", home / "outputs")
    second = Worker(again, Studio(shelf, home / "state", engine.select), shelf, "auto", later := FakeWorkshop(home))
    second.start()
    later.go_on.set()
    assert isinstance(within(LIMIT_S, partial(events_of, again, build))[-1], Final)
    assert again.job(build).attempts == 2
    second.stop(LIMIT_S)
    again.close()
