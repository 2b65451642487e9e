"""
The pictures in a folder of the owner's, which may lie across the network: listed by their names alone, none is opened.
A share that is away comes back, and what it held is not gone; one that hangs keeps nobody waiting.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from engines import files
from engines.errors import NotFoundError
from webui.albums import reading
from webui.albums.reading import FILE_S, Waiting
from webui.outgoing import Resource, Unanswered
from webui.people.secret import derive
from webui.watch.scan import enters, is_meant

log = logging.getLogger(__name__)
Focus = tuple[float, float]  # what matters in a picture, in shares of it from its left and upper edges
FOLDER_S = 60.0  # for how long a listing counts: a folder may lie across the network
AWAY_S = 10.0  # and for how long it counts that there is none
PATIENCE_S = 2.0  # with a folder


@dataclass(frozen=True, slots=True)
class Shown:
    """
    A picture: where it lies, since when, in seconds since 1970, and of which job it is; "": of none. `focus`: None if
    nobody has looked for faces. `remote`: where it is to be fetched from; then `path` is but its name, which changes
    with it.
    """

    path: Path
    since: float
    focus: Focus | None = None
    job_id: str = ""
    remote: Resource | None = None

    @property
    def name(self) -> str:
        """What the file is called, in letters that can be written: a disk may hold any bytes."""
        return self.path.name.encode("utf-8", "replace").decode()


Pictures = dict[str, Shown]  # by their ids, which nobody guesses


class Listed:
    """
    Pictures as they were last read; who asks after `good_s` seconds has them read anew. `read` is given what was there
    before; OSError, Unanswered: it cannot be read, and what was there counts. `apart`: it may take for ever, as on a
    share that hangs, and is done beside; meanwhile, too, what was there counts. Any thread may ask.
    """

    def __init__(
        self,
        read: Callable[[Pictures], Pictures],
        good_s: float,
        clock: Callable[[], float] = time.monotonic,
        apart: bool = False,
    ) -> None:
        self.read, self.good_s, self.clock, self.apart = read, good_s, clock, apart
        self._pictures: Pictures = {}
        self._until, self._begun, self._failed = float("-inf"), float("-inf"), False
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()

    def pictures(self, patience_s: float | None = None) -> Pictures:
        """`patience_s`: for how long, at most, what is done beside is waited for; PATIENCE_S, if nothing is said."""
        with self._lock:
            begins = self._idle.is_set() and self.clock() >= self._until
            if begins:
                self._idle.clear()
                self._begun = self.clock()
        if begins and self.apart:
            threading.Thread(target=self._read, name="album", daemon=True).start()
        elif begins:
            self._read()
        if self.apart:
            patience_s = PATIENCE_S if patience_s is None else patience_s
            self._idle.wait(max(0.0, self._begun + patience_s - self.clock()))
        return self._pictures

    @property
    def count(self) -> int:
        return len(self._pictures)

    @property
    def is_busy(self) -> bool:
        return not self._idle.is_set()

    @property
    def is_away(self) -> bool:
        """Whether the pictures could not be read anew, the last time, or have not been yet."""
        return self._failed or not self._idle.is_set()

    def _read(self) -> None:
        good_s = self.good_s
        try:
            self._pictures = self.read(self._pictures)
            self._failed = False
        except (OSError, Unanswered) as exc:
            if not self._failed:
                why = exc if isinstance(exc, Unanswered) else exc.strerror
                log.warning("a source of pictures cannot be read: %s", why)
            self._failed, good_s = True, min(AWAY_S, good_s)
        finally:
            self._until = self.clock() + good_s
            self._idle.set()


class Folder:
    """One of the owner's folders. `most_bytes`: of a file that is read. Any thread may ask."""

    def __init__(
        self, root: Path, secret: bytes, clock: Callable[[], float] = time.monotonic, most_bytes: int = 1 << 30
    ) -> None:
        self.root, self.most_bytes, self._secret = root, most_bytes, secret
        self._listed = Listed(self._read, FOLDER_S, clock, apart=True)
        self._waiting = Waiting()
        self._device = 0  # that the folder is on, when there was something in it

    def pictures(self, patience_s: float | None = None) -> Pictures:
        """Return all pictures in it, newest first, as they were within the last minute."""
        return self._listed.pictures(patience_s)

    def picture(self, picture_id: str) -> Shown:
        """NotFoundError: it is none of this folder's, or not any more."""
        if shown := self.pictures().get(picture_id):
            return shown
        raise NotFoundError("picture", picture_id[:40])

    @property
    def is_away(self) -> bool:
        """Whether the folder does not answer, or has not yet: what it holds may be other than what is listed."""
        return self._listed.is_away or self._waiting.overdue

    @contextmanager
    def lent(self, shown: Shown, folder: Path) -> Iterator[Path]:
        """
        Lend a copy of a picture's file, in `folder`, which is gone in the end: what is done with it waits for no share.
        FolderAway, and as reading.copy.
        """
        with files.temporary(folder) as beside:
            self._waiting.call(FILE_S, reading.copy, self.root, shown.path, beside, self.most_bytes)
            yield beside

    def _read(self, before: Pictures) -> Pictures:
        device = self.root.stat().st_dev
        listed = {
            self._id(f"{shown.path} {shown.since}"): shown for shown in files_of(self.root)
        }  # one replaced is new
        if not listed and before and device != self._device:
            raise OSError(errno.ENODEV, "what was mounted there is not")
        self._device = device
        return dict(sorted(listed.items(), key=lambda item: (item[1].since, item[0]), reverse=True))

    def _id(self, name: str) -> str:
        return derive(self._secret, "frame", name)


def folders_of(paths: Mapping[str, Path], secret: bytes, most_bytes: int = 1 << 30) -> dict[str, Folder]:
    """Return the owner's folders by the names that people see."""
    return {name: Folder(path, secret, most_bytes=most_bytes) for name, path in paths.items()}


def files_of(root: Path) -> Iterator[Shown]:
    """Yield the pictures below a folder, by their names alone: none is opened. OSError: the folder cannot be read."""

    def look_at(exc: OSError) -> None:
        """A folder below that is not for us, or went meanwhile, is passed over; a share that breaks off is away."""
        if exc.filename == os.fspath(root) or not isinstance(exc, PermissionError | FileNotFoundError):
            raise exc

    for folder, below, names in os.walk(root, onerror=look_at):
        below[:] = filter(enters, below)
        for name in names:
            if is_meant(name):
                path = Path(folder) / name
                with suppress(OSError):  # it went meanwhile
                    stat = path.stat(follow_symlinks=False)  # a link may lead out of the folder
                    if S_ISREG(stat.st_mode):
                        yield Shown(path, round(max(0.0, stat.st_mtime), 6))
