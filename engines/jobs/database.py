"""
An SQLite database that several threads and processes share: whole transactions, and word of them to all who wait. What
its tables mean, its queue knows.

One connection behind one lock: the statements are short, and a condition variable wakes those who wait at once. Rows
that another process has written are seen when it says so, or at the next poll.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.errors import DatabaseDamaged, StorageError
from engines.jobs import repair, schema

Row = tuple[Any, ...]
PRIMARY = 0xFF  # of an SQLite error: the rest says more of the same
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """
    `report` is called with the name of each job that was changed here, empty for any, so that another process may be
    told to `wake`.
    """

    def __init__(self, path: Path, repairing: bool = True) -> None:
        """
        Open it, or make it. One that is damaged is set aside, if `repairing`, and `repaired` says where, and how many
        of its rows were taken over; where a part of its log is, `lost_commits`. StorageError: it cannot be opened.
        """
        self.report: Callable[[str], None] = lambda job_id: None
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._listening = threading.Lock()  # of its own: who begins to listen does not wait for the disk
        self._changed = threading.Condition(threading.RLock())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.lost_commits = repairing and repair.loses_commits(path)
            self.repaired = repair.repair(path) if repairing and repair.is_damaged(path) else None
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as exc:
            raise StorageError(f"{path}: {exc}", why=str(exc)) from exc
        try:
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + schema.SCHEMA)
            self._take_over()
        except StorageError:
            self._db.close()
            raise
        except sqlite3.Error as exc:
            self._db.close()
            raise StorageError(f"{path}: {exc}", why=str(exc)) from exc

    def _take_over(self) -> None:
        """Bring a database of an earlier version to today's schema. StorageError."""
        with self._transaction() as db:  # who opens it at the same time waits, and then finds the columns
            schema.upgrade(db)

    @contextmanager
    def _transaction(self, job_id: str = "") -> Iterator[sqlite3.Connection]:
        """
        All of it or nothing; then everybody who waits looks again, and who listens to the job is called. StorageError:
        the disk refuses.
        """
        with self._changed:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as exc:
                raise _refusal(exc, "written") from exc
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        self.wake(job_id)
        self.report(job_id)

    def wake(self, job_id: str) -> None:
        """Have those look again who wait, and who listen to the job: it was changed here, or by another process."""
        with self._changed:
            self._changed.notify_all()
        with self._listening:
            for call in self._listeners.get(job_id, ()):
                call()

    def _wake_all(self) -> None:
        """Wake those who listen to any job as well."""
        for job_id in tuple(self._listeners):
            self.wake(job_id)

    def _rows(self, sql: str, *values: object) -> list[Row]:
        """StorageError: the disk refuses, or it is damaged."""
        with self._changed:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise _refusal(exc, "read") from exc

    def _version(self) -> object:
        """Return what changes whenever anything in the file does, by whichever connection. StorageError."""
        with self._changed:
            return self._db.total_changes, self._rows("PRAGMA data_version")

    @contextmanager
    def listening(self, job_id: str, call: Callable[[], None]) -> Iterator[None]:
        with self._listening:
            self._listeners.setdefault(job_id, []).append(call)
        try:
            yield
        finally:
            with self._listening:
                self._listeners[job_id].remove(call)
                if not self._listeners[job_id]:
                    del self._listeners[job_id]

    def close(self) -> None:
        with self._changed:
            self._db.close()


def _refusal(exc: sqlite3.Error, done: str) -> StorageError:
    """`done`: what cannot be done with it."""
    kind = DatabaseDamaged if getattr(exc, "sqlite_errorcode", 0) & PRIMARY in DAMAGE else StorageError
    return kind(f"the queue cannot be {done}: {exc}", why=str(exc))
