"""The worker: lives through bugs, says how it is, leaves broken bundles out, and stops when asked."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from engines import backends
from engines.backends import Engine
from engines.bundle import Bundle, Shelf, digest
from engines.bundle.signatures import Array
from engines.errors import EngineUnavailable, JobCancelled, StorageError
from engines.jobs import Job, Lane
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Failed, Final, Generate, Preview, Progress, Request
from engines.messages.status import Status
from engines.studio import Studio
from engines.studio.snapshot import Saver
from engines.worker import execute, loop
from engines.worker.inventory import survey
from engines.worker.loop import Worker
from tests.conftest import Within
from tests.support.fakes import FakeEngine, write_detector, write_portrait, write_restorer

LIMIT_S = 60.0


class WatchedQueue(SqliteQueue):
    """Remembers what was announced, and lets a test wait for the end of loading."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.announced: list[Status] = []
        self.settled = threading.Event()

    def announce(self, status: Status) -> None:
        super().announce(status)
        self.announced.append(status)
        if status.state != "loading":
            self.settled.set()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_restorer(tmp_path / "shelf" / "restorer")
    write_detector(tmp_path / "shelf" / "detector")
    return tmp_path


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(home: Path, engine: FakeEngine) -> Studio:
    return Studio(Shelf((home / "shelf",)), home / "state", engine.select)


@pytest.fixture
def queue(home: Path) -> Iterator[WatchedQueue]:
    opened = WatchedQueue(home / "queue.db", home / "outputs")
    yield opened
    opened.close()


@pytest.fixture
def worker(queue: WatchedQueue, studio: Studio, home: Path) -> Iterator[Worker]:
    made = Worker(queue, studio, Shelf((home / "shelf",)), "auto")
    yield made
    made.stop(LIMIT_S)


def events_of(queue: SqliteQueue, job_id: str) -> list[Event]:
    return list(queue.follow(job_id))


def claimed(queue: SqliteQueue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def test_a_job_is_run_to_its_last_event(queue: WatchedQueue, studio: Studio, home: Path) -> None:
    job_id = queue.submit(Generate("p", seed=4))
    execute(claimed(queue), queue, studio)
    *_, last = queue.follow(job_id)
    assert isinstance(last, Final) and (home / "outputs" / last.images[0]).is_file()
    assert queue.job(job_id).state == "done"


def test_a_cancelled_job_stops_within_one_step(queue: WatchedQueue, studio: Studio, engine: FakeEngine) -> None:
    job_id = queue.submit(Generate("p", steps=50, preview="off"))
    stop_at = 5

    def cancel(result: Array) -> Array:
        if engine.calls.count("denoiser") == stop_at:
            queue.cancel(job_id)
        return result

    engine.spoil = {"denoiser": cancel}
    execute(claimed(queue), queue, studio)
    assert engine.calls.count("denoiser") == stop_at
    assert queue.job(job_id).state == "cancelled"


class Cancelling(SqliteQueue):
    """Somebody cancels the job just before this event of it is on disk."""

    at: type[Event] = Progress

    def publish(self, job: Job, event: Event) -> bool:
        if isinstance(event, self.at):
            self.cancel(job.id)
        return super().publish(job, event)


@pytest.fixture
def cancelling(home: Path) -> Iterator[Cancelling]:
    opened = Cancelling(home / "cancelled.db", home / "outputs")
    yield opened
    opened.close()


class Careful:
    """Clears up when it is cancelled, three generators deep, and has one word to say of it."""

    heard: BaseException | None = None

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        try:
            yield from self._inner()
        except JobCancelled as exc:
            yield Failed(exc.code, str(exc))

    def _inner(self) -> Generator[Event]:
        yield from self._innermost()

    def _innermost(self) -> Generator[Event]:
        try:
            for step in range(9):
                yield Progress("denoise", step, 9)
        except BaseException as exc:
            self.heard = exc
            raise
        yield Final((), 0, 0.1, "")


def test_what_is_cancelled_hears_of_it_where_it_works(cancelling: Cancelling) -> None:
    job_id, careful = cancelling.submit(Generate("p")), Careful()
    execute(claimed(cancelling), cancelling, careful)
    first, last = cancelling.follow(job_id)
    assert first == Progress("denoise", 0, 9) and isinstance(careful.heard, JobCancelled)
    assert isinstance(last, Failed) and (last.code, last.detail[:6]) == ("cancelled", "after ")
    assert cancelling.job(job_id).state == "cancelled"


def test_what_ends_in_silence_when_it_is_cancelled_is_no_bug(
    cancelling: Cancelling, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent:
        def run(self, request: Request, folder: Path) -> Generator[Event]:
            with suppress(JobCancelled):
                yield Progress("load", 0, 1)

    job_id = cancelling.submit(Generate("p"))
    execute(claimed(cancelling), cancelling, Silent())
    assert cancelling.job(job_id).state == "running" and not caplog.text


def test_a_job_that_is_cancelled_at_its_end_has_ended(cancelling: Cancelling) -> None:
    """Whoever made it goes on after its last event: a restoration is remembered only then."""
    after: list[bool] = []

    class Finishing(Careful):
        def _innermost(self) -> Generator[Event]:
            yield Final((), 0, 0.1, "")
            after.append(True)

    cancelling.at = Final
    job_id = cancelling.submit(Generate("p"))
    execute(claimed(cancelling), cancelling, Finishing())
    assert list(cancelling.follow(job_id)) == [Final((), 0, 0.1, "")] and after == [True]
    assert cancelling.job(job_id).state == "done"


class BuggyStudio(Studio):
    """Raises what nobody expects, after its first event."""

    def run(self, request: Request, folder: Path) -> Generator[Event]:
        yield Progress("load", 0, 1)
        raise ZeroDivisionError("/home/somebody/secret.py")


def test_a_bug_fails_the_job_and_tells_strangers_nothing(
    queue: WatchedQueue, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = queue.submit(Generate("p"))
    execute(claimed(queue), queue, BuggyStudio(Shelf(()), home / "state"))
    *_, last = queue.follow(job_id)
    assert isinstance(last, Failed) and last.code == "internal" and "secret" not in last.detail
    assert queue.job(job_id).state == "failed"
    assert "ZeroDivisionError" in caplog.text and job_id[:8] in caplog.text  # the log has it all


def test_the_worker_lives_through_a_bug(
    queue: WatchedQueue, worker: Worker, engine: FakeEngine, within: Within[list[Event]]
) -> None:
    def stumble(result: Array) -> Array:
        raise ZeroDivisionError

    worker.start()
    assert queue.settled.wait(LIMIT_S)
    engine.spoil = {"decoder": stumble}
    job_id = queue.submit(Generate("p"))
    assert isinstance(within(LIMIT_S, partial(events_of, queue, job_id))[-1], Failed)
    engine.spoil = {}
    job_id = queue.submit(Generate("p"))
    assert isinstance(within(LIMIT_S, partial(events_of, queue, job_id))[-1], Final)


class TiredQueue(WatchedQueue):
    """Its disk refuses some writes of one kind, then there is space again."""

    refused: str | type[Event] = ""
    refusals = 0

    def _refuse(self, write: str | type[Event]) -> None:
        if self.refusals and self.refused == write:
            self.refusals -= 1
            raise StorageError("database or disk is full", why="full")

    def claim(self, wait_s: float = 0.0, lane: Lane = "pictures") -> Job | None:
        self._refuse("claim")
        return super().claim(wait_s, lane)

    def publish(self, job: Job, event: Event) -> bool:
        self._refuse(type(event))
        return super().publish(job, event)


@pytest.fixture
def tired(home: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that is ready, and waits."""
    monkeypatch.setattr("engines.worker.AGAIN_S", 0.02)
    queue = TiredQueue(home / "tired.db", home / "outputs")
    worker = Worker(queue, studio, Shelf((home / "shelf",)), "auto")
    worker.start()
    assert queue.settled.wait(LIMIT_S)
    yield worker
    worker.stop(LIMIT_S)
    queue.close()


def refusing(worker: Worker, write: str | type[Event], times: int = 2) -> TiredQueue:
    queue = worker.queue
    assert isinstance(queue, TiredQueue)
    queue.refused, queue.refusals = write, times
    return queue


@pytest.mark.parametrize("refused", ["claim", Progress, Preview, Final], ids=str)
def test_nothing_is_lost_while_the_disk_is_full(
    tired: Worker, home: Path, within: Within[list[Event]], refused: str | type[Event]
) -> None:
    """Whatever it was that could not be stored: the picture comes, and meanwhile the status says why it does not."""
    queue = refusing(tired, refused)
    while refused == "claim" and queue.refusals == 2:  # it is in the middle of a wait for a job
        time.sleep(0.01)
    job_id = queue.submit(Generate("p"))
    last = within(LIMIT_S, partial(events_of, queue, job_id))[-1]
    assert queue.refusals == 0, "the disk was full in truth"
    assert isinstance(last, Final) and (home / "outputs" / last.images[0]).is_file()
    assert queue.job(job_id).state == "done"
    assert [(status.state, status.detail) for status in queue.announced[-2:]] == [
        ("failed", "database or disk is full"),
        ("ready", ""),
    ]


def test_a_failure_is_told_when_there_is_space_again(tired: Worker, within: Within[list[Event]]) -> None:
    queue = refusing(tired, Failed)
    job_id = queue.submit(Generate(" "))
    last = within(LIMIT_S, partial(events_of, queue, job_id))[-1]
    assert queue.refusals == 0 and isinstance(last, Failed) and last.code == "empty_prompt"


def test_a_full_disk_keeps_no_stop_waiting(tired: Worker) -> None:
    queue = refusing(tired, Progress, 10**9)
    job_id = queue.submit(Generate("p"))
    while queue.status().state != "failed":
        time.sleep(0.01)
    assert tired.stop(2.0), "it has ended before its time was over"
    queue.release()
    assert queue.job(job_id).state == "queued"


def test_the_status_goes_from_loading_to_ready(queue: WatchedQueue, worker: Worker, engine: FakeEngine) -> None:
    worker.start()
    assert queue.settled.wait(LIMIT_S)
    assert [status.state for status in queue.announced] == ["loading", "ready"]
    for status in queue.announced:
        assert [told.name for told in status.engines] == backends.names()
        assert [(told.name, told.kind) for told in status.bundles] == [
            ("detector", "detector"),
            ("portrait", "portrait"),
            ("restorer", "restorer"),
        ]
    assert engine.calls == []  # loaded, not run


def test_what_pictures_took_is_given_back_when_nobody_draws(
    queue: WatchedQueue, worker: Worker, studio: Studio, within: Within[list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and not while the next picture is on its way."""
    monkeypatch.setattr(loop, "RELEASE_S", 1.0)
    monkeypatch.setattr(loop, "WAIT_S", 0.05)
    released: list[float] = []
    monkeypatch.setattr(studio, "release_memory", lambda: released.append(time.monotonic()))
    worker.start()
    assert queue.settled.wait(LIMIT_S)
    for _ in range(3):
        within(LIMIT_S, partial(events_of, queue, queue.submit(Generate("p", preview="off"))))
    ended = time.monotonic()
    while not released and time.monotonic() - ended < LIMIT_S:
        time.sleep(0.02)
    time.sleep(0.5)
    (at,) = released
    assert at - ended > 0.9


def test_jobs_that_came_while_loading_are_served(
    queue: WatchedQueue, worker: Worker, home: Path, within: Within[list[Event]]
) -> None:
    """Each with its own picture, which says what was asked for."""
    prompts = ("red hair", "blue hair", "no hair")
    ids = [queue.submit(Generate(prompt, preview="off")) for prompt in prompts]
    worker.start()
    for prompt, job_id in zip(prompts, ids, strict=True):
        last = within(LIMIT_S, partial(events_of, queue, job_id))[-1]
        assert isinstance(last, Final) and queue.job(job_id).state == "done"
        with Image.open(home / "outputs" / last.images[0]) as image:
            assert image.text["parameters"].startswith(f"{prompt}\n")


def test_jobs_that_never_stop_coming_do_not_keep_it_from_being_ready(
    queue: WatchedQueue, worker: Worker, engine: FakeEngine, within: Within[list[Event]]
) -> None:
    """Each is followed by the next, and yet all is loaded in between."""
    first = queue.submit(Generate("p", preview="off"))

    def follow_up(result: Array) -> Array:
        if queue.status().state == "loading":
            queue.submit(Generate("q", preview="off"))
        return result

    engine.spoil = {"decoder": follow_up}
    worker.start()
    assert queue.settled.wait(LIMIT_S) and queue.status().state == "ready"
    within(LIMIT_S, partial(events_of, queue, first))


def test_what_the_last_program_left_running_is_finished(
    queue: WatchedQueue, worker: Worker, within: Within[list[Event]]
) -> None:
    job_id = queue.submit(Generate("p"))
    claimed(queue)
    queue.recover()
    worker.start()
    assert isinstance(within(LIMIT_S, partial(events_of, queue, job_id))[-1], Final)
    assert queue.job(job_id).attempts == 2


@pytest.mark.parametrize("missing", ["portrait", "restorer", "detector"])
def test_without_a_default_bundle_the_status_says_so_and_the_others_are_served(
    queue: WatchedQueue, worker: Worker, home: Path, within: Within[list[Event]], missing: str
) -> None:
    shutil.rmtree(home / "shelf" / missing)
    write_portrait(home / "shelf" / "mine")
    worker.start()
    assert queue.settled.wait(LIMIT_S)
    assert queue.status().state == "failed" and missing in queue.status().detail
    job_id = queue.submit(Generate("p", bundle="mine"))
    assert isinstance(within(LIMIT_S, partial(events_of, queue, job_id))[-1], Final)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the assertion below says it better
def test_a_default_bundle_that_breaks_in_an_unforeseen_way_does_not_load_for_ever(
    queue: WatchedQueue, worker: Worker, home: Path
) -> None:
    """`tokenizers` raises plain Exception for a file that is no tokenizer; its checksum was right all the same."""
    shutil.rmtree(home / "shelf" / "portrait")
    bundle = write_portrait(home / "shelf" / "portrait")
    (bundle.root / "tokenizer.json").write_text("{}")
    manifest = bundle.root / "bundle.json"
    text = bundle.need(bundle.text, "text")
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace(text.sha256, digest(bundle.root / "tokenizer.json"))
    )
    worker.start()
    assert queue.settled.wait(5), "still loading"
    assert queue.status().state == "failed"


def test_a_broken_bundle_is_left_out_and_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "shelf" / "broken").mkdir()
    (home / "shelf" / "broken" / "bundle.json").write_text("{")
    with caplog.at_level(logging.ERROR):
        _, bundles = survey(Shelf((home / "shelf",)), "auto")
    assert [told.name for told in bundles] == ["detector", "portrait", "restorer"]
    assert "broken" in caplog.text


def test_a_survey_says_what_a_page_needs(home: Path) -> None:
    engines, (detector, portrait, restorer) = survey(Shelf((home / "shelf",)), "auto")
    assert {told.name: told.ok for told in engines} == {
        name: backends.engine(name).probe().ok for name in backends.names()
    }
    assert (portrait.kind, portrait.sizes, portrait.steps, portrait.dialect) == (
        "portrait",
        ((64, 64), (96, 64)),
        4,
        "attributes",
    )
    assert portrait.title["en"] == "Fake" and portrait.engine and portrait.engine in portrait.reason
    assert (restorer.kind, restorer.sizes, restorer.steps) == ("restorer", (), 0)
    assert (detector.kind, detector.sizes, detector.steps) == ("detector", (), 0)


def test_a_survey_says_why_nothing_can_run_a_bundle(home: Path) -> None:
    _, (_, portrait, _) = survey(Shelf((home / "shelf",)), "pytorch")  # its parts are ONNX
    assert portrait.engine == "" and "torch" in portrait.reason


def held(engine: FakeEngine) -> tuple[threading.Event, threading.Event]:
    """A job will say that it is in the middle of a step, and stay there until it is told to go on."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(result: Array) -> Array:
        reached.set()
        assert go_on.wait(LIMIT_S)
        return result

    engine.spoil = {"denoiser": hold}
    return reached, go_on


def test_stopping_waits_for_the_present_job(
    queue: WatchedQueue, worker: Worker, engine: FakeEngine, within: Within[list[Event]]
) -> None:
    """The job is held in a step until stop() has been called."""
    reached, go_on = held(engine)
    worker.start()
    first, second = queue.submit(Generate("p")), queue.submit(Generate("q"))
    assert reached.wait(LIMIT_S)
    stopping = threading.Thread(target=worker.stop, args=(LIMIT_S,))
    stopping.start()
    stopping.join(0.02)
    assert stopping.is_alive()
    go_on.set()
    stopping.join(LIMIT_S)
    assert queue.job(first).state == "done" and queue.job(second).state == "queued"


def test_stopping_does_not_wait_for_ever(queue: WatchedQueue, worker: Worker, engine: FakeEngine) -> None:
    reached, go_on = held(engine)
    worker.start()
    job_id = queue.submit(Generate("p"))
    assert reached.wait(LIMIT_S)
    assert not worker.stop(0.02), "it says that something still runs"
    queue.release()
    assert queue.job(job_id).state == "queued", "for the next start"
    go_on.set()


def test_what_takes_longer_than_a_stop_is_broken_off_at_its_next_event(
    home: Path, queue: WatchedQueue, worker: Worker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can tidy up; and the attempt is not counted."""
    monkeypatch.setattr("engines.worker.loop.FINISH_SHARE", 0.0)
    reached, go_on = held(engine)
    worker.start()
    job_id = queue.submit(Generate("p", steps=4))
    assert reached.wait(LIMIT_S)
    threading.Timer(0.05, go_on.set).start()
    assert worker.stop(LIMIT_S)
    queue.release()
    assert engine.calls.count("denoiser") == 1
    again = SqliteQueue(home / "queue.db", queue.folder)
    again.recover()
    assert claimed(again).id == job_id
    again.close()


def test_what_a_stop_breaks_off_goes_on_from_its_last_step(
    home: Path, queue: WatchedQueue, worker: Worker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Saver, "due", True)
    monkeypatch.setattr("engines.worker.loop.FINISH_SHARE", 0.0)
    reached, go_on = held(engine)
    worker.start()
    job_id = queue.submit(Generate("p", steps=4, seed=6))
    assert reached.wait(LIMIT_S)
    threading.Timer(0.05, go_on.set).start()
    assert worker.stop(LIMIT_S)
    queue.release()
    again = SqliteQueue(home / "queue.db", queue.folder)
    again.recover()
    later = FakeEngine()
    execute(claimed(again), again, Studio(Shelf((home / "shelf",)), home / "state", later.select))
    *_, last = again.follow(job_id)
    assert isinstance(last, Final) and later.calls.count("denoiser") == 3
    again.close()


def test_a_disk_that_takes_no_snapshot_costs_no_picture(
    queue: WatchedQueue, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("full", why="full")

    monkeypatch.setattr(Saver, "due", True)
    monkeypatch.setattr(queue, "save_snapshot", full)
    job_id = queue.submit(Generate("p"))
    execute(claimed(queue), queue, studio)
    assert queue.job(job_id).state == "done"


def test_after_stopping_no_further_job_is_taken(queue: WatchedQueue, worker: Worker) -> None:
    worker.start()
    assert queue.settled.wait(LIMIT_S)
    worker.stop(0)  # the idle worker still waits for a job
    job_id = queue.submit(Generate("p"))
    worker.stop(LIMIT_S)
    assert queue.job(job_id).state == "queued"


def test_an_engine_for_pictures_that_cannot_find_faces_is_no_reason_to_fail(
    home: Path, queue: WatchedQueue, engine: FakeEngine
) -> None:
    """The detector is one ONNX graph: whoever wants PyTorch for pictures has it run on what there is."""

    def select(bundle: Bundle, wanted: str, *, passed_over: int = 0) -> tuple[Engine, str]:
        if bundle.has("face_detector") and wanted == "pytorch":
            raise EngineUnavailable("no torch part")
        return engine.select(bundle, wanted)

    shelf = Shelf((home / "shelf",))
    worker = Worker(queue, Studio(shelf, home / "state", select), shelf, "pytorch")
    worker.start()
    try:
        assert queue.settled.wait(LIMIT_S)
        assert queue.status().state == "ready", queue.status().detail
    finally:
        worker.stop(LIMIT_S)
