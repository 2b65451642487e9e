"""
Pictures that go: those that people delete, for good after a while, and those for which there is no room. What another
job counts on stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from engines.errors import RequestError
from engines.jobs import Deletable, leftovers
from engines.jobs.database import Row
from engines.jobs.finished import FinishedJobs, images_of
from engines.jobs.statements import (
    DELETE,
    DELETED_OF,
    DONE_ENDS,
    ERASE,
    FORGET,
    HAND_OVER,
    KEPT_ENDS,
    LAPSED,
    OTHER_ENDS,
    STAYING_ENDS,
    TRASH,
    TRASH_NAMES,
    UNDELETE,
    UNFINISHED,
    UNFINISHED_EVENTS,
)
from engines.messages import Develop, Request, unpack


class Deletions(FinishedJobs):
    def delete(self, job_ids: Sequence[str], owner: str, now_s: float) -> list[str]:
        return self._change(DELETE, [(now_s, job_id, owner) for job_id in job_ids])

    def undelete(self, job_ids: Sequence[str], owner: str) -> list[str]:
        return self._change(UNDELETE, [(job_id, owner) for job_id in job_ids])

    def deleted_since(self, owner: str, since_s: float) -> list[tuple[str, float]]:
        return self._rows(DELETED_OF, owner, since_s)

    def hand_over(self, job_ids: Sequence[str], owner: str, to: str) -> list[str]:
        return self._change(HAND_OVER, [(to, job_id, owner) for job_id in job_ids])

    def erase(self, owner: str) -> list[Request]:
        with self._transaction() as db:
            rows = db.execute(ERASE, (time.time(), owner)).fetchall()
        return list(_requests(rows))

    def lapsed(self, prefix: str, before_s: float) -> list[str]:
        return [owner for (owner,) in self._rows(LAPSED, prefix, before_s)]

    def is_deleted(self, picture: str) -> bool:
        if not self._rows(TRASH_NAMES, picture):  # almost always: few jobs wait for their end
            return False
        return not any(picture in images_of(body) for (body,) in self._rows(DONE_ENDS))

    def purge(self, before_s: float) -> int:
        """
        The files first, and the rows when they are gone: what a stop or a disk breaks off is done by the next call.
        """
        with self._changed:  # one moment for all
            going: dict[str, set[str]] = {}
            for job_id, body in self._rows(TRASH, before_s):
                going.setdefault(job_id, set()).update(images_of(body or ""))
            if not going:
                return 0
            waited_for = set(self._waited_for())
            others = {name for (body,) in self._rows(STAYING_ENDS, before_s) for name in images_of(body)}
            going = {job_id: names - others for job_id, names in going.items() if not names & waited_for}
            names = set().union(*going.values())
            leftovers.delete_pictures(self.folder, names)
            gone = [(job_id,) for job_id, names in going.items() if not any(map(self.is_there, names))]
            with self._transaction() as db:
                for statement in FORGET:
                    db.executemany(statement, gone)
        return len(gone)

    def deletable(self) -> list[Deletable]:
        with self._changed:  # one moment for all three
            rows, needed = self._rows(OTHER_ENDS), set(self._needed())
        jobs: list[Deletable] = []
        for job_id, owner, body in rows:  # newest first: a photo that is restored again has its earlier picture
            pictures = tuple(name for name in images_of(body) if name not in needed)
            needed.update(pictures)
            if pictures:
                jobs.append(Deletable(job_id, owner, pictures))
        return jobs[::-1]

    def _needed(self) -> Iterator[str]:
        """Yield the pictures of the album, favourites, and those that jobs count on which have not ended."""
        for (body,) in self._rows(KEPT_ENDS):
            yield from images_of(body)
        yield from self._waited_for()

    def _waited_for(self) -> Iterator[str]:
        """Yield the pictures that jobs count on which have not ended."""
        for (body,) in self._rows(UNFINISHED_EVENTS):
            yield from images_of(body)
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


def _requests(rows: Sequence[Row]) -> Iterator[Request]:
    for (request,) in rows:
        with suppress(RequestError):  # of another version
            yield unpack(request)
