"""Whatever a job does to the process with the engines: the server goes on, and so do the next jobs."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from engines import logs
from engines.errors import StorageError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Failed, Final, Generate, Preview, Progress
from engines.messages.status import Status
from engines.settings import Settings
from engines.worker.heat import TOO_HOT
from engines.worker.supervisor import Patience, Supervisor, _Watch
from tests.conftest import Within
from tests.support.fakes import write_detector, write_portrait, write_restorer

LIMIT_S = 120.0
TROUBLED = (sys.executable, "-m", "tests.support.troubled_worker")
Open = Callable[..., Supervisor]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = Settings(home=tmp_path)
    write_portrait(home.models / "portrait")
    write_restorer(home.models / "restorer")
    write_detector(home.models / "detector")
    home.outputs.mkdir()
    return home


@pytest.fixture
def queue(settings: Settings) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    yield opened
    opened.close()


@pytest.fixture
def begin(queue: SqliteQueue, settings: Settings) -> Iterator[Open]:
    """begin(patience): a supervisor at work on the queue, whose processes hold the lock one after the other."""
    supervisors: list[Supervisor] = []
    lock = (settings.state / "lock").open("a")

    def start(patience: Patience = Patience()) -> Supervisor:  # noqa: B008 (frozen)
        env = {**os.environ, "STUDIO_HOME": str(settings.home)}
        crash_log = logs.folder(settings.state) / logs.CRASHES
        supervisors.append(Supervisor(queue, env, lock.fileno(), TROUBLED, patience, crash_log))
        supervisors[0].start()
        until(lambda: supervisors[0].pid is not None)
        return supervisors[0]

    yield start
    for supervisor in supervisors:
        supervisor.stop(0.0)
    lock.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def events_of(queue: SqliteQueue, job_id: str) -> list[Event]:
    return list(queue.follow(job_id))


def ready(queue: SqliteQueue) -> bool:
    return queue.status().state == "ready"


def test_a_job_is_done_in_another_process(begin: Open, queue: SqliteQueue, within: Within[list[Event]]) -> None:
    """Which hears of it at once, and says at once what becomes of it; neither waits for the other to look."""
    supervisor = begin()
    until(partial(ready, queue))
    assert {bundle.name for bundle in queue.status().bundles} == {"portrait", "restorer", "detector"}
    reported, queue.report = [], lambda line: (reported.append(line), supervisor._tell(line))[0]
    job_id = queue.submit(Generate("p"))
    *_, last = within(LIMIT_S, partial(events_of, queue, job_id))
    assert isinstance(last, Final) and (queue.folder / last.images[0]).is_file()
    assert reported == [""] and supervisor.pid != os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="another process's environment is read from /proc")
def test_no_other_library_s_threads_spin_beside_the_engine_s(begin: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the owner says so. A portrait of eight steps took 1.1 s in the place of 0.7, on two cores."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert b"OPENBLAS_NUM_THREADS=1" in Path(f"/proc/{begin().pid}/environ").read_bytes().split(b"\0")


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("segfault", "it crashed (SIGSEGV)"),
        ("out of memory", "it was killed, perhaps for want of memory"),
        ("halted", "it was stopped"),
        ("exit", "it ended by itself (status 3)"),
        ("hang", "the job went no further"),
    ],
)
def test_a_job_that_ends_its_process_is_tried_once_more_and_then_set_aside(
    begin: Open, queue: SqliteQueue, settings: Settings, within: Within[list[Event]], trouble: str, why: str
) -> None:
    begin(Patience(job_s=1.0))
    jobs = [queue.submit(Generate(prompt)) for prompt in (trouble, "the next")]
    ends = [within(LIMIT_S, partial(events_of, queue, job_id))[-1] for job_id in jobs]
    assert ends[0] == Failed("interrupted", f"the second time: {why}", {"why": why})
    assert isinstance(ends[1], Final)
    assert [queue.job(job_id).attempts for job_id in jobs] == [2, 1]
    until(partial(ready, queue))
    written = (logs.folder(settings.state) / logs.CRASHES).read_text(encoding="utf-8").splitlines()
    said = [json.loads(line) for line in written]
    name = jobs[0][:8]
    assert [(crash["job"], crash["attempt"], crash["cause"]) for crash in said] == [(name, 1, why), (name, 2, why)]
    assert [(crash["stage"], crash["step"], crash["total"]) for crash in said] == [("denoise", 1, 4)] * 2
    lines = (logs.folder(settings.state) / "worker.log").read_text(encoding="utf-8")
    for job_id, attempt in ((jobs[0], 1), (jobs[0], 2), (jobs[1], 1)):
        assert f"job={job_id[:8]}: generate begins, attempt {attempt}\n" in lines
    assert f"job={jobs[1][:8]}: done after" in lines and "the next" not in lines


def test_a_crash_that_cannot_be_written_down_costs_nothing(
    begin: Open, queue: SqliteQueue, settings: Settings, caplog: pytest.LogCaptureFixture, within: Within[list[Event]]
) -> None:
    (logs.folder(settings.state) / logs.CRASHES).mkdir(parents=True)
    begin()
    job_id = queue.submit(Generate("segfault-once"))
    assert isinstance(within(LIMIT_S, partial(events_of, queue, job_id))[-1], Final)
    assert "the crash is not written down" in caplog.text and "Traceback" not in caplog.text


def test_a_worker_that_has_died_is_not_said_to_rest(queue: SqliteQueue) -> None:
    queue.announce(Status("ready", resting=TOO_HOT, temperature_c=90.0))
    Supervisor(queue, {}, 0)._say("failed", "it crashed")
    assert queue.status() == Status("failed", "it crashed")


def test_a_step_may_take_as_long_as_it_was_said_to_take(queue: SqliteQueue) -> None:
    """After its preview too, which says nothing of the end; and as long as nothing was said, much longer."""
    queue.submit(Generate("p"))
    job = queue.claim()
    assert job is not None
    watch = _Watch(queue, Patience(job_s=10.0, unknown_s=1000.0))
    assert watch._limit_s(job.id) == 1000.0
    for event, limit_s in (
        (Progress("load", 0, 1), 1000.0),
        (Progress("denoise", 1, 4, 300.0), 1200.0),
        (Preview(1, "preview.webp"), 1200.0),
        (Progress("decode", 4, 4, 0.0), 10.0),
    ):
        queue.publish(job, event)
        assert watch._limit_s(job.id) == limit_s


def test_a_full_disk_at_the_start_is_waited_for(
    begin: Open, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch, within: Within[list[Event]]
) -> None:
    recover, refusals = queue.recover, 3

    def refuse(why: str) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise StorageError("full", why="full")
        recover(why)

    monkeypatch.setattr("engines.worker.AGAIN_S", 0.02)
    monkeypatch.setattr(queue, "recover", refuse)
    begin()
    assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(Generate("p"))))[-1], Final)
    assert refusals < 0


def test_what_nobody_foresaw_leaves_one_worker(
    begin: Open, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch, within: Within[list[Event]]
) -> None:
    """The database cannot be read for a moment: no thread ends of that, and no second process draws."""
    supervisor = begin()
    until(partial(ready, queue))
    before, running = supervisor.pid, queue.running

    def stumble() -> None:
        monkeypatch.setattr(queue, "running", running)
        raise StorageError("disk I/O error")

    monkeypatch.setattr(queue, "running", stumble)
    until(lambda: supervisor.pid not in (before, None))
    assert before is not None and not lives(before)
    assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(Generate("p"))))[-1], Final)


def test_who_follows_hears_the_second_attempt_whole(
    begin: Open, queue: SqliteQueue, within: Within[list[Event]]
) -> None:
    begin()
    heard = within(LIMIT_S, partial(events_of, queue, queue.submit(Generate("segfault-once"))))
    starts = [k for k, event in enumerate(heard) if event == Progress("load", 0, 1)]
    assert isinstance(heard[-1], Final)
    assert heard[starts[1] + 1] == Progress("denoise", 1, 4, 0.1), "numbers that the first attempt had would be missed"


def test_a_process_that_says_nothing_is_ended(
    begin: Open, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch, within: Within[list[Event]]
) -> None:
    """Its main thread is stuck, or it swaps for ever: nobody sees that from outside."""
    monkeypatch.setattr("engines.worker.supervisor._is_stopped", lambda child: False)
    supervisor = begin(Patience(process_s=3.0))
    until(partial(ready, queue))
    before = supervisor.pid
    assert before is not None
    os.kill(before, signal.SIGSTOP)
    assert isinstance(within(LIMIT_S, partial(events_of, queue, queue.submit(Generate("p"))))[-1], Final)
    assert supervisor.pid != before


def test_models_that_end_every_process_are_not_loaded_for_ever(
    begin: Open, queue: SqliteQueue, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (settings.home / "models crash").touch()
    begin()
    until(lambda: caplog.text.count("it crashed (SIGSEGV)") > 2)
    (settings.home / "models crash").unlink()
    until(lambda: queue.status().state == "failed")
    assert queue.status().detail == "it crashed (SIGSEGV)"


def test_a_stop_in_the_middle_of_a_step_costs_no_attempt(begin: Open, queue: SqliteQueue) -> None:
    supervisor = begin()
    job_id = queue.submit(Generate("hang"))
    until(lambda: (queue.running() or ("", 0))[1] == 2)
    child = supervisor.pid
    assert child is not None
    supervisor.stop(0.1)
    assert queue.job(job_id).state == "queued" and not lives(child)
    queue.recover()
    job = queue.claim()
    assert job is not None and job.id == job_id, "two crashes would have failed it"


def test_nobody_outlives_the_server(begin: Open, queue: SqliteQueue) -> None:
    """Who is killed says nothing any more; the end of its pipe does."""
    supervisor = begin()
    until(partial(ready, queue))
    child = supervisor.pid
    assert child is not None and supervisor._child is not None and supervisor._child.stdin is not None
    supervisor._stopping.set()
    supervisor._child.stdin.close()
    supervisor._child = None
    until(lambda: not lives(child))


def lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
