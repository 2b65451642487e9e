"""
The jobs of a queue by whose they are, where several workers do them: the home's, beside the server, and those on other
machines. Whose a job that waits is, may change; whose one is that runs, may not, until it is taken back.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engines.errors import JobInterrupted, NotFoundError, RequestError
from engines.jobs import lane_of, leftovers
from engines.jobs.deletion import Deletions
from engines.jobs.line import Crew
from engines.jobs.plan import HOME, UNPLANNED
from engines.jobs.statements import EVENTS, FORGET_SNAPSHOT, GIVE, GIVEN_AWAY, RUNNING_ELSEWHERE, TAKE_BACK, append
from engines.messages import Failed, Preview, Request, pack, unpack
from engines.messages.status import Status

MOST_LOSSES = 3  # machines in a row that one job may have ended, before it is not given to another
LOST = "each machine that did it was heard no more"


class CrewJobs(Deletions):
    def __init__(self, path: Path, folder: Path, repairing: bool = True) -> None:
        super().__init__(path, folder, repairing)
        self._crew = Crew({HOME: Status("loading")})
        self._status = self._crew.here[HOME]
        self.arriving: dict[str, str] = {}  # pictures of which no event is stored yet, and the jobs that they are of

    def announce(self, status: Status) -> None:
        status = replace(status, hurdle=self._status.hurdle)  # of which the home's worker knows nothing
        self._set_crew(Crew({**self._crew.here, HOME: status}, self._crew.away))

    def status(self) -> Status:
        """Return how the home's worker is, with the bundles of other machines that it does not have itself."""
        return self._status

    def workers(self) -> Mapping[str, Status]:
        return {name: status for name, status in self._crew.here.items() if name != HOME}

    def be_joined(self, here: Mapping[str, Status], away: Mapping[str, Status], hurdle: str = "") -> None:
        """
        Hear which workers there are beside the home's, how each is, and which have been here and are not. `hurdle`: why
        some cannot be given anything at the moment.
        """
        home = self._crew.here[HOME]
        self._set_crew(Crew({HOME: home if home.hurdle == hurdle else replace(home, hurdle=hurdle), **here}, away))

    def _set_crew(self, crew: Crew) -> None:
        home = crew.here[HOME]
        bundles = {bundle.name: bundle for bundle in home.bundles}
        for name, status in ({**crew.away, **crew.here} if crew.is_shared else {}).items():
            for bundle in status.bundles if name != HOME else ():
                if bundle.engine and bundle.digest:
                    bundles.setdefault(bundle.name, replace(bundle, at=name))
        with self._changed:
            self._crew = crew
            self._status = replace(home, bundles=tuple(bundles.values())) if crew.is_shared else home
            self._changed.notify_all()

    def wait_for_change(self, wait_s: float) -> None:
        """Wait until anything may have changed, so long at most."""
        with self._changed:
            self._changed.wait(wait_s)

    def submit_begun(self, request: Request, owner: str, body: bytes, pictures: Sequence[str]) -> str:
        """Take what another machine has begun: this snapshot, which counts on these pictures; none: it has not."""
        row = (job_id := uuid.uuid4().hex), owner, pack(request), lane_of(request)
        with self._transaction() as db:
            db.execute("INSERT INTO job(id, owner, request, lane) VALUES(?, ?, ?, ?)", row)
            if body:
                db.execute("INSERT INTO snapshot VALUES(?, ?, ?)", (job_id, json.dumps(list(pictures)), body))
        return job_id

    def owners(self, prefix: str) -> list[str]:
        """Return those so called who have jobs that were not erased."""
        sql = "SELECT DISTINCT owner FROM job WHERE owner>=?1 AND owner<?1 || char(1114111) AND deleted IS NULL"
        return [owner for (owner,) in self._rows(sql, prefix)]

    def worker_of(self, job_id: str) -> str:
        """Return whose a job is; NotFoundError: there is no such job."""
        for (worker,) in self._rows("SELECT worker FROM job WHERE id=?", job_id):
            return str(worker)
        raise NotFoundError("job", job_id)

    def cancelled_of(self, worker: str) -> list[str]:
        """Return what a worker does that shall end."""
        sql = "SELECT id FROM job WHERE state='running' AND worker=? AND cancelled"
        return [job_id for (job_id,) in self._rows(sql, worker)]

    def counted(self, job_id: str) -> list[str]:
        """Return the pictures on which a job's snapshot counts."""
        rows = self._rows("SELECT pictures FROM snapshot WHERE job=?", job_id)
        return [str(name) for (names,) in rows for name in json.loads(names)]

    def is_of(self, job_id: str, picture: str) -> bool:
        """Return whether a picture has come with a job."""
        if self.arriving.get(picture) == job_id:
            return True
        sql = "SELECT 1 FROM event WHERE job=? AND instr(body, ?) LIMIT 1"
        return picture in self.counted(job_id) or bool(self._rows(sql, job_id, json.dumps(picture)))

    def given_away(self) -> set[str]:
        """Return the workers beside the home's that have, or were given, jobs which have not ended."""
        return {worker for (worker,) in self._rows(GIVEN_AWAY, HOME, UNPLANNED)}

    def give(self, workers: Mapping[str, str]) -> None:
        """Give each of these jobs, if it waits, to a worker. StorageError."""
        whose: dict[str, str] = dict(self._rows("SELECT id, worker FROM job WHERE state='queued' AND lane='pictures'"))
        moved = [(worker, job_id) for job_id, worker in workers.items() if whose.get(job_id, worker) != worker]
        if moved:
            with self._transaction() as db:
                db.executemany(GIVE, moved)

    def do_alone(self) -> None:
        """Let home do what waits, as if it had never had help. StorageError."""
        self.be_joined({}, {})
        with self._transaction() as db:
            db.execute("UPDATE job SET worker=? WHERE state='queued'", (HOME,))

    def running_elsewhere(self) -> list[tuple[str, str, int]]:
        """Return what other workers than the home's have begun: each job, whose it is, and the attempt."""
        return self._rows(RUNNING_ELSEWHERE, HOME)

    def take_all_back(self, worker: str, lost: bool = False) -> None:
        """Let what a worker has begun, or was given, wait for another. `lost`: as take_back has it. StorageError."""
        begun = [job_id for job_id, whose, _ in self.running_elsewhere() if whose == worker]
        self.take_back(begun, worker, lost)
        with self._transaction() as db:
            db.execute("UPDATE job SET worker=? WHERE state='queued' AND worker=?", (UNPLANNED, worker))

    def take_back(self, jobs: Iterable[str], worker: str, lost: bool = False) -> None:
        """
        Let these jobs, which a worker has begun, wait for another, which goes on from their snapshots. What was told of
        them is forgotten, and the attempt is not counted: it was not the job that ended it. `lost`: perhaps it was, as
        the worker ended without a word; a job of which MOST_LOSSES were lost, without a snapshot in between, fails.
        StorageError.
        """
        for job_id in jobs:
            with self._transaction() as db:
                losses = db.execute(TAKE_BACK, (lost, UNPLANNED, worker, job_id)).fetchone()
            if losses:
                self._forget_events(job_id)
            if losses and losses[0] >= MOST_LOSSES:
                self._end(job_id, Failed(JobInterrupted.code, LOST, {"why": LOST}))

    def _end(self, job_id: str, failed: Failed) -> None:
        with self._transaction(job_id) as db:
            db.execute("UPDATE job SET state='failed', ended=? WHERE id=?", (time.time(), job_id))
            append(db, job_id, failed)
            db.execute(FORGET_SNAPSHOT, (job_id,))

    def _forget_events(self, job_id: str) -> None:
        """With the pictures that they named, or would have, but those on which the snapshot counts."""
        counted = self.counted(job_id)
        for _, body in self._rows(EVENTS, job_id, 0):
            with suppress(RequestError):  # of another version
                if isinstance(event := unpack(body), Preview) and event.image not in counted:
                    leftovers.delete_picture(self.folder, event.image)
        for picture in [picture for picture, job in tuple(self.arriving.items()) if job == job_id]:
            leftovers.delete_picture(self.folder, picture)
            self.arriving.pop(picture, None)
        with self._transaction(job_id) as db:
            db.execute("DELETE FROM event WHERE job=?", (job_id,))
