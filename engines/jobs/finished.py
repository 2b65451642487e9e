"""Jobs that are over, and their pictures: whose they are, which of them everybody may see, and which may be deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from engines.errors import NotFoundError, RequestError
from engines.jobs import Deletable, Finished, Job, leftovers
from engines.jobs.database import Database
from engines.jobs.statements import ALBUM_ENDS, JOB, LAST, UNFINISHED, UNFINISHED_EVENTS, UNSHARED_ENDS, job_of
from engines.messages import Develop, Final, Preview, unpack


class FinishedJobs(Database):
    def __init__(self, path: Path, folder: Path, repairing: bool = True) -> None:
        """`folder`: where pictures are. The others, and StorageError, as Database says."""
        super().__init__(path, repairing)
        self.folder = folder

    def job(self, job_id: str) -> Job:
        rows = self._rows(f"SELECT {JOB} FROM job WHERE id=?", job_id)
        if not rows:
            raise NotFoundError("job", job_id)
        return job_of(rows[0])

    def finished(self, limit: int, owner: str | None = None) -> list[Finished]:
        return self._finished("1", limit) if owner is None else self._finished("owner=?", limit, owner)

    def album(self, limit: int) -> list[Finished]:
        return self._finished("shared", limit)

    def _finished(self, which: str, limit: int, *values: str) -> list[Finished]:
        """`which`: a condition in SQL, of a row and the values."""
        sql = f"""SELECT {JOB}, ({LAST}), shared FROM job
                  WHERE state='done' AND lane='pictures' AND {which} ORDER BY ended DESC, number DESC LIMIT ?"""
        return [
            Finished(job_of(row), unpack(last), bool(shared)) for *row, last, shared in self._rows(sql, *values, limit)
        ]

    def share(self, job_id: str, shared: bool) -> None:
        self.job(job_id)
        with self._transaction() as db:
            db.execute("UPDATE job SET shared=? WHERE id=?", (shared, job_id))

    def deletable(self) -> list[Deletable]:
        with self._changed:  # one moment for all three
            rows, needed = self._rows(UNSHARED_ENDS), set(self._needed())
        jobs: list[Deletable] = []
        for job_id, owner, body in rows:  # newest first: a photo that is restored again has its earlier picture
            pictures = tuple(name for name in _images(body) if name not in needed)
            needed.update(pictures)
            if pictures:
                jobs.append(Deletable(job_id, owner, pictures))
        return jobs[::-1]

    def _needed(self) -> Iterator[str]:
        """Yield the pictures of the album, and those that jobs count on which have not ended."""
        for (body,) in [*self._rows(ALBUM_ENDS), *self._rows(UNFINISHED_EVENTS)]:
            yield from _images(body)
        for (request,) in self._rows(UNFINISHED):
            with suppress(RequestError):
                if isinstance(asked := unpack(request), Develop):
                    yield asked.image
        for (pictures,) in self._rows("SELECT pictures FROM snapshot"):
            yield from json.loads(pictures)

    def delete_pictures(self, jobs: Sequence[Deletable]) -> list[Deletable]:
        with self._changed:  # nobody puts them into the album in between
            may_go = set(self.deletable())
            going = [job for job in jobs if job in may_go]
            leftovers.delete_pictures(self.folder, [name for job in going for name in job.pictures])
        return going


def _images(body: str) -> tuple[str, ...]:
    """Return the pictures that an event names; none: it cannot be read."""
    with suppress(RequestError):
        match unpack(body):
            case Final(images=images):
                return images
            case Preview(image=image):
                return (image,)
    return ()
