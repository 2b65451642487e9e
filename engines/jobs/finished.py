"""Jobs that are over, and their pictures: whose they are, which are looked for, and which of them everybody may see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from engines.errors import NotFoundError, RequestError
from engines.files import parse_json
from engines.jobs import Finished, Job, Page, Position, Search
from engines.jobs.database import Database, Row
from engines.jobs.search import LATEST, page
from engines.jobs.statements import BEFORE, BUNDLES, DONE, FAVOUR, FINISHED, FINISHED_JOB, JOB, job_of
from engines.messages import unpack

MOST_ROWS = 2000  # that are asked for at a time


class FinishedJobs(Database):
    def __init__(self, path: Path, folder: Path, repairing: bool = True) -> None:
        """`folder`: where pictures are. The others, and StorageError, as Database says."""
        super().__init__(path, repairing)
        self.folder = folder

    def job(self, job_id: str) -> Job:
        rows = self._rows(f"SELECT {JOB} FROM job WHERE id=? AND deleted IS NULL", job_id)
        if not rows:
            raise NotFoundError("job", job_id)
        return job_of(rows[0])

    def finished(self, limit: int, owner: str | None = None) -> list[Finished]:
        which, values = ("1", ()) if owner is None else ("owner=?", (owner,))
        sql = f"SELECT {FINISHED} FROM job WHERE {DONE} AND {which} ORDER BY ended DESC, number DESC LIMIT ?"
        return [_finished(row) for row in self._rows(sql, *values, limit)]

    def page(self, search: Search, limit: int, after: Position | None = None) -> Page:
        jobs = list(islice(self._there(search, limit + 1, after or LATEST), limit + 1))
        return Page(tuple(jobs[:limit]), len(jobs) > limit)

    def finished_jobs(self, job_ids: Sequence[str], owner: str) -> list[Finished]:
        with self._changed:
            rows = [row for job_id in job_ids for row in self._rows(FINISHED_JOB, job_id, owner)]
        return list(self._with_pictures(rows))

    def is_there(self, picture: str) -> bool:
        return (self.folder / picture).is_file()

    def _there(self, search: Search, limit: int, after: Position) -> Iterator[Finished]:
        """Yield what is meant and there. Of more and more rows at a time: there may be thousands without a picture."""
        rows: list[Row] = []
        while True:
            statement, values = page(search, after, limit)
            rows = self._rows(statement, *values)
            yield from self._with_pictures(rows)
            if len(rows) < limit:
                return
            after, limit = (rows[-1][5], rows[-1][-1]), min(4 * limit, MOST_ROWS)

    def _with_pictures(self, rows: Sequence[Row]) -> Iterator[Finished]:
        for row in rows:
            if left := tuple(name for name in images_of(row[-4]) if self.is_there(name)):
                with suppress(RequestError):  # of another version
                    finished = _finished(row)
                    yield replace(finished, final=replace(finished.final, images=left))

    def bundles_of(self, owner: str) -> list[str]:
        return [name for (name,) in self._rows(BUNDLES, owner) if name]

    def favour(self, job_ids: Sequence[str], owner: str, favourite: bool) -> list[str]:
        return self._change(FAVOUR, [(favourite, job_id, owner) for job_id in job_ids])

    def _change(self, statement: str, values: Sequence[tuple[object, ...]]) -> list[str]:
        """Return the jobs that the statement has changed, for any of the values, in one transaction."""
        with self._transaction() as db:
            rows = [row for asked in values for row in db.execute(statement, asked).fetchall()]
        return [job_id for (job_id,) in rows]

    def before(self, job_id: str) -> str:
        names = (name for (body,) in self._rows(BEFORE, job_id) for name in images_of(body))
        return next(filter(self.is_there, names), "")

    def share(self, job_id: str, shared: bool) -> None:
        self.job(job_id)
        with self._transaction() as db:
            db.execute("UPDATE job SET shared=? WHERE id=?", (shared, job_id))


def _finished(row: Row) -> Finished:
    """RequestError: the row holds no request of ours, or no end."""
    *job, last, shared, favourite, number = row
    return Finished(job_of(job), unpack(last), bool(shared), bool(favourite), (row[5], number))


def images_of(body: str) -> tuple[str, ...]:
    """Return the pictures that an event names; none: it cannot be read. It is fast: they are asked of thousands."""
    with suppress(ValueError, AttributeError, TypeError):
        match parse_json(body):
            case {"kind": "final", "images": [*images]}:
                return tuple(map(str, images))
            case {"kind": "preview", "image": str(image)}:
                return (image,)
    return ()
