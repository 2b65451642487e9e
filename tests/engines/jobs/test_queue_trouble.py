"""The SQLite queue in trouble: a full disk, an event that cannot be stored, a job of another version."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from engines.errors import DatabaseDamaged, StorageError, StudioError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Failed, Final, Generate, Progress
from tests.conftest import REPOSITORY


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "queue.db", tmp_path)
    yield opened
    opened.close()


def stored(path: Path) -> set[str]:
    """The jobs that another process finds on disk."""
    with closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT id FROM job")}


def test_an_event_that_cannot_be_stored_leaves_no_transaction_open(queue: SqliteQueue, tmp_path: Path) -> None:
    """Half a surrogate pair cannot be written as UTF-8. Whatever is raised: what is submitted afterwards is on disk."""
    queue.submit(Generate("p"))
    job = queue.claim()
    assert job is not None
    with pytest.raises((StudioError, ValueError)):
        queue.publish(job, Failed("x", "\ud800"))
    later = queue.submit(Generate("q"))
    assert later in stored(tmp_path / "queue.db")
    assert queue.publish(job, Progress("denoise", 1, 8)) is True
    assert queue.publish(job, Final((), 1, 1.0, "ort")) is True


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from engines.errors import StorageError
    from engines.jobs.sqlite_queue import SqliteQueue
    from engines.messages import Failed, Generate, Progress

    home = Path(sys.argv[1])
    queue = SqliteQueue(home / "queue.db", home)
    queue.submit(Generate("p"))
    job = queue.claim()
    size = (home / "queue.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for act in (lambda: queue.submit(Generate("x" * 4000)), lambda: queue.publish(job, Failed("x", "y" * 9000))):
        try:
            act()
            print("wrote")
        except StorageError as exc:
            print(exc.code)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(queue.submit(Generate("there is space again")))
    print(queue.publish(job, Progress("denoise", 1, 8)))
"""


def test_a_full_disk_is_a_storage_error_and_the_queue_goes_on_when_there_is_space(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    submitting, publishing, later, went_on = done.stdout.split()
    assert (submitting, publishing) == ("storage_failed", "storage_failed")
    assert later in stored(tmp_path / "queue.db") and went_on == "True"


@pytest.mark.parametrize(
    "text", ['{"kind": "generate", "prompt": "p", "of_the_next_version": 1}', '{"kind": "future"}', "junk"]
)
@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_of_another_version_does_not_stop_the_queue(
    queue: SqliteQueue, tmp_path: Path, state: str, text: str
) -> None:
    """After a step back to an older version the table holds what it cannot read. It ends; the next job is served."""
    with closing(sqlite3.connect(tmp_path / "queue.db")) as db:
        db.execute("INSERT INTO job(id, request, state, attempts) VALUES('strange', ?, ?, 1)", (text, state))
        db.commit()
    good = queue.submit(Generate("p"))
    queue.recover()
    claims = [queue.claim(), queue.claim()]
    assert good in {job.id for job in claims if job is not None}


DAY_S = 86400.0


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, -50 * 365 * DAY_S])
def test_a_clock_that_jumps_reorders_nothing(
    queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """In the middle of a job, while others wait: they are done in their order, and the newest picture is the first."""
    names = [queue.submit(Generate(prompt)) for prompt in "abc"]
    done, clock = [], time.time
    for jumps in (False, True, False):
        job = queue.claim()
        assert job is not None and queue.publish(job, Progress("denoise", 1, 8))
        if jumps:
            monkeypatch.setattr(time, "time", lambda: clock() + jump_s)
            queue.save_snapshot(job, b"half", ())
            assert queue.snapshot(job) == b"half"
        assert queue.publish(job, Final((), 1, 1.0, "ort"))
        done.append(job.id)
    assert done == names == [entry.job.id for entry in reversed(queue.finished(9))]
    monkeypatch.setattr(time, "time", clock)  # it was wrong all the time
    queue.submit(Generate("d"))
    last = queue.claim()
    assert last is not None and queue.publish(last, Final((), 1, 1.0, "ort"))
    assert queue.finished(1)[0].job.id == last.id


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_clock_that_jumps_loses_no_job_at_a_restart(
    queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """And no picture: those that an event names stay, whatever their time says."""
    queue.submit_all([Generate("a"), Generate("b")])
    first = queue.claim()
    assert first is not None
    (tmp_path / "outputs_20260102030405.png").write_bytes(b"png")
    queue.publish(first, Final(("outputs_20260102030405.png",), 1, 1.0, "ort"))
    second = queue.claim()
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jump_s)
    queue.recover()
    again = queue.claim()
    assert second is not None and again is not None and (again.id, again.attempts) == (second.id, 2)
    assert (tmp_path / "outputs_20260102030405.png").exists()


def spoil(queue: SqliteQueue, path: Path) -> None:
    """Damage all pages but the first, while the queue is open: of what it has read before nothing is remembered."""
    queue._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    queue._db.execute("PRAGMA shrink_memory")


def test_damage_while_it_is_served_is_said_as_such(queue: SqliteQueue, tmp_path: Path) -> None:
    for k in range(50):
        queue.submit(Generate(f"prompt {k} " + "x" * 200))
    job = queue.claim()
    assert job is not None
    spoil(queue, tmp_path / "queue.db")
    acts: tuple[Callable[[], object], ...] = (
        partial(queue.job, job.id),
        partial(queue.place, job.id),
        partial(queue.finished, 9),
        queue.claim,
        queue.busy,
        queue.is_paused,
        partial(queue.submit, Generate("q")),
        partial(queue.publish, job, Progress("denoise", 1, 8)),
    )
    for act in acts:
        with pytest.raises(DatabaseDamaged) as damage:
            act()
        assert damage.value.facts["why"] and isinstance(damage.value, StorageError)
    queue.close()
    again = SqliteQueue(tmp_path / "queue.db", tmp_path)
    assert again.repaired is not None and again.submit(Generate("q")), "a restart mends it"
    again.close()


def test_a_disk_that_cannot_be_read_is_no_damage(queue: SqliteQueue) -> None:
    with pytest.raises(StorageError) as refused:
        queue._rows("SELECT * FROM nowhere")
    assert not isinstance(refused.value, DatabaseDamaged)
