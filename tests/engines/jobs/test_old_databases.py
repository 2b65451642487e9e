"""A queue's file that an earlier version wrote: its jobs are taken over, each in its lane."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

import pytest

from engines.errors import StorageError
from engines.jobs import Search, schema
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Build, Fetch, Final, Generate, Request, pack

# The schema of the versions before lanes were a column, word for word.
OLD_SCHEMA = """
CREATE TABLE IF NOT EXISTS job(
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
  attempts INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0, ended REAL);
CREATE INDEX IF NOT EXISTS job_state ON job(state, number);
CREATE TABLE IF NOT EXISTS event(
  job TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY(job, seq)) WITHOUT ROWID;
"""
BUILD, PICTURE = Build("restorer", "mine.pth", "edge-int8", "mine"), Generate('{"kind": "build"')
JOBS: dict[str, Request] = {"drawn": Generate("p"), "building": BUILD, "picture": PICTURE, "model": Fetch("gpen")}
STATES = {"drawn": "done", "building": "running"}
NO_MESSAGES = {"torn": '{"kind": "build', "a list": "[1]", "a number": "3", "empty": "", "of the future": '{"kind": 7}'}
LANES = {"drawn": "pictures", "building": "builds", "picture": "pictures", "model": "builds"}
LANES |= dict.fromkeys(NO_MESSAGES, "pictures")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of the old schema, with jobs of every kind, and rows that hold none."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode=WAL;" + OLD_SCHEMA)
        rows = [(name, pack(request), STATES.get(name, "queued")) for name, request in JOBS.items()]
        rows += [(name, text, "failed") for name, text in NO_MESSAGES.items()]
        db.executemany("INSERT INTO job(id, request, state, attempts) VALUES(?, ?, ?, 1)", rows)
        db.execute("INSERT INTO event VALUES('drawn', 1, ?)", (pack(Final(("a.png",), 7, 1.5, "ort")),))
        db.execute("UPDATE job SET ended=1.0 WHERE id='drawn'")
        db.commit()
    return path


@pytest.fixture
def queue(file: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(file, file.parent)
    yield opened
    opened.close()


def lanes(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT id, lane FROM job").fetchall())


def test_every_job_is_in_the_lane_of_its_kind(queue: SqliteQueue, file: Path) -> None:
    assert lanes(file) == LANES


def test_what_waited_and_what_was_left_running_is_done(queue: SqliteQueue) -> None:
    queue.recover()
    taken = [queue.claim(lane="builds"), queue.claim(lane="builds"), queue.claim(lane="builds")]
    assert [job and (job.id, job.request) for job in taken] == [("building", BUILD), ("model", JOBS["model"]), None]
    picture = queue.claim()
    assert picture is not None and (picture.id, picture.request) == ("picture", PICTURE) and queue.claim() is None
    assert [finished.job.id for finished in queue.finished(9)] == ["drawn"]


def test_new_jobs_go_on_where_the_old_ones_end(queue: SqliteQueue) -> None:
    build, picture = queue.submit(BUILD), queue.submit(PICTURE)
    assert (queue.place(build).ahead, queue.place(picture).ahead) == (2, 1)


def test_it_is_taken_over_once(queue: SqliteQueue, file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE job SET lane='builds' WHERE id='picture'")
        db.commit()
    SqliteQueue(file, file.parent).close()
    assert lanes(file)["picture"] == "builds", "nobody fills the column again"


def test_two_that_open_it_at_once_take_it_over_once(file: Path) -> None:
    together, opened = Barrier(4), list[SqliteQueue]()

    def start() -> None:
        together.wait(10)
        opened.append(SqliteQueue(file, file.parent))

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(opened) == 4 and lanes(file) == LANES
    for queue in opened:
        queue.close()


def test_it_is_taken_over_wholly_or_not_at_all(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the column and what it holds, the disk is full."""
    whole = schema.ADD
    half = {**whole, "lane": (whole["lane"][0], "INSERT INTO job(id) VALUES('there is no space')")}
    monkeypatch.setattr(schema, "ADD", half)
    with pytest.raises(StorageError):
        SqliteQueue(file, file.parent)
    with closing(sqlite3.connect(file)) as db:
        assert "lane" not in {row[1] for row in db.execute("PRAGMA table_info(job)")}
    monkeypatch.setattr(schema, "ADD", whole)
    SqliteQueue(file, file.parent).close()
    assert lanes(file) == LANES


def test_what_everybody_saw_is_in_the_album_and_nobodys(queue: SqliteQueue) -> None:
    """There were no owners: whose a picture is nobody knows, and nothing is lost."""
    (queue.folder / "a.png").write_bytes(b"a picture")
    (entry,) = queue.page(Search(None), 9).jobs
    assert (entry.job.id, entry.job.owner, entry.shared, entry.favourite) == ("drawn", "", True, False)
    later = queue.submit(Generate("later"), "somebody")
    assert len(queue.page(Search(None), 9).jobs) == 1 and queue.job(later).owner == "somebody"
