"""
Which pictures a frame may show: the album of all, its favourites, folders that the owner has named. Nothing else is
ever listed, and what is not listed is not sent.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from engines.errors import NotFoundError, OptionError
from engines.jobs import Finished, JobQueue, Search
from webui.people.secret import derive
from webui.watch.scan import enters, is_meant

log = logging.getLogger(__name__)
Focus = tuple[float, float]  # what matters in a picture, in shares of it from its left and upper edges
ALBUM, FAVOURITES, FOLDER = "album", "favourites", "folder:"
MOST = 5000  # pictures of a listing, the newest
ALBUM_S, FOLDER_S = 3.0, 60.0  # for how long a listing counts: a folder may lie across the network
PATIENCE_S = 2.0  # with a folder
PORTRAIT: Focus = (0.5, 0.4)  # where faces are in a portrait, and higher than the middle in most photos


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture: where it lies, since when, in seconds since 1970, and of which job it is; "": of a folder."""

    path: Path
    since: float
    focus: Focus = PORTRAIT
    job_id: str = ""


@dataclass(frozen=True)
class Listing:
    """Pictures by their ids, which nobody guesses, newest first. `version` changes with them."""

    pictures: Mapping[str, Shown]
    version: str = ""

    @classmethod
    def of(cls, pictures: Mapping[str, Shown]) -> Listing:
        newest = dict(sorted(pictures.items(), key=lambda item: -item[1].since)[:MOST])
        return cls(newest, hashlib.sha256(" ".join(newest).encode()).hexdigest()[:16])


@dataclass
class _Cached:
    """`reading`: it is being listed anew just now."""

    pictures: dict[str, Shown] = field(default_factory=dict)
    until: float = 0.0
    reading: bool = False


class Sources:
    """`folders`: by the names that frames ask for them with. Any thread may ask."""

    def __init__(
        self,
        queue: JobQueue,
        secret: bytes,
        folders: Mapping[str, Path],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue, self.folders = queue, folders
        self._secret, self._clock = secret, clock
        self._cached: dict[str, _Cached] = {}
        self._lock = threading.Lock()

    def parse(self, show: str) -> tuple[str, ...]:
        """
        Read what shall be shown, with commas between. OptionError: there is no such source; then nothing is shown, as
        another one might have what is not for this wall.
        """
        names = tuple(dict.fromkeys(name.strip() for name in show.split(",") if name.strip())) or (ALBUM,)
        names_here = (ALBUM, FAVOURITES, *(FOLDER + name for name in self.folders))
        for name in names:
            if name not in names_here:
                raise OptionError("show", name[:100], ", ".join(names_here))
        return names

    def listing(self, names: Sequence[str]) -> Listing:
        """Return the pictures of these sources, each one once."""
        return Listing.of({picture_id: shown for name in names for picture_id, shown in self._of(name).items()})

    def picture(self, names: Sequence[str], picture_id: str) -> Shown:
        """NotFoundError: it is none of these sources', or not any more."""
        for name in names:
            if shown := self._of(name).get(picture_id):
                return shown
        raise NotFoundError("picture", picture_id[:40])

    def _of(self, name: str) -> dict[str, Shown]:
        with self._lock:
            cached = self._cached.setdefault(name, _Cached())
            if cached.reading or self._clock() < cached.until:
                return cached.pictures
            cached.reading = True
        if not name.startswith(FOLDER):
            self._read(name, cached)
        else:  # on a share that hangs it may take for ever: then what was there counts, and nobody else waits for it
            reading = threading.Thread(target=self._read, args=(name, cached), name="album", daemon=True)
            reading.start()
            reading.join(PATIENCE_S)
        return cached.pictures

    def _read(self, name: str, cached: _Cached) -> None:
        try:
            if name.startswith(FOLDER):
                cached.pictures = self._in_folder(name, cached.pictures)
            else:
                cached.pictures = self._shared(name == FAVOURITES)
        finally:
            cached.until = self._clock() + (FOLDER_S if name.startswith(FOLDER) else ALBUM_S)
            cached.reading = False

    def _in_folder(self, name: str, before: dict[str, Shown]) -> dict[str, Shown]:
        root = self.folders[name.removeprefix(FOLDER)]
        try:
            paths = {self._id(f"{path} {shown.since}"): shown for path, shown in files_of(root)}  # one replaced is new
        except OSError as exc:  # a share that is away comes back, and what it held is not gone
            log.warning("a folder of the frame cannot be read: %s", exc.strerror)
            return before
        return paths or (before if not root.is_dir() else {})

    def _shared(self, favourite: bool) -> dict[str, Shown]:
        jobs = self.queue.page(Search(None, favourite=favourite), MOST).jobs
        return {
            self._id(name): Shown(self.queue.folder / name, *_facts(finished))
            for finished in jobs
            for name in finished.final.images
        }

    def _id(self, name: str) -> str:
        return derive(self._secret, "frame", name)


def _facts(finished: Finished) -> tuple[float, Focus, str]:
    return finished.position[0], focus_of(finished), finished.job.id


def focus_of(finished: Finished) -> Focus:
    """Return the middle of the faces, where they were looked for."""
    boxes = [face.box for face in finished.final.faces if face.is_face]
    if not boxes:
        return PORTRAIT
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return (left + right) / 2, (top + bottom) / 2


def files_of(root: Path) -> Iterator[tuple[Path, Shown]]:
    """Yield the pictures below a folder, by their names alone: none is opened. OSError: the folder cannot be read."""
    root.stat()
    for folder, below, names in os.walk(root):
        below[:] = filter(enters, below)
        for name in names:
            if is_meant(name):
                path = Path(folder) / name
                with suppress(OSError):  # it went meanwhile
                    stat = path.stat(follow_symlinks=False)  # a link may lead out of the folder
                    if S_ISREG(stat.st_mode):
                        yield path, Shown(path, stat.st_mtime)
