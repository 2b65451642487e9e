"""
The default queue: one SQLite file, for one machine. Every job and event is on disk before anybody hears of it.

One connection behind one lock: the statements are short, and a condition variable wakes followers at once. Rows written
by another process are seen at the next poll.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from engines.errors import JobCancelled, JobInterrupted, NotFoundError, RequestError, StorageError
from engines.jobs import ENDED, Finished, Job, Lane, lane_of, repair, state_after
from engines.messages import Event, Failed, Request, pack, unpack
from engines.messages.status import Status

POLL_S = 0.5
MAX_ATTEMPTS = 2  # a job during which the program stopped twice is not tried a third time
SCHEMA = """
CREATE TABLE IF NOT EXISTS job(
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
  attempts INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0, ended REAL,
  lane TEXT NOT NULL DEFAULT 'pictures');
CREATE INDEX IF NOT EXISTS job_state ON job(state, number);
CREATE TABLE IF NOT EXISTS event(
  job TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY(job, seq)) WITHOUT ROWID;
"""
JOB = "id, request, state, attempts"
# What a database of the first schema needs: its jobs had no lane. A row may also hold no JSON at all.
ADD_LANE = (
    "ALTER TABLE job ADD COLUMN lane TEXT NOT NULL DEFAULT 'pictures'",
    """UPDATE job SET lane='builds'
       WHERE CASE WHEN json_valid(request) THEN json_extract(request, '$.kind') IN ('build', 'fetch') ELSE 0 END""",
)
WAITING = "SELECT 1 FROM job WHERE state='queued' AND lane=? LIMIT 1"
# One statement selects and claims, so two workers cannot take the same job.
CLAIM = f"""UPDATE job SET state='running', attempts=attempts+1
WHERE number=(SELECT number FROM job WHERE state='queued' AND lane=? ORDER BY number LIMIT 1) RETURNING {JOB}"""
# One statement checks the fencing token and changes the state, so a late attempt cannot overwrite its successor's.
ADVANCE = "UPDATE job SET state=?, ended=? WHERE id=? AND attempts=? AND state='running' RETURNING cancelled"
APPEND = "INSERT INTO event SELECT ?, COALESCE(MAX(seq), 0) + 1, ? FROM event WHERE job=?"
EVENTS = "SELECT seq, body FROM event WHERE job=? AND seq>? ORDER BY seq"
NEWEST = "SELECT body FROM event WHERE job=? ORDER BY seq DESC LIMIT 1"
Row = tuple[Any, ...]


class SqliteQueue:
    def __init__(self, path: Path, folder: Path) -> None:
        """
        Open the database, or make it. One that is damaged is set aside, and `repaired` says where, and how many of its
        rows were taken over. StorageError: it cannot be opened.
        """
        self.folder = folder
        self._changed = threading.Condition(threading.RLock())
        self._status = Status("loading")
        self._retired = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.repaired = repair.repair(path, SCHEMA) if repair.is_damaged(path) else None
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + SCHEMA)
            self._take_over()
        except (OSError, sqlite3.Error) as exc:
            raise StorageError(f"{path}: {exc}", why=str(exc)) from exc

    def _take_over(self) -> None:
        """Bring a database of an earlier version to today's schema. StorageError."""
        with self._transaction() as db:  # who opens it at the same time waits, and then finds the column
            if "lane" not in {row[1] for row in db.execute("PRAGMA table_info(job)")}:
                for statement in ADD_LANE:
                    db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; then everybody who waits looks again. StorageError: the disk refuses."""
        with self._changed:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as exc:
                raise StorageError(f"the queue cannot be written: {exc}", why=str(exc)) from exc
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            self._changed.notify_all()

    def _rows(self, sql: str, *values: object) -> list[Row]:
        with self._changed:
            return self._db.execute(sql, values).fetchall()

    # ---- front doors

    def submit(self, request: Request) -> str:
        job_id = uuid.uuid4().hex
        with self._transaction() as db:
            row = (job_id, pack(request), lane_of(request))
            db.execute("INSERT INTO job(id, request, lane) VALUES(?, ?, ?)", row)
        return job_id

    def follow(self, job_id: str, after: int = 0) -> Iterator[Event]:
        ended = False
        while not ended:
            with self._changed:
                ended = self.job(job_id).state in ENDED  # asked first: what the last event says is then in the rows
                rows = self._rows(EVENTS, job_id, after)
                if not rows and not ended:
                    self._changed.wait(POLL_S)
            for seq, body in rows:
                after = seq
                yield unpack(body)

    def latest(self, job_id: str) -> Event | None:
        rows = self._rows(NEWEST, job_id)
        return unpack(rows[0][0]) if rows else None

    def cancel(self, job_id: str) -> None:
        """A waiting job ends at once; a running one is told at its next event."""
        self.job(job_id)
        with self._transaction() as db:
            db.execute("UPDATE job SET cancelled=1 WHERE id=?", (job_id,))
            waiting = "UPDATE job SET state='cancelled', ended=? WHERE id=? AND state='queued' RETURNING id"
            if db.execute(waiting, (time.time(), job_id)).fetchone():
                db.execute(APPEND, (job_id, pack(Failed(JobCancelled.code, "before it began")), job_id))

    def job(self, job_id: str) -> Job:
        rows = self._rows(f"SELECT {JOB} FROM job WHERE id=?", job_id)
        if not rows:
            raise NotFoundError("job", job_id)
        return _job(rows[0])

    def ahead(self, job_id: str) -> int:
        sql = """SELECT COUNT(*) FROM job WHERE state IN ('queued', 'running')
                  AND lane = (SELECT lane FROM job WHERE id=?1)
                  AND number < (SELECT number FROM job WHERE id=?1 AND state='queued')"""
        count: int = self._rows(sql, job_id)[0][0]
        return count

    def busy(self, lane: Lane = "pictures") -> bool:
        """Whether anything waits or runs there."""
        return bool(self._rows("SELECT 1 FROM job WHERE state IN ('queued', 'running') AND lane=? LIMIT 1", lane))

    def finished(self, limit: int) -> list[Finished]:
        sql = f"""SELECT {JOB}, ended, (SELECT body FROM event WHERE job=id ORDER BY seq DESC LIMIT 1)
                  FROM job WHERE state='done' AND lane='pictures' ORDER BY ended DESC, number DESC LIMIT ?"""
        return [Finished(_job(row[:4]), unpack(row[5]), row[4]) for row in self._rows(sql, limit)]

    # ---- workers

    def claim(self, wait_s: float = 0.0, lane: Lane = "pictures") -> Job | None:
        """Take the lane's oldest waiting job, waiting for one if there is none. After `retire` there is none."""
        with self._changed:  # held from looking to waiting, so that no submission falls in between
            job = self._take(lane)
            if job is None and self._changed.wait(wait_s):
                job = self._take(lane)
        return job

    def _take(self, lane: Lane) -> Job | None:
        """One that cannot be read, of another version say, is failed and passed over."""
        # Looked at before it is taken: a transaction wakes all who wait, so two idle workers would never rest.
        while not self._retired and self._rows(WAITING, lane):
            with self._transaction() as db:
                row = db.execute(CLAIM, (lane,)).fetchone()
            if row is None:
                break
            try:
                return _job(row)
            except RequestError as exc:
                self._end(row[0], Failed(exc.code, str(exc)))
        return None

    def retire(self) -> None:
        """Hand out no more jobs; what is submitted waits for the next start."""
        with self._changed:
            self._retired = True
            self._changed.notify_all()

    def publish(self, job: Job, event: Event) -> bool:
        state = state_after(event)
        ended = time.time() if state in ENDED else None
        with self._transaction() as db:
            row = db.execute(ADVANCE, (state, ended, job.id, job.attempts)).fetchone()
            if row:
                db.execute(APPEND, (job.id, pack(event), job.id))
        return cast(tuple[int] | None, row) == (0,)

    def recover(self) -> None:
        """At the start of the only worker: what was left running waits again, or fails if that happened twice."""
        for job_id, attempts in self._rows("SELECT id, attempts FROM job WHERE state='running'"):
            if attempts >= MAX_ATTEMPTS:
                self._end(job_id, Failed(JobInterrupted.code, "the program stopped twice during this job"))
                continue
            with self._transaction() as db:
                db.execute("UPDATE job SET state='queued' WHERE id=?", (job_id,))

    def _end(self, job_id: str, failed: Failed) -> None:
        with self._transaction() as db:
            db.execute("UPDATE job SET state='failed', ended=? WHERE id=?", (time.time(), job_id))
            db.execute(APPEND, (job_id, pack(failed), job_id))

    def announce(self, status: Status) -> None:
        with self._changed:
            self._status = status
            self._changed.notify_all()

    def status(self) -> Status:
        return self._status

    def close(self) -> None:
        with self._changed:
            self._db.close()


def _job(row: Row) -> Job:
    """RequestError: the row holds no request of ours."""
    return Job(row[0], unpack(row[1]), row[2], row[3])
