"""
The jobs of one person. Doors see the queue only through this: what belongs to somebody else is not there, and pictures
are called "KEY/NAME", by which they can be fetched and which nobody guesses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.errors import NotFoundError, OptionError, OwnerOnly
from engines.jobs import Estimate, Finished, Job, JobQueue, Page, Place, Position, Priority, Search, lane_of
from engines.messages import Event, Final, Preview, Request, photo_of
from engines.messages.status import Status
from engines.settings import Settings
from webui import outputs_cap
from webui.people import WALL, Person, person_of
from webui.people.secret import Keys
from webui.pictures import file_name


@dataclass(frozen=True)
class HouseJobs:
    """All jobs of the house. Each person is given his own."""

    queue: JobQueue
    keys: Keys

    def of(self, request: Any) -> OwnJobs:
        """`request`: Starlette's or Gradio's."""
        return OwnJobs(self.queue, self.keys, person_of(request))

    @property
    def status(self) -> Status:
        return self.queue.status()

    @property
    def workers(self) -> Mapping[str, Status]:
        """Return how each machine is that works for the house."""
        return self.queue.workers()

    def expected(self, request: Request) -> Estimate | None:
        """Return how long such a request would take here, whoever made it. None: that is not known."""
        return self.queue.expected(request)

    def file(self, picture: str) -> Path:
        """Return where a picture lies, which need not be there any more. NotFoundError: that is not its key."""
        return self.queue.folder / self.name(picture)

    def name(self, picture: str) -> str:
        """Return the name of a picture's file. NotFoundError: that is not its key, or the picture was deleted."""
        name = self.keys.name(picture)
        if name is None or self.queue.is_deleted(name):
            raise NotFoundError("picture", file_name(picture))
        return name


@dataclass(frozen=True)
class OwnJobs(HouseJobs):
    """
    As engines.jobs.JobQueue says, for one person. A job that belongs to nobody is anybody's who has its id, which
    nobody guesses either; every other one that is not this person's raises NotFoundError.
    """

    person: Person

    def submit(self, request: Request) -> str:
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[Request], priority: Priority = "interactive") -> list[str]:
        """OwnerOnly: only the owner of the house downloads and builds models."""
        if not self.person.is_owner and any(lane_of(request) == "builds" for request in requests):
            raise OwnerOnly("models are the owner's")
        return self.queue.submit_all(requests, self.person.id, priority)

    def job(self, job_id: str) -> Job:
        job = self.queue.job(job_id)
        if not self.may_see(job):
            raise NotFoundError("job", job_id)
        return job

    def may_see(self, job: Job) -> bool:
        """Return whether a job is this person's, or nobody's: then it is that of whoever has its id."""
        return job.owner in ("", self.person.id)

    def follow(self, job_id: str) -> Iterator[Event]:
        self.job(job_id)
        return map(self._signed, self.queue.follow(job_id))

    def since(self, job_id: str, after: int) -> tuple[list[tuple[int, Event]], bool]:
        self.job(job_id)
        happened, ended = self.queue.since(job_id, after)
        return [(number, self._signed(event)) for number, event in happened], ended

    def listening(self, job_id: str, call: Callable[[], None]) -> AbstractContextManager[None]:
        return self.queue.listening(job_id, call)  # says only that there is something to be asked for

    def latest(self, job_id: str) -> Event | None:
        self.job(job_id)
        event = self.queue.latest(job_id)
        return event and self._signed(event)

    def cancel(self, job_id: str) -> None:
        self.job(job_id)
        self.queue.cancel(job_id)

    def place(self, job_id: str) -> Place:
        self.job(job_id)
        return self.queue.place(job_id)

    def move_first(self, job_id: str) -> None:
        self.job(job_id)
        self.queue.move_first(job_id)

    def retry(self, job_id: str) -> str:
        """
        Submit once more what came to nothing, and return the new job's name. NotFoundError: its photo has been deleted
        since. OptionError: it did not come to nothing.
        """
        job = self.job(job_id)
        if job.state not in ("failed", "cancelled"):
            raise OptionError("state", job.state, "failed, cancelled")
        photo = photo_of(job.request)
        if photo and not Path(photo).is_file():
            raise NotFoundError("picture", getattr(job.request, "name", "") or Path(photo).name)
        return self.submit(job.request)

    def pause(self) -> None:
        """OwnerOnly: all would wait."""
        self._check_owner()
        self.queue.pause()

    def resume(self) -> None:
        self._check_owner()
        self.queue.resume()

    def _check_owner(self) -> None:
        if not self.person.is_owner:
            raise OwnerOnly("the queue is the owner's")

    def finished(self, limit: int) -> list[Finished]:
        """The latest of this person's that made pictures; none are nobody's in particular."""
        return [self._shown(job) for job in self.queue.finished(limit, self.person.id)] if self.person.id else []

    def page(self, search: Search, limit: int, after: Position | None = None) -> Page:
        """Pictures of this person, as they are looked for, or the album's, in which nobody looks for words."""
        if search.owner is None:
            search = Search(None)
        elif search.owner != self.person.id or not self.person.id:
            return Page()
        page = self.queue.page(search, limit, after)
        return replace(page, jobs=tuple(map(self._shown, page.jobs)))

    def finished_jobs(self, job_ids: Sequence[str]) -> list[Finished]:
        """Those of these jobs that are this person's and have pictures that are there."""
        if not self.person.id:
            return []
        return [self._shown(job) for job in self.queue.finished_jobs(job_ids, self.person.id)]

    def bundles(self) -> list[str]:
        """Those with which this person's pictures were made."""
        return self.queue.bundles_of(self.person.id) if self.person.id else []

    def pictures(self, job_ids: Sequence[str]) -> list[str]:
        """The pictures of those of these jobs that are this person's, and are there. Anybody may send anything."""
        names: list[str] = []
        for job_id in job_ids:
            with suppress(NotFoundError):
                final = self.latest(job_id)
                names += final.images if isinstance(final, Final) else ()
        return [name for name in dict.fromkeys(names) if self._is_there(name)]

    def before(self, job_id: str) -> str:
        """The picture of a photo as it came; "": there is none any more."""
        self.job(job_id)
        name = self.queue.before(job_id)
        return name and self.keys.sign(name)

    def _is_there(self, picture: str) -> bool:
        with suppress(NotFoundError):
            return self.file(picture).is_file()
        return False

    def favour(self, job_ids: Sequence[str], favourite: bool) -> list[str]:
        """Keep pictures of this person when there is no room for all, or not any more. NotFoundError: none is there."""
        return self._some(job_ids, self.queue.favour(job_ids, self.person.id, favourite))

    def owns(self, job: Job) -> bool:
        """Return whether a job is this person's and not, as nobody's are, that of whoever has its id."""
        return bool(job.owner and job.owner == self.person.id)

    def delete(self, job_ids: Sequence[str]) -> list[str]:
        """Delete finished jobs of this person, so that it can be taken back. NotFoundError: none is there."""
        return self._some(job_ids, self.queue.delete(job_ids, self.person.id, time.time()))

    def undelete(self, job_ids: Sequence[str]) -> list[str]:
        """NotFoundError: they are gone for good."""
        return self._some(job_ids, self.queue.undelete(job_ids, self.person.id))

    @staticmethod
    def _some(asked: Sequence[str], changed: list[str]) -> list[str]:
        if not changed:
            raise NotFoundError("job", ", ".join(asked)[:100])
        return changed

    def deleted_since(self, since_s: float) -> list[tuple[str, float]]:
        """What this person has deleted since then, and when."""
        return self.queue.deleted_since(self.person.id, since_s) if self.person.id else []

    def notice(self, settings: Settings) -> outputs_cap.Notice | None:
        """Return how many pictures of this person's go for want of room, and when; None: none. OSError."""
        return outputs_cap.notice(self.queue, settings, self.person.id)

    def share(self, job_id: str, shared: bool) -> None:
        """
        Put pictures of this person's into the album of all, or take them out. Anybody's, and nobody's, are taken out by
        the owner of the house: nobody could put them back.
        """
        if self.person.is_visitor:  # what he leaves for the wall may be the owner's to look at first
            raise OwnerOnly("the album is not a visitor's")
        if shared:
            self.job(job_id)
        elif not self.may_take_out(self.queue.job(job_id)):
            raise NotFoundError("job", job_id)
        self.queue.share(job_id, shared)

    def leave_for_wall(self, job_id: str, approved: bool) -> None:
        """Leave pictures of this visitor's for the wall: at once, or when the owner has approved. NotFoundError."""
        self._some([job_id], self.queue.hand_over([job_id], self.person.id, WALL))
        if approved:
            self._hang([job_id])

    def left_for_wall(self, limit: int) -> list[Finished]:
        """What visitors have left for the wall and nobody has looked at, for the owner; newest first."""
        if not self.person.is_owner:
            return []
        left = self.queue.page(Search(WALL), limit).jobs
        return [self._shown(finished) for finished in left if not finished.shared]

    def approve(self, job_ids: Sequence[str], approved: bool) -> None:
        """Put what visitors have left onto the wall, or delete it. OwnerOnly. NotFoundError: it is not there."""
        self._check_owner()
        left = {finished.job.id for finished in self.queue.finished_jobs(job_ids, WALL) if not finished.shared}
        if not left:
            raise NotFoundError("job", ", ".join(job_ids)[:100])
        if approved:
            self._hang(sorted(left))
        else:
            self.queue.delete(sorted(left), WALL, time.time())

    def _hang(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self.queue.share(job_id, True)
        self.queue.favour(job_ids, WALL, True)

    def may_take_out(self, job: Job) -> bool:
        """Return whether this person may take the job's pictures out of the album."""
        return self.person.is_owner or self.owns(job)

    def latest_jobs(self, limit: int) -> list[Job]:
        """This person's latest jobs, however they are; none are nobody's in particular."""
        return self.queue.latest_of(self.person.id, limit) if self.person.id else []

    def _shown(self, finished: Finished) -> Finished:
        images = tuple(map(self.keys.sign, finished.final.images))
        return replace(finished, final=replace(finished.final, images=images))

    def _signed(self, event: Event) -> Event:
        match event:
            case Preview():
                return replace(event, image=self.keys.sign(event.image))
            case Final():
                return replace(event, images=tuple(map(self.keys.sign, event.images)))
        return event
