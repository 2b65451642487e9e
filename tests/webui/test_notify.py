"""What systemd is told of the server, and what it is not told any more when only a restart would help."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engines.errors import DatabaseDamaged, StorageError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages.status import Status
from engines.worker.supervisor import Supervisor
from tests.support.full_disk import full_disk
from tests.support.notified import Ear, listening
from webui import notify
from webui.notify import Check, Systemd, take

WATCHDOG_S = 0.04
READY = Status("ready")


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    with listening(tmp_path) as heard:
        yield heard


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs on a thread of its own, as uvicorn's runs on the main one."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path)
    yield opened
    opened.close()


Attend = Callable[..., threading.Event]


@pytest.fixture
def attend(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attend]:
    """attend(*checks): what stops it."""
    monkeypatch.setattr(notify, "AGAIN_S", 0.01)
    stopping, threads = threading.Event(), list[threading.Thread]()

    def start(*checks: Check, watchdog_s: float = WATCHDOG_S, status: Status = READY) -> threading.Event:
        arguments = Systemd(ear.address, watchdog_s), checks, lambda: status, stopping
        threads.append(threading.Thread(target=notify.attend, args=arguments))
        threads[0].start()
        return stopping

    yield start
    stopping.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def is_ping(lines: list[str]) -> bool:
    return "WATCHDOG=1" in lines


def test_it_is_ready_then_lives_then_stops(ear: Ear, attend: Attend) -> None:
    stopping = attend(Check("no fault", lambda: True))
    assert ear.hear() == ["READY=1", "STATUS=可以接活 Ready"]
    assert all(ear.hear() == ["STATUS=可以接活 Ready", "WATCHDOG=1"] for _ in range(3))
    stopping.set()
    assert ear.until(lambda lines: not is_ping(lines)) == ["STOPPING=1", "STATUS=正在停止 Stopping"]


def test_who_does_not_wait_for_signs_of_life_gets_none(
    ear: Ear, attend: Attend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LOOK_S", 0.01)
    stopping = attend(Check("not asked for", lambda: False), watchdog_s=0.0)
    ear.hear()
    assert [ear.hear() for _ in range(3)] == [["STATUS=可以接活 Ready"]] * 3
    stopping.set()


def test_a_worker_that_failed_does_not_stop_the_signs_of_life(ear: Ear, attend: Attend) -> None:
    """Nor can what it says begin a line of its own."""
    attend(status=Status("failed", "the disk\nWATCHDOG=trigger"))
    assert ear.hear()[1:] == ["STATUS=暂时不能工作 Cannot work the disk WATCHDOG=trigger"]
    assert is_ping(ear.hear())


def test_a_loop_that_is_blocked_is_no_life(ear: Ear, attend: Attend, loop: asyncio.AbstractEventLoop) -> None:
    blocked, release = threading.Event(), threading.Event()
    attend(Check("blocked", lambda: notify.loop_answers(loop, 0.05 if blocked.is_set() else 60)))
    ear.until(is_ping)

    def block() -> None:
        blocked.set()
        release.wait(60)

    loop.call_soon_threadsafe(block)
    ear.until(lambda lines: lines == ["STATUS=blocked"])
    assert [ear.hear() for _ in range(5)] == [["STATUS=blocked"]] * 5, "not one sign of life"
    release.set()
    ear.until(is_ping)


def test_a_closed_loop_is_no_life() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert not notify.loop_answers(loop)


def test_a_database_that_waits_for_ever_is_no_life(queue: SqliteQueue) -> None:
    """A thread that ended, or sits, in the middle of a transaction: every page would wait for it."""
    assert notify.database_answers(queue.busy, 60)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with queue._transaction():
            inside.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(60)
    assert not notify.database_answers(queue.busy, 0.05)
    leave.set()
    holder.join()
    assert notify.database_answers(queue.busy, 60)


def test_a_full_disk_is_life(queue: SqliteQueue) -> None:
    with full_disk():
        assert notify.database_answers(queue.busy, 60)


@pytest.mark.parametrize(
    ("error", "answers"),
    [(StorageError("disk I/O error"), True), (DatabaseDamaged("malformed"), False)],
)
def test_only_damage_is_mended_by_a_restart(error: StorageError, answers: bool) -> None:
    def read() -> None:
        raise error

    assert notify.database_answers(read, 60 if answers else 0.05) is answers


def test_a_supervisor_lives_until_it_has_ended(
    queue: SqliteQueue, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    with (tmp_path / "lock").open("w") as lock:
        supervisor = Supervisor(queue, {}, lock.fileno(), ("sleep", "60"))
        *_, last = notify.checks(loop, queue.busy, lambda: supervisor.lives)
        assert not last.answers()
        supervisor.start()
        assert last.answers()
        supervisor.stop(0.0)
        assert not last.answers()


def test_it_takes_what_is_for_this_process_and_leaves_nothing_to_a_child() -> None:
    env = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7", "HOME": "/"}
    assert take(dict(env), 7) == Systemd("/run/notify", 60.0)
    assert take(env, 8) == Systemd("/run/notify"), "the signs of life are another's to give"
    assert env == {"HOME": "/"}
    assert take(env, 7) is None


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_an_address_of_another_kind_is_passed_over(address: str) -> None:
    assert take({"NOTIFY_SOCKET": address}, 7) is None


def test_an_abstract_address_is_reached(tmp_path: Path) -> None:
    with closing(Ear(f"@studio-{uuid.uuid4().hex}")) as ear:
        systemd = take({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "soon"}, 7)
        assert systemd is not None and systemd.watchdog_s == 0.0
        systemd.send("READY=1")
        assert ear.hear() == ["READY=1"]


def test_a_systemd_that_is_gone_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Systemd(str(tmp_path / "nobody")).send("READY=1")
    assert "systemd does not hear READY=1" in caplog.text
