"""A damaged database of jobs: it is kept, what can be read of it goes on, and the queue serves."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engines.jobs.repair import repair
from engines.jobs.schema import COLUMNS
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Final, Generate, Progress

JOBS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database of jobs that are done, with their events, and one that waits."""
    path = tmp_path_factory.mktemp("whole") / "jobs.db"
    queue = SqliteQueue(path, path.parent)
    queue._db.execute("PRAGMA synchronous=OFF")
    for k in range(JOBS):
        queue.submit(Generate(f"prompt {k} " + "x" * 200, seed=k))
        job = queue.claim()
        assert job is not None
        queue.publish(job, Progress("denoise", 1, 8))
        queue.publish(job, Final((f"outputs_{k:014}.png",), k, 1.0, "ort"))
    queue.submit(Generate("waits"))
    queue.close()
    return path.read_bytes()


@pytest.fixture
def path(whole: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "state" / "jobs.db"
    path.parent.mkdir()
    path.write_bytes(whole)
    return path


def pages(path: Path, table: str) -> tuple[int, list[int]]:
    """Bytes of a page, and the numbers of the leaves of a table or an index."""
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (table,)).fetchone()
    data, found, todo = path.read_bytes(), [], [root]
    while todo:
        page = data[(number := todo.pop()) * size - size : number * size]
        if page[0] in (2, 5):  # inner: cells begin with the number of a page (SQLite's file format, section 1.6)
            cells = [int.from_bytes(page[12 + 2 * k : 14 + 2 * k]) for k in range(int.from_bytes(page[3:5]))]
            todo += [int.from_bytes(page[cell : cell + 4]) for cell in cells] + [int.from_bytes(page[8:12])]
        else:
            found.append(number)
    return size, found


def blank(path: Path, size: int, number: int) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * size)
        file.write(bytes(size))


def works(queue: SqliteQueue) -> bool:
    """Whether it takes a job, hands one out and is told of its end."""
    queue.submit(Generate("after it"))
    job = queue.claim()
    return job is not None and queue.publish(job, Final((), 1, 1.0, "ort"))


def test_a_whole_database_is_left_alone(path: Path, tmp_path: Path) -> None:
    queue = SqliteQueue(path, tmp_path)
    assert queue.repaired is None and len(queue.finished(1000)) == JOBS
    queue.close()
    assert {file.name for file in path.parent.iterdir()} == {"jobs.db"}


def test_what_is_no_database_is_set_aside_as_it_was(tmp_path: Path) -> None:
    path, garbage = tmp_path / "jobs.db", b"this is no database " * 500
    path.write_bytes(garbage)
    queue = SqliteQueue(path, tmp_path)
    assert queue.repaired is not None
    aside, rows = queue.repaired
    assert rows == 0 and aside.read_bytes() == garbage and aside.match("jobs.damaged-*.db")
    assert works(queue)
    queue.close()


def test_what_lies_on_both_sides_of_the_damage_is_taken_over(path: Path, tmp_path: Path) -> None:
    size, leaves = pages(path, "job")
    assert len(leaves) > 8
    blank(path, size, sorted(leaves)[len(leaves) // 2])
    queue = SqliteQueue(path, tmp_path)
    assert queue.repaired is not None
    jobs = [done.job for done in queue.finished(1000)]
    assert JOBS * 0.8 < len(jobs) < JOBS
    assert all(job.request.prompt.startswith(f"prompt {job.request.seed} ") for job in jobs)
    assert queue.latest(jobs[0].id) == Final((f"outputs_{JOBS - 1:014}.png",), JOBS - 1, 1.0, "ort")
    waiting = queue.claim()
    assert waiting is not None and waiting.request.prompt == "waits"
    queue.close()


def test_a_damaged_index_costs_no_row(path: Path, tmp_path: Path) -> None:
    """No statement that reads rows in order would notice it; the one that hands out jobs would."""
    size, leaves = pages(path, "job_state")
    blank(path, size, leaves[0])
    queue = SqliteQueue(path, tmp_path)
    assert queue.repaired is not None and queue.repaired[1] == JOBS * 3 + 1
    assert len(queue.finished(1000)) == JOBS
    queue.close()


def test_a_damaged_database_of_the_first_version_is_taken_over_too(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        for index in ("job_ended", "job_owner", "job_album"):
            db.execute(f"DROP INDEX {index}")
        db.execute("ALTER TABLE job DROP COLUMN lane")
    size, leaves = pages(path, "job_state")
    blank(path, size, leaves[0])
    queue = SqliteQueue(path, tmp_path)
    assert queue.repaired is not None and len(queue.finished(1000)) == JOBS
    assert works(queue)
    queue.close()


@pytest.mark.parametrize("seed", range(20))
def test_bytes_that_are_flipped_anywhere_stop_no_queue(path: Path, tmp_path: Path, seed: int) -> None:
    dice, data = random.Random(seed), bytearray(path.read_bytes())
    for at in [dice.randrange(len(data)) for _ in range(100)]:
        data[at] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    queue = SqliteQueue(path, tmp_path)
    if queue.repaired is not None:
        assert queue.repaired[0].read_bytes() == data
    assert works(queue)
    queue.close()
    again = SqliteQueue(path, tmp_path)
    assert again.repaired is None and works(again)
    again.close()


def test_every_column_is_taken_over(path: Path, tmp_path: Path) -> None:
    SqliteQueue(path, tmp_path).close()
    with closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        columns = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in tables}
    assert {name: sorted(held) for name, held in columns.items()} == {
        name: sorted(held) for name, held in COLUMNS.items()
    }


def test_damage_that_cannot_be_quoted_is_damage(path: Path, tmp_path: Path) -> None:
    """SQLite names the wrong word of a schema, which is no text any more."""
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE event", b"CREAT\xc5 TABLE event"))
    queue = SqliteQueue(path, tmp_path)
    assert queue.repaired is not None and works(queue)
    queue.close()


def test_events_that_the_table_of_jobs_does_not_count_are_counted(path: Path, tmp_path: Path) -> None:
    """A page of an older time was read: a job could never say anything again, as the number would be taken."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE job SET last_event=0, state='running'")
    repair(path)
    with closing(sqlite3.connect(path)) as db:
        counted = db.execute("SELECT last_event, (SELECT COUNT(*) FROM event WHERE job=id) FROM job").fetchall()
    assert counted and all(last == events for last, events in counted)


# ---- a log of which SQLite passes over a part: the jobs are lost, and their pictures are not to be deleted


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The home of a server that was killed: three jobs are done, a fourth has drawn a picture that nothing names."""
    home, living = tmp_path / "killed", tmp_path / "living"
    queue = SqliteQueue(living / "jobs.db", living / "outputs")
    queue._db.execute("PRAGMA wal_autocheckpoint=0")
    queue.folder.mkdir()
    for k in range(4):
        queue.submit(Generate(f"prompt {k}"))
        job = queue.claim()
        assert job is not None
        (queue.folder / f"outputs_2026010100000{k}.png").write_bytes(b"picture")
        if k < 3:
            queue.publish(job, Final((f"outputs_2026010100000{k}.png",), k, 1.0, "ort"))
    queue.publish(job, Progress("denoise", 1, 8))
    shutil.copytree(living, home)
    queue.close()
    (home / "jobs.db-shm").unlink()
    return home


def recovered(home: Path) -> tuple[bool, set[str]]:
    """Start once more. Return whether commits are missed, and the pictures that are there then."""
    queue = SqliteQueue(home / "jobs.db", home / "outputs")
    assert queue.repaired is None
    queue.recover()
    queue.close()
    return queue.lost_commits, {path.stem[-1] for path in (home / "outputs").iterdir()}


def test_after_a_kill_only_what_nothing_names_is_deleted(killed: Path) -> None:
    assert recovered(killed) == (False, {"0", "1", "2"})


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("part", ["page", "salt", "checksum"])
def test_pictures_of_jobs_that_a_damaged_log_has_forgotten_stay(killed: Path, share: float, part: str) -> None:
    wal = killed / "jobs.db-wal"
    data = bytearray(wal.read_bytes())
    frame_bytes = 24 + int.from_bytes(data[8:12])
    count = (len(data) - 32) // frame_bytes
    at = 32 + int(count * share) * frame_bytes
    data[at + {"page": 500, "salt": 9, "checksum": 17}[part]] ^= 1
    wal.write_bytes(data)
    lost, pictures = recovered(killed)
    assert lost and pictures == {"0", "1", "2", "3"}


@pytest.mark.parametrize("at", [0, 9, 17, 25])
def test_pictures_stay_where_the_head_of_the_log_is_damaged(killed: Path, at: int) -> None:
    data = bytearray((killed / "jobs.db-wal").read_bytes())
    data[at] ^= 1
    (killed / "jobs.db-wal").write_bytes(data)
    lost, pictures = recovered(killed)
    assert lost and pictures == {"0", "1", "2", "3"}


def test_pictures_of_jobs_that_a_log_cut_short_has_forgotten_stay(killed: Path) -> None:
    """Nobody sees that it was longer; but a crash leaves one picture at most that nothing names."""
    wal = killed / "jobs.db-wal"
    size = wal.stat().st_size
    states = set[str]()
    for k in range(1, 20):
        home = killed.with_name(f"cut {k}")
        shutil.copytree(killed, home)
        with (home / "jobs.db-wal").open("r+b") as file:
            file.truncate(size * k // 20)
        with closing(SqliteQueue(home / "jobs.db", home / "outputs")) as queue:
            running, done = queue.running(), len(queue.finished(9))
            queue.recover()
            left = {path.stem[-1] for path in queue.folder.iterdir()}
        assert left == {"0", "1", "2", "3"} or (left == {"0", "1", "2"} and done == 3), (k, left, done)
        states.add(f"{done} {bool(running)}")
    assert {"0 True", "1 True", "2 True"} <= states, "else nothing was tried"


def test_a_commit_that_was_not_written_to_its_end_is_no_damage(killed: Path) -> None:
    """As a kill leaves it: nobody has heard of it."""
    wal = killed / "jobs.db-wal"
    wal.write_bytes(wal.read_bytes()[:-100])
    assert recovered(killed) == (False, {"0", "1", "2"})


def test_a_log_that_is_used_again_holds_old_commits_which_are_not_missed(tmp_path: Path) -> None:
    living = tmp_path / "living"
    queue = SqliteQueue(living / "jobs.db", living / "outputs")
    for k in range(30):
        queue.submit(Generate(f"prompt {k} " + "x" * 3000))
    queue._db.execute("PRAGMA wal_checkpoint(RESTART)")
    queue.submit(Generate("the first of the log's next use"))
    shutil.copytree(living, tmp_path / "killed")
    queue.close()
    again = SqliteQueue(tmp_path / "killed" / "jobs.db", tmp_path)
    assert not again.lost_commits and len(again.unfinished()) == 31
    again.close()
