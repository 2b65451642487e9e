"""
A job is a request with an identity and a history. Queues keep jobs and their events, and tell front doors how the
workers are; they run nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from engines.jobs.quiet import QuietHours as QuietHours
from engines.messages import Build, Event, Failed, Fetch, Final, Request
from engines.messages.status import Status

State = Literal["queued", "running", "done", "failed", "cancelled"]
Lane = Literal["pictures", "builds"]  # what waits in one is never behind what waits in the other
# Who waits at a page or a program for one thing; many things asked for with one press. What proves engines is no job:
# it goes on only while there is none.
Priority = Literal["interactive", "batch"]
THUMBNAILS = "thumbnails"  # the folder among the pictures that has their small copies
Position = tuple[float, int]  # when a job ended, in seconds since 1970, and its number: the newest has the largest
PictureKind = Literal["", "portraits", "photos"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Job:
    """
    `owner`: whose it is, by the name that front doors have for a person; empty: nobody's, and its id is the key.
    `ended`: when it has, in seconds since 1970.
    """

    id: str
    owner: str
    request: Request
    state: State
    attempts: int  # doubles as the fencing token: only the latest attempt may publish
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """
    A job that went well. `shared`: its pictures are in the album of all. `favourite`: they are not deleted for want of
    room. `position`: its place among all others.
    """

    job: Job
    final: Final
    shared: bool = False
    favourite: bool = False
    position: Position = (0.0, 0)


@dataclass(frozen=True, slots=True)
class Word:
    """
    What is looked for in the words of a request, whatever the case of its letters. What has one of these presets, or
    was asked for in just these texts, is meant as well: they say it in another language.
    """

    text: str
    presets: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """
    Which finished jobs are meant: an owner's, or those in the album of all, where it is None; of them those with all of
    these words, of this kind ("": any) and this bundle ("": any), that ended since then, in seconds since 1970.
    """

    owner: str | None
    words: tuple[Word, ...] = ()
    kind: PictureKind = ""
    bundle: str = ""
    favourite: bool = False
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """Some finished jobs, newest first. `more`: there are others after the last of them."""

    jobs: tuple[Finished, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Deletable:
    """
    A job that went well, is no favourite and not in the album: whose it is, and those of its pictures that no other job
    needs.
    """

    id: str
    owner: str
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a job is in its line: how many will be finished before it starts, and in how many seconds it will have ended
    itself, as earlier jobs let one expect; None: nobody knows, or it has ended. `paused`: until somebody says so, none
    begins. `quiet_s`: it waits for the end of the quiet hours. `away`: for this machine, which alone can do it.
    """

    ahead: int
    eta_s: float | None
    paused: bool = False
    quiet_s: float = 0.0
    away: str = ""
    waking: bool = False

    @property
    def waits(self) -> bool:
        return self.ahead > 0 or self.paused or self.quiet_s > 0 or bool(self.away)


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a job takes until it is done, and until there is something to look at. None: that is not known."""

    finish_s: float
    look_s: float | None = None


class JobQueue(Protocol):
    folder: Path  # where pictures go; events name files in it

    def submit(self, request: Request, owner: str = "") -> str:
        """Take it, and return the job's name. QueueFull, StorageError: it was not taken."""
        ...

    def submit_all(self, requests: Sequence[Request], owner: str = "", priority: Priority = "interactive") -> list[str]:
        """Take all of them, or none. A batch gives way to interactive jobs, but not for ever (engines.jobs.turns)."""
        ...

    def publish(self, job: Job, *events: Event) -> bool:
        """Append what has happened. False means stop: somebody cancelled, or the job is no longer this attempt's."""
        ...

    def save_snapshot(self, job: Job, body: bytes, pictures: Sequence[str]) -> None:
        """
        Keep how far the job has come, in the place of its last snapshot, until it ends. The next attempt counts on
        these pictures of the folder. Nothing is kept of what is no longer this attempt's. StorageError.
        """
        ...

    def snapshot(self, job: Job) -> bytes | None:
        """Return the latest snapshot of the job, by whichever attempt; None: it has none."""
        ...

    def follow(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """
        Past and coming events from number `after` on, to the last one. NotFoundError: no such job. JobPostponed: it
        goes on at the next start.
        """
        ...

    def since(self, job_id: str, after: int) -> tuple[list[tuple[int, Event]], bool]:
        """
        The events so far after number `after`, each with its number, and whether that is all. Numbers grow, and leave
        gaps where a job began anew. As `follow` raises, but nobody waits.
        """
        ...

    def listening(self, job_id: str, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Call, from any thread, each time there may be something new. `call` must return at once."""
        ...

    def latest(self, job_id: str) -> Event | None:
        """The newest event, for those who look now and then; none: it has not begun."""
        ...

    def cancel(self, job_id: str) -> None: ...

    def job(self, job_id: str) -> Job: ...

    def place(self, job_id: str) -> Place:
        """
        Where the job is in its line. JobPostponed: it begins after the next start. To be asked often: it is found once
        for each change.
        """
        ...

    def expected(self, request: Request) -> Estimate | None:
        """
        How long such a request would take, by its engine's proof and by what earlier ones took here. None: nothing is
        there to say it by.
        """
        ...

    def move_first(self, job_id: str) -> None:
        """
        Let it begin before its owner's others, in the places that those have: nobody else waits longer. Of a batch,
        before the others of batches. What does not wait any more stays as it is. NotFoundError, StorageError.
        """
        ...

    def pause(self) -> None:
        """Begin no more pictures until `resume`, also after a restart; what runs goes on. StorageError."""
        ...

    def resume(self) -> None: ...

    def is_paused(self) -> bool: ...

    def busy(self, lane: Lane = "pictures") -> bool:
        """Return whether anything waits or runs there, whosever it is."""
        ...

    def unfinished(self) -> list[Request]:
        """What is asked by jobs that wait or run. Those that cannot be read are left out."""
        ...

    def finished(self, limit: int, owner: str | None = None) -> list[Finished]:
        """The latest jobs that made pictures, newest first; None: anybody's."""
        ...

    def page(self, search: Search, limit: int, after: Position | None = None) -> Page:
        """
        As many of the jobs that are meant and whose pictures are still there; of each the pictures that are there. The
        first comes after this position, and is found at once, however many come before.
        """
        ...

    def finished_jobs(self, job_ids: Sequence[str], owner: str) -> list[Finished]:
        """Those of these jobs that are an owner's and have pictures that are there, as in a page."""
        ...

    def bundles_of(self, owner: str) -> list[str]:
        """The bundles with which an owner's pictures were made."""
        ...

    def favour(self, job_ids: Sequence[str], owner: str, favourite: bool) -> list[str]:
        """Let pictures of these finished jobs of an owner be favourites, or not; return which there were."""
        ...

    def share(self, job_id: str, shared: bool) -> None:
        """Put the job's pictures into the album of all, or take them out. NotFoundError, StorageError."""
        ...

    def delete(self, job_ids: Sequence[str], owner: str, now_s: float) -> list[str]:
        """
        Let these finished jobs of an owner be as if they had never been, with their pictures; return which there were.
        `undelete` takes it back until a `purge` deletes what was deleted before then, in seconds since 1970.
        """
        ...

    def undelete(self, job_ids: Sequence[str], owner: str) -> list[str]: ...

    def deleted_since(self, owner: str, since_s: float) -> list[tuple[str, float]]:
        """The jobs that an owner has deleted since then, and when. Some may have been purged since."""
        ...

    def hand_over(self, job_ids: Sequence[str], owner: str, to: str) -> list[str]:
        """Let these finished jobs of an owner be another's; return which there were."""
        ...

    def erase(self, owner: str) -> list[Request]:
        """Cancel and delete all of an owner's, for good; `purge` follows its end. Return what it was about."""
        ...

    def lapsed(self, prefix: str, before_s: float) -> list[str]:
        """Owners so called whose jobs have all ended, the last before then, in seconds since 1970."""
        ...

    def is_deleted(self, picture: str) -> bool:
        """Return whether a picture belongs to deleted jobs alone, whose files may lie there for a while."""
        ...

    def purge(self, before_s: float) -> int:
        """Delete the rows and the files of deleted jobs. Return of how many: what is waited for goes another time."""
        ...

    def before(self, job_id: str) -> str:
        """The picture of a photo as it came, before it was restored; "": there is none any more."""
        ...

    def deletable(self) -> list[Deletable]:
        """
        What may be deleted to have room, oldest first, whether it is still there or not. A picture that the album, a
        favourite, a later job or one that has not ended counts on is not among them.
        """
        ...

    def delete_pictures(self, jobs: Sequence[Deletable]) -> list[Deletable]:
        """Delete them, and what is beside them. Return of which jobs: those stay of which somebody needs one by now."""
        ...

    def latest_of(self, owner: str, limit: int) -> list[Job]:
        """The latest jobs of an owner, however they are, newest first. Those that cannot be read are left out."""
        ...

    def announce(self, status: Status) -> None: ...

    def status(self) -> Status: ...

    def workers(self) -> Mapping[str, Status]: ...  # on other machines


def lane_of(request: Request) -> Lane:
    return "builds" if isinstance(request, Build | Fetch) else "pictures"


def state_after(event: Event) -> State:
    match event:
        case Final():
            return "done"
        case Failed(code="cancelled"):
            return "cancelled"
        case Failed():
            return "failed"
    return "running"
