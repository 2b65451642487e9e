"""
A queue's database that is damaged: set aside as it is, under a name with the date, and what can be read of it taken
over into a new one. Knows the tables, and nothing of what stands in them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from engines import files
from engines.jobs.schema import COLUMNS, COUNT_EVENTS, SCHEMA

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# What SQLite says of damage may quote it, and then the module fails to read that.
FAULTS = (sqlite3.DatabaseError, UnicodeDecodeError)
BESIDE = ("", "-wal", "-shm")  # the files of one database
LOG_BYTES, FRAME_BYTES = 32, 24  # the header of a write-ahead log, and that of each page in it
MIN_PAGE_BYTES, MAX_PAGE_BYTES = 512, 65536


def is_damaged(path: Path) -> bool:
    """Return whether the file is there and no whole database. sqlite3.Error: it cannot be read for another reason."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(path, timeout=10)) as db:
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",))
    except FAULTS as exc:
        if not _is_damage(exc):
            raise
        return True


def loses_commits(path: Path) -> bool:
    """
    Return whether the log beside the database holds commits that SQLite passes over, as it does with all that come
    after damage. To be asked before anybody opens it. OSError, sqlite3.Error: it cannot be read for another reason.
    """
    log = _beside(path, "-wal")
    commits = _commits(log.read_bytes()) if path.is_file() and log.is_file() else []
    if not commits:
        return False
    try:
        with closing(sqlite3.connect(path, timeout=10)) as db:
            _, frames, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except FAULTS as exc:
        if not _is_damage(exc):
            raise
        return True
    return bool(commits[-1] > frames)


def _commits(log: bytes) -> list[int]:
    """
    Return which frames of a write-ahead log end a commit of its present use, counted from 1 (SQLite's file format,
    section 4): the salts of earlier uses are others. Of a damaged one, those of its header or of its first frame.
    """
    frame_bytes = FRAME_BYTES + int.from_bytes(log[8:12])
    if not MIN_PAGE_BYTES <= frame_bytes - FRAME_BYTES <= MAX_PAGE_BYTES:
        return [len(log)]  # the header is damaged: nothing behind it is read
    starts = range(LOG_BYTES, len(log) - frame_bytes + 1, frame_bytes)
    salts = {log[16:24], log[LOG_BYTES + 8 : LOG_BYTES + 16]}
    frames = (log[start : start + FRAME_BYTES] for start in starts)
    return [k for k, frame in enumerate(frames, 1) if frame[8:16] in salts and any(frame[4:8])]


def repair(path: Path) -> tuple[Path, int]:
    """
    Put a new database in the place of the damaged one. Return where the damaged one lies now, and how
    many rows were taken over. OSError, sqlite3.Error: the disk refuses; what was set aside by then stays there.
    """
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d%H%M%S')}{path.suffix}")
    for end in BESIDE[:2]:
        if (file := _beside(path, end)).exists():
            files.write_atomic(_beside(aside, end), file.read_bytes(), durable=True)
    with files.replacing(path, durable=True) as fresh:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as new:
            new.executescript(SCHEMA)
            with closing(sqlite3.connect(path, timeout=10)) as old:
                old.text_factory = lambda data: data.decode("utf-8", "replace")
                new.execute("BEGIN")
                taken = sum(_take_over(old, new, table) for table in COLUMNS)
                new.execute(COUNT_EVENTS)
                new.execute("COMMIT")
        for end in BESIDE[1:]:
            _beside(path, end).unlink(missing_ok=True)
    return aside, taken


def _take_over(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    """Copy what can be read of a table, from both of its ends: a damaged page hides what lies behind it."""
    held = {row[1] for row in _until_damage(old, f"PRAGMA table_info({table})")}
    columns = [column for column in COLUMNS[table] if column in held]
    if not columns:
        return 0
    names, places = ", ".join(columns), ", ".join("?" * len(columns))
    first = ", ".join(columns[:2])
    before = new.total_changes
    for order in (first, ", ".join(f"{column} DESC" for column in columns[:2])):
        for row in _until_damage(old, f"SELECT {names} FROM {table} ORDER BY {order}"):
            with suppress(sqlite3.IntegrityError):  # text in the place of a number
                new.execute(f"INSERT OR IGNORE INTO {table}({names}) VALUES({places})", row)
    return new.total_changes - before


def _until_damage(db: sqlite3.Connection, sql: str) -> Iterator[tuple[object, ...]]:
    try:
        yield from db.execute(sql)
    except FAULTS as exc:
        if not _is_damage(exc):
            raise


def _is_damage(exc: Exception) -> bool:
    code: int = getattr(exc, "sqlite_errorcode", 0)  # the module's own errors have none
    return isinstance(exc, UnicodeDecodeError) or code & 0xFF in DAMAGED


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)
