"""The default queue: one SQLite file, for one machine. Every job and event is on disk before anybody hears of it."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engines.errors import (
    JobCancelled,
    JobInterrupted,
    JobPostponed,
    NotFoundError,
    QueueFull,
    RequestError,
)
from engines.jobs import ENDED, Estimate, Job, Lane, Place, Priority, lane_of, leftovers, state_after
from engines.jobs.crew import CrewJobs
from engines.jobs.line import Board, Line
from engines.jobs.plan import HOME, UNPLANNED
from engines.jobs.quiet import NEVER_QUIET, QuietHours
from engines.jobs.statements import (
    ADVANCE,
    CLAIM,
    COUNT_PASSED,
    EVENTS,
    FORGET_SNAPSHOT,
    GOT_FURTHER,
    JOB,
    KEEP,
    LANE,
    LEFT_RUNNING,
    LIKE_IT,
    NAMED,
    NEWEST,
    PAUSE,
    UNFINISHED,
    UNGIVEN,
    WAITING,
    append,
    job_of,
)
from engines.messages import Event, Failed, Request, pack, unpack

POLL_S = 0.5
STOPPING, RESTART_S = "the program is being stopped", 30  # until it may have started again
UNKNOWN_S = 10.0  # until somebody who finds no room asks again, while nobody knows when there will be some
MAX_ATTEMPTS = 2  # a job during which the program stopped twice is not tried a third time


class SqliteQueue(CrewJobs):
    def __init__(
        self,
        path: Path,
        folder: Path,
        limit: float = math.inf,
        repairing: bool = True,
        quiet: QuietHours = NEVER_QUIET,
        pause_s: float = 0.0,
    ) -> None:
        """
        `folder`: where pictures go. `limit`: most jobs of a lane that have not ended. `quiet`: when no batch begins.
        `pause_s`: how long a worker rests after each picture, which those that wait are told of. The others, and
        StorageError, as Database says.
        """
        super().__init__(path, folder, repairing)
        self.limit, self.quiet = limit, quiet
        pauses: dict[Lane, float] = {"pictures": pause_s, "builds": 0.0}
        self._lines = {lane: Line(lane, self._rows, self._version, quiet, s) for lane, s in pauses.items()}
        self._retired = self._released = False

    # ---- front doors

    def submit(self, request: Request, owner: str = "") -> str:
        return self.submit_all([request], owner)[0]

    def submit_all(self, requests: Sequence[Request], owner: str = "", priority: Priority = "interactive") -> list[str]:
        worker = UNPLANNED if self._crew.is_shared else HOME
        rows = [
            (uuid.uuid4().hex, owner, pack(request), lane, priority, worker if lane == "pictures" else HOME)
            for request, lane in ((request, lane_of(request)) for request in requests)
        ]
        lanes = Counter(map(lane_of, requests))
        self._check_room(lanes)  # those who find none, a crowd perhaps, do not wait for the disk
        with self._transaction() as db:
            self._check_room(lanes)
            db.executemany("INSERT INTO job(id, owner, request, lane, priority, worker) VALUES(?, ?, ?, ?, ?, ?)", rows)
        return [job_id for job_id, *_ in rows]

    def _check_room(self, lanes: Mapping[Lane, int]) -> None:
        for lane, count in lanes.items():
            if (over := self._count(lane) + count - self.limit) > 0:
                with self._changed:
                    room_s = self._board(lane).next_end_s(int(min(over, self.limit)))
                raise QueueFull(self.limit, UNKNOWN_S if room_s is None else room_s)

    def _count(self, lane: Lane) -> int:
        count: int = self._rows("SELECT COUNT(*) FROM job WHERE state IN ('queued', 'running') AND lane=?", lane)[0][0]
        return count

    def _board(self, lane: Lane) -> Board:
        return self._lines[lane].board(self._crew)

    def since(self, job_id: str, after: int) -> tuple[list[tuple[int, Event]], bool]:
        with self._changed:
            ended = self.job(job_id).state in ENDED  # asked first: what the last event says is then in the rows
            rows = self._rows(EVENTS, job_id, after)
        if self._released and not rows and not ended:
            raise JobPostponed(STOPPING, retry_s=RESTART_S)
        return [(number, unpack(body)) for number, body in rows], ended

    def follow(self, job_id: str, after: int = 0) -> Iterator[Event]:
        ended = False
        while not ended:
            with self._changed:
                events, ended = self.since(job_id, after)
                if not events and not ended:
                    self._changed.wait(POLL_S)
            for number, event in events:
                after = number
                yield event

    def latest(self, job_id: str) -> Event | None:
        rows = self._rows(NEWEST, job_id, 1)
        return unpack(rows[0][0]) if rows else None

    def cancel(self, job_id: str) -> None:
        """A waiting job ends at once; a running one is told at its next event."""
        self.job(job_id)
        with self._transaction(job_id) as db:
            db.execute("UPDATE job SET cancelled=1 WHERE id=?", (job_id,))
            waiting = "UPDATE job SET state='cancelled', ended=? WHERE id=? AND state='queued' RETURNING id"
            if db.execute(waiting, (time.time(), job_id)).fetchone():
                append(db, job_id, Failed(JobCancelled.code, "before it began"))
                db.execute(FORGET_SNAPSHOT, (job_id,))  # of an attempt that a restart broke off

    def place(self, job_id: str) -> Place:
        if self._released:
            raise JobPostponed(STOPPING, retry_s=RESTART_S)
        with self._changed:
            rows = self._rows("SELECT lane FROM job WHERE id=?", job_id)
            if not rows:
                raise NotFoundError("job", job_id)
            return self._board(rows[0][0]).place(job_id, time.time())

    def expected(self, request: Request) -> Estimate | None:
        with self._changed:
            return self._lines[lane_of(request)].expected(request, self._crew)

    def busy(self, lane: Lane = "pictures") -> bool:
        return self._count(lane) > 0

    def running(self, lane: Lane = "pictures") -> tuple[str, int] | None:
        """What the home's worker works on there: the job, and the number of its latest event."""
        rows = self._rows("SELECT id, last_event FROM job WHERE state='running' AND lane=? AND worker=?", lane, HOME)
        return rows[0] if rows else None

    def move_first(self, job_id: str) -> None:
        self.job(job_id)
        with self._transaction(job_id) as db:
            rows = db.execute(LIKE_IT, (job_id,)).fetchall()
            order = sorted(rows, key=lambda row: row[1] != job_id)  # a stable sort: the others stay as they are
            moved = [(number, name) for (number, _), (_, name) in zip(rows, order, strict=True)]
            db.executemany("UPDATE job SET number=-? WHERE id=?", moved)  # aside first: no two may have one number
            db.execute("UPDATE job SET number=-number WHERE number<0")

    def pause(self) -> None:
        self._set_paused(True)

    def resume(self) -> None:
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        with self._transaction() as db:
            db.execute(PAUSE, ("pictures", paused))

    def is_paused(self) -> bool:
        return any(paused for _, paused in self._rows(LANE, "pictures"))

    def unfinished(self) -> list[Request]:
        requests: list[Request] = []
        for (text,) in self._rows(UNFINISHED):
            with suppress(RequestError):
                requests.append(unpack(text))
        return requests

    def latest_of(self, owner: str, limit: int) -> list[Job]:
        jobs: list[Job] = []
        for row in self._rows(
            f"SELECT {JOB} FROM job WHERE owner=? AND deleted IS NULL ORDER BY number DESC LIMIT ?", owner, limit
        ):
            with suppress(RequestError):
                jobs.append(job_of(row))
        return jobs

    # ---- workers

    def claim(self, wait_s: float = 0.0, lane: Lane = "pictures", worker: str = HOME) -> Job | None:
        """
        Take the job whose turn it is at a worker, waiting for one if there is none. After `retire` or `pause` there is
        none.
        """
        with self._changed:  # held from looking to waiting, so that no submission falls in between
            job = self._take(lane, worker)
            if job is None and self._changed.wait(wait_s):
                job = self._take(lane, worker)
        return job

    def _take(self, lane: Lane, worker: str) -> Job | None:
        """One that cannot be read, of another version say, is failed and passed over."""
        # Looked at before it is taken: a transaction wakes all who wait, so two idle workers would never rest.
        while not self._retired and self._rows(WAITING, self.is_quiet(), lane, worker):
            with self._transaction() as db:
                row = db.execute(CLAIM, (self.is_quiet(), lane, worker, time.time())).fetchone()
                if row is None:
                    break
                db.execute(COUNT_PASSED, (row[0],))
            try:
                return job_of(row)
            except RequestError as exc:
                self._end(row[0], Failed(exc.code, str(exc)))
        return None

    def is_quiet(self) -> bool:
        """Whether what nobody waits for should wait."""
        return self.quiet.left_s(time.time()) > 0

    def retire(self) -> None:
        """Hand out no more jobs: what waits, and what is submitted, is done after the next start."""
        with self._changed:
            self._retired = True
            self._changed.notify_all()

    def publish(self, job: Job, *events: Event) -> bool:
        goes_on = False
        with self._transaction(job.id) as db:
            for event in events:
                state = state_after(event)
                ended = time.time() if state in ENDED else None
                row = db.execute(ADVANCE, (state, ended, job.id, job.attempts)).fetchone()
                goes_on = row == (0,)
                if row:
                    append(db, job.id, event)
                if row and ended:
                    db.execute(FORGET_SNAPSHOT, (job.id,))
        return goes_on

    def save_snapshot(self, job: Job, body: bytes, pictures: Sequence[str]) -> None:
        with self._transaction() as db:
            db.execute(KEEP, (json.dumps(list(pictures)), body, job.id, job.attempts))
            db.execute(GOT_FURTHER, (job.id, job.attempts))

    def snapshot(self, job: Job) -> bytes | None:
        rows = self._rows("SELECT body FROM snapshot WHERE job=?", job.id)
        return bytes(rows[0][0]) if rows else None

    def release(self) -> None:
        """
        At the stop of the home's worker: what still runs waits for the next start, and the attempt is not counted. Who
        follows a job that has not ended is told so.
        """
        self._released = True  # first: a disk that refuses keeps nobody waiting
        try:
            with self._transaction() as db:
                db.execute("UPDATE job SET state='queued', stops=stops+1 WHERE state='running' AND worker=?", (HOME,))
        finally:
            self._wake_all()

    def recover(self, why: str = "the program was killed") -> None:
        """
        Before the home's worker starts: what was left running, or put back, waits again and goes on from its latest
        snapshot, or fails if its worker has died twice in its middle, the last time for this reason. What was told of
        it is forgotten, with the pictures on which the snapshot does not count.
        """
        leftovers.delete_half_written(self.folder)
        for job_id, crashes, begun in self._rows(LEFT_RUNNING, HOME):
            # Of an earlier version, or with events that are lost, nothing is certain.
            if begun and not self.repaired and not self.lost_commits:
                leftovers.delete_unnamed(self.folder, begun, self._is_named)
            if crashes >= MAX_ATTEMPTS:
                self._end(job_id, Failed(JobInterrupted.code, f"the second time: {why}", {"why": why}))
                continue
            with self._transaction() as db:
                db.execute("UPDATE job SET state='queued' WHERE id=?", (job_id,))
        with self._transaction() as db:
            worker = UNPLANNED if self._crew.is_shared else HOME
            db.execute("UPDATE job SET worker=? WHERE state='queued' AND lane='pictures'", (worker,))
        for (job_id,) in self._rows("SELECT id FROM job WHERE state='queued' AND attempts>0"):
            self._forget_events(job_id)

    def _is_named(self, picture: str) -> bool:
        return any(name.startswith(picture) for name in tuple(self.arriving)) or bool(self._rows(NAMED, f"%{picture}%"))

    def awaited(self) -> set[str]:
        """Return the machines that are away and alone can do something that waits, and need not wait for more."""
        with self._changed:
            return self._board("pictures").awaited()

    def give_out(self) -> None:
        """Give each job that waits to whom it will be finished by first. StorageError."""
        with self._changed:
            if self._crew.is_shared or self._rows(UNGIVEN, HOME):
                self.give({job_id: turn.worker for job_id, turn in self._board("pictures").waits.items()})
