"""
Which pictures a frame may show: the album of all, its favourites, folders that the owner has named, and what the owner
has named elsewhere (feeds.py, immich_albums.py). Nothing else is ever listed, and what is not listed is not sent.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from engines.errors import NotFoundError, OptionError
from engines.jobs import Finished, JobQueue, Search
from webui.albums.folders import FOLDER_S, Focus, Folder, Listed, Pictures, Shown
from webui.people.secret import derive

ALBUM, FAVOURITES, FOLDER = "album", "favourites", "folder:"
MOST = 5000  # pictures of a listing, the newest
ALBUM_S = 3.0  # for how long a listing of the album counts
AGAIN_S = 300.0  # after which frames try again what could not be fetched
MOST_LISTINGS = 64  # of other machines, in memory


class Elsewhere(Protocol):
    """Sources on other machines."""

    @property
    def names(self) -> tuple[str, ...]:
        """As they are offered to who asks for one that is none."""

    def has(self, name: str) -> bool:
        """Tell whether it is asked for this name, without asking anybody."""

    def pictures(self, name: str) -> list[Shown]:
        """Return what it shows now. Unanswered: that cannot be said, and what it showed before counts."""


@dataclass(frozen=True)
class Listing:
    """Pictures by their ids, which nobody guesses, newest first. `version` changes with them, and with `tried`."""

    pictures: Mapping[str, Shown]
    version: str = ""

    @classmethod
    def of(cls, pictures: Mapping[str, Shown], tried: str = "") -> Listing:
        newest = dict(sorted(pictures.items(), key=lambda item: -item[1].since)[:MOST])
        return cls(newest, hashlib.sha256(" ".join([*newest, tried]).encode()).hexdigest()[:16])


class Sources:
    """`folders`: by the names that frames ask for them with. Any thread may ask."""

    def __init__(
        self,
        queue: JobQueue,
        secret: bytes,
        folders: Mapping[str, Folder],
        clock: Callable[[], float] = time.monotonic,
        elsewhere: Sequence[Elsewhere] = (),
    ) -> None:
        self.queue, self.elsewhere = queue, elsewhere
        self._secret, self._clock = secret, clock
        self._sources: dict[str, Listed | Folder] = {
            **{name: Listed(partial(self._shared, name == FAVOURITES), ALBUM_S, clock) for name in (ALBUM, FAVOURITES)},
            **{FOLDER + name: folder for name, folder in folders.items()},
        }
        self._remote: dict[str, Listed] = {}
        self._lock = threading.Lock()

    def parse(self, show: str) -> tuple[str, ...]:
        """
        Read what shall be shown, with commas between. OptionError: there is no such source; then nothing is shown, as
        another one might have what is not for this wall.
        """
        names = tuple(dict.fromkeys(name.strip() for name in show.split(",") if name.strip())) or (ALBUM,)
        for name in names:
            if name not in self._sources and self._elsewhere(name) is None:
                offered = (*self._sources, *(other for source in self.elsewhere for other in source.names))
                raise OptionError("show", name[:100], ", ".join(offered))
        return names

    def are_remote(self, names: Sequence[str]) -> bool:
        """Tell whether one of these sources is on another machine, so that its pictures have to be fetched."""
        return any(self._elsewhere(name) is not None for name in names)

    def _elsewhere(self, name: str) -> Elsewhere | None:
        return next((source for source in self.elsewhere if source.has(name)), None)

    def listing(self, names: Sequence[str]) -> Listing:
        """Return the pictures of these sources, each one once."""
        pictures = {picture_id: shown for name in names for picture_id, shown in self._source(name).pictures().items()}
        # A frame leaves out what it did not get, until the listing is another.
        return Listing.of(pictures, str(int(self._clock() // AGAIN_S)) if self.are_remote(names) else "")

    def picture(self, names: Sequence[str], picture_id: str) -> Shown:
        """NotFoundError: it is none of these sources', or not any more."""
        for name in names:
            if shown := self._source(name).pictures().get(picture_id):
                return shown
        raise NotFoundError("picture", picture_id[:40])

    def folder_of(self, names: Sequence[str], picture_id: str) -> Folder | None:
        """Return the owner's folder that has a picture. None: it is elsewhere."""
        folders = [source for name in names if isinstance(source := self._sources.get(name), Folder)]
        return next((folder for folder in folders if picture_id in folder.pictures()), None)

    def _source(self, name: str) -> Listed | Folder:
        """NotFoundError: there is none of this name."""
        if (near := self._sources.get(name)) is not None:
            return near
        if (source := self._elsewhere(name)) is None:
            raise NotFoundError("picture", name[:40])
        with self._lock:
            if name not in self._remote:
                self._forget_some()
                self._remote[name] = Listed(partial(self._listed, source, name), FOLDER_S, self._clock, apart=True)
            return self._remote[name]

    def _forget_some(self) -> None:
        """Anybody may ask for albums by names that are none: the empty ones that nobody waits for go first."""
        idle = [(listed.count > 0, name) for name, listed in self._remote.items() if not listed.is_busy]
        for _, name in sorted(idle)[: max(0, len(self._remote) - MOST_LISTINGS + 1)]:
            del self._remote[name]

    def _listed(self, source: Elsewhere, name: str, _: Pictures) -> Pictures:
        return {self._id(str(shown.path)): shown for shown in source.pictures(name)}

    def _shared(self, favourite: bool, _: Pictures) -> Pictures:
        jobs = self.queue.page(Search(None, favourite=favourite), MOST).jobs
        return {
            self._id(name): Shown(self.queue.folder / name, *_facts(finished))
            for finished in jobs
            for name in finished.final.images
        }

    def _id(self, name: str) -> str:
        return derive(self._secret, "frame", name)


def _facts(finished: Finished) -> tuple[float, Focus | None, str]:
    return finished.position[0], focus_of(finished), finished.job.id


def focus_of(finished: Finished) -> Focus | None:
    """Return the middle of the faces, or None: none was found, or nobody has looked."""
    return middle_of([face.box for face in finished.final.faces if face.is_face])


def middle_of(boxes: Iterable[tuple[float, float, float, float]]) -> Focus | None:
    """Return the middle of faces, each with left, top, width and height in shares of the picture. None: of none."""
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    if not corners:
        return None
    lefts, tops, rights, bottoms = zip(*corners, strict=True)
    return (min(lefts) + max(rights)) / 2, (min(tops) + max(bottoms)) / 2
