"""
What is known of an inbox, on disk: which bytes were submitted and what came of them, and which file, by its path in the
inbox, has which bytes and where their result lies. Rows are never deleted because a file is not there: a share that is
away takes nothing with it. Knows no queue and opens no photo.

A path is bytes: not every name on a share is text.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engines.errors import Fact, StorageError
from webui.watch.scan import Stamp

DATABASE = "watch.db"  # a backup of the home has it (webui/backup)
State = Literal["intended", "submitted", "done", "failed", "gone"]  # gone: its result, from everywhere
# With its original in immich. absent: that is not there; gone: the result was taken away before; refused: by immich.
Stacked = Literal["waiting", "stacked", "absent", "gone", "refused"]
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PRIMARY = 0xFF  # of an SQLite error: the rest says more of the same
SCHEMA = """
PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS content(
  sha256 TEXT PRIMARY KEY, state TEXT NOT NULL DEFAULT 'intended', job TEXT NOT NULL DEFAULT '',
  tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, submitted REAL NOT NULL DEFAULT 0,
  picture TEXT NOT NULL DEFAULT '', code TEXT NOT NULL DEFAULT '', facts TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS content_state ON content(state);
CREATE INDEX IF NOT EXISTS content_submitted ON content(submitted);
CREATE TABLE IF NOT EXISTS photo(
  path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
  delivered INTEGER NOT NULL DEFAULT 0, outbox BLOB NOT NULL DEFAULT x'', laid TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS photo_content ON photo(sha256);
CREATE INDEX IF NOT EXISTS photo_waiting ON photo(sha256) WHERE NOT delivered;
CREATE TABLE IF NOT EXISTS pair(
  number INTEGER PRIMARY KEY, day TEXT NOT NULL, path BLOB NOT NULL, before BLOB NOT NULL, after BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS stacking(
  sha256 TEXT PRIMARY KEY, sha1 TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
  tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS stacking_state ON stacking(state, due);
CREATE TABLE IF NOT EXISTS mark(name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
CONTENT = "SELECT sha256, state, job, tries, due, submitted, picture, code, facts FROM content"
PHOTO = "SELECT path, size, mtime_ns, sha256, outbox, laid FROM photo"
# What lies in the outbox for the path stays written down when its bytes change: it will be replaced.
PUT_PHOTO = """INSERT INTO photo(path, size, mtime_ns, sha256) VALUES(?, ?, ?, ?)
ON CONFLICT(path) DO UPDATE SET size=excluded.size, mtime_ns=excluded.mtime_ns, sha256=excluded.sha256, delivered=0"""
# The job before stays written down: one that is submitted now is told from it. A change of the file spares no try.
INTEND = """INSERT INTO content(sha256) VALUES(?)
ON CONFLICT(sha256) DO UPDATE SET state='intended', tries=0, due=0, picture='', code='', facts='{}'"""
# What is on a stack stays so; of the others one that is laid down again may have its original in immich by now.
PUT_STACKING = """INSERT INTO stacking(sha256, sha1) SELECT sha256, ? FROM photo WHERE path=?
ON CONFLICT(sha256) DO UPDATE SET state='waiting', tries=0, due=0, why='' WHERE stacking.state<>'stacked'"""
PUT_PAIR = "INSERT INTO pair(day, path, before, after) VALUES(?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Content:
    """
    Bytes that were in the inbox. `job`: the latest that was submitted for them. `due`: when they may be submitted
    again, `submitted`: when they were, in seconds since 1970. `picture`: the result's name among those of the queue.
    """

    sha256: str
    state: State
    job: str = ""
    tries: int = 0
    due: float = 0.0
    submitted: float = 0.0
    picture: str = ""
    code: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Photo:
    """A file of the inbox. `outbox`: where its result lies there, `laid` the checksum of that; empty: nowhere yet."""

    path: str
    stamp: Stamp
    sha256: str
    outbox: str = ""
    laid: str = ""


@dataclass(frozen=True, slots=True)
class ToStack:
    """A result that is to be stacked with its original. `sha1`: the original's, by which immich knows it."""

    sha256: str
    sha1: str
    tries: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Small copies of a photo as it came and as it is now, WEBP; `before` may be empty."""

    day: str  # 2026-11-30
    path: str
    before: bytes
    after: bytes


class Ledger:
    """For one thread. `set_aside`: where a damaged database lies that this one has taken the place of."""

    def __init__(self, path: Path) -> None:
        """StorageError: it cannot be opened."""
        self.set_aside: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._opened(path)
        except (OSError, sqlite3.Error) as exc:
            raise StorageError(f"{path}: {exc}", why=str(exc)) from exc
        rows = self._rows("SELECT path, size, mtime_ns FROM photo")
        self.stamps: dict[str, Stamp] = {os.fsdecode(name): (size, mtime_ns) for name, size, mtime_ns in rows}

    def _opened(self, path: Path) -> sqlite3.Connection:
        """What is damaged is set aside: without it photos are restored once more, and their results are recognised."""
        db = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            db.executescript(SCHEMA)
            if db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return db
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & PRIMARY not in DAMAGE:
                db.close()
                raise
        db.close()
        self.set_aside = path.with_name(f"{path.name}.damaged-{path.stat().st_mtime_ns}")
        for ending in ("", "-wal", "-shm"):
            beside = path.with_name(path.name + ending)
            if beside.exists():
                beside.rename(self.set_aside.with_name(self.set_aside.name + ending))
        return self._opened(path)

    def close(self) -> None:
        self._db.close()

    # ---- contents

    def content(self, sha256: str) -> Content | None:
        """Return what is known of these bytes; None: nothing."""
        rows = self._rows(f"{CONTENT} WHERE sha256=?", sha256)
        return _content(rows[0]) if rows else None

    def contents(self, state: State) -> list[Content]:
        return [_content(row) for row in self._rows(f"{CONTENT} WHERE state=? ORDER BY due, sha256", state)]

    def intend(self, path: str, stamp: Stamp, sha256: str) -> None:
        """Write down that these bytes of this file will be submitted, before they are."""
        with self._transaction() as db:
            db.execute(INTEND, (sha256,))
            db.execute(PUT_PHOTO, (os.fsencode(path), *stamp, sha256))
        self.stamps[path] = stamp

    def intend_again(self, sha256: str, due: float) -> None:
        """Have them submitted once more, not before `due`."""
        with self._transaction() as db:
            db.execute("UPDATE content SET state='intended', tries=tries+1, due=? WHERE sha256=?", (due, sha256))

    def submitted(self, sha256: str, job: str, now: float) -> None:
        with self._transaction() as db:
            db.execute("UPDATE content SET state='submitted', job=?, submitted=? WHERE sha256=?", (job, now, sha256))

    def done(self, sha256: str, picture: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE content SET state='done', picture=? WHERE sha256=?", (picture, sha256))

    def failed(self, sha256: str, code: str, facts: Mapping[str, Fact]) -> None:
        change = "UPDATE content SET state='failed', code=?, facts=? WHERE sha256=?"
        with self._transaction() as db:
            db.execute(change, (code, json.dumps(dict(facts)), sha256))

    def let_go(self, shas: Sequence[str]) -> None:
        """Write down that the pictures of these results are not among the queue's any more."""
        with self._transaction() as db:
            db.executemany("UPDATE content SET picture='' WHERE sha256=?", [(sha256,) for sha256 in shas])

    def submitted_since(self, then: float) -> int:
        """Return how many contents were submitted after then, in seconds since 1970."""
        return int(self._rows("SELECT COUNT(*) FROM content WHERE submitted>?", then)[0][0])

    def delivered_before(self, then: float) -> list[Content]:
        """Return what was submitted before then, is among the queue's pictures still, and for no file still to lay."""
        waiting = "SELECT sha256 FROM photo WHERE NOT delivered"
        sql = f"{CONTENT} WHERE state='done' AND picture<>'' AND submitted<? AND sha256 NOT IN ({waiting})"
        return [_content(row) for row in self._rows(sql, then)]

    # ---- photos

    def note(self, path: str, stamp: Stamp, sha256: str) -> None:
        """Write down that this file has bytes that are known already."""
        with self._transaction() as db:
            db.execute(PUT_PHOTO, (os.fsencode(path), *stamp, sha256))
        self.stamps[path] = stamp

    def forget(self, sha256: str) -> None:
        """Let the files that have these bytes be as if they had never been seen. Their last job stays written down."""
        rows = self._rows("SELECT path FROM photo WHERE sha256=?", sha256)
        with self._transaction() as db:
            db.execute("UPDATE content SET state='gone', picture='' WHERE sha256=?", (sha256,))
            # A size that no file has: it is looked at again, and what lies in the outbox for it is still known.
            db.execute("UPDATE photo SET size=-1 WHERE sha256=?", (sha256,))
        for (path,) in rows:
            self.stamps.pop(os.fsdecode(path), None)

    def undelivered(self) -> list[Photo]:
        """Return the files whose results are there and not in the outbox."""
        sql = f"{PHOTO} WHERE NOT delivered AND sha256 IN (SELECT sha256 FROM content WHERE state='done') ORDER BY path"
        return [_photo(row) for row in self._rows(sql)]

    def photos_of(self, sha256: str) -> list[Photo]:
        return [_photo(row) for row in self._rows(f"{PHOTO} WHERE sha256=? ORDER BY path", sha256)]

    def delivered(self, path: str, outbox: str, laid: str, pair: Pair | None = None, sha1: str = "") -> None:
        """
        Write down where the result lies, its small copies for the day's sheet, and, where it is to be stacked with its
        original, the SHA-1 of that.
        """
        with self._transaction() as db:
            change = "UPDATE photo SET delivered=1, outbox=?, laid=? WHERE path=?"
            db.execute(change, (os.fsencode(outbox), laid, os.fsencode(path)))
            if pair is not None:
                db.execute(PUT_PAIR, (pair.day, os.fsencode(pair.path), pair.before, pair.after))
            if sha1:
                db.execute(PUT_STACKING, (sha1, os.fsencode(path)))

    def failures(self) -> list[tuple[str, str, dict[str, Fact]]]:
        """Return the path, the error's code and its facts of every file that could not be restored."""
        sql = "SELECT path, code, facts FROM photo JOIN content USING (sha256) WHERE state='failed' ORDER BY path"
        return [(os.fsdecode(path), code, json.loads(facts)) for path, code, facts in self._rows(sql)]

    # ---- stacks in immich

    def to_stack(self, now: float) -> ToStack | None:
        """Return what is to be stacked next, and may be by now, in seconds since 1970; None: nothing."""
        sql = "SELECT sha256, sha1, tries FROM stacking WHERE state='waiting' AND due<=? ORDER BY due, sha256 LIMIT 1"
        rows = self._rows(sql, now)
        return ToStack(*rows[0]) if rows else None

    def stack_later(self, sha256: str, due: float, tries: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE stacking SET due=?, tries=? WHERE sha256=?", (due, tries, sha256))

    def set_stacked(self, sha256: str, state: Stacked, why: str = "") -> None:
        """Write down what has become of it; `why` it was refused."""
        with self._transaction() as db:
            db.execute("UPDATE stacking SET state=?, why=? WHERE sha256=?", (state, why, sha256))

    def stacking(self, state: Stacked) -> list[tuple[str, str]]:
        """Return the path of every file of which this has become, and why."""
        sql = "SELECT path, why FROM photo JOIN stacking USING (sha256) WHERE state=? ORDER BY path"
        return [(os.fsdecode(path), why) for path, why in self._rows(sql, state)]

    # ---- the day's sheet, and marks

    def days(self) -> list[str]:
        return [row[0] for row in self._rows("SELECT DISTINCT day FROM pair ORDER BY day")]

    def pairs(self, day: str) -> list[Pair]:
        rows = self._rows("SELECT day, path, before, after FROM pair WHERE day=? ORDER BY number", day)
        return [Pair(day, os.fsdecode(path), before, after) for day, path, before, after in rows]

    def forget_day(self, day: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM pair WHERE day=?", (day,))

    def mark(self, name: str) -> str:
        """Return what was written down under this name; empty: nothing."""
        rows = self._rows("SELECT value FROM mark WHERE name=?", name)
        return str(rows[0][0]) if rows else ""

    def set_mark(self, name: str, value: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO mark(name, value) VALUES(?, ?)", (name, value))

    # ---- the database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing. StorageError: the disk refuses."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as exc:
            raise StorageError(f"the ledger cannot be written: {exc}", why=str(exc)) from exc
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise StorageError(f"the ledger cannot be read: {exc}", why=str(exc)) from exc


def _content(row: tuple[Any, ...]) -> Content:
    sha256, state, job, tries, due, submitted, picture, code, facts = row
    return Content(sha256, state, job, tries, due, submitted, picture, code, json.loads(facts))


def _photo(row: tuple[Any, ...]) -> Photo:
    path, size, mtime_ns, sha256, outbox, laid = row
    return Photo(os.fsdecode(path), (size, mtime_ns), sha256, os.fsdecode(outbox), laid)
