"""
The pictures in a folder of the owner's, which may lie across the network: listed by their names alone, none is opened.
A share that is away comes back, and one that hangs keeps nobody waiting.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from webui.people.secret import derive
from webui.watch.scan import enters, is_meant

log = logging.getLogger(__name__)
Focus = tuple[float, float]  # what matters in a picture, in shares of it from its left and upper edges
FOLDER_S = 60.0  # for how long a listing counts: a folder may lie across the network
PATIENCE_S = 2.0  # with a folder
PORTRAIT: Focus = (0.5, 0.4)  # where faces are in a portrait, and higher than the middle in most photos


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture: where it lies, since when, in seconds since 1970, and of which job it is; "": of a folder."""

    path: Path
    since: float
    focus: Focus = PORTRAIT
    job_id: str = ""


Pictures = dict[str, Shown]  # by their ids, which nobody guesses


@dataclass
class Listed:
    """
    Pictures as they were last read; who asks after `good_s` seconds has them read anew. `read` is given what was there
    before. `apart`: it may take for ever, as on a share that hangs, and is done beside; then what was there counts.
    Any thread may ask.
    """

    read: Callable[[Pictures], Pictures]
    good_s: float
    clock: Callable[[], float] = time.monotonic
    apart: bool = False
    _pictures: Pictures = field(default_factory=dict)
    _until: float = float("-inf")
    _reading: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pictures(self) -> Pictures:
        with self._lock:
            if self._reading or self.clock() < self._until:
                return self._pictures
            self._reading = True
        if not self.apart:
            self._read()
        else:
            reading = threading.Thread(target=self._read, name="album", daemon=True)
            reading.start()
            reading.join(PATIENCE_S)
        return self._pictures

    def _read(self) -> None:
        try:
            self._pictures = self.read(self._pictures)
        finally:
            self._until = self.clock() + self.good_s
            self._reading = False


class Folder:
    """One of the owner's folders. Any thread may ask."""

    def __init__(self, root: Path, secret: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self.root, self._secret = root, secret
        self._listed = Listed(self._read, FOLDER_S, clock, apart=True)

    def pictures(self) -> Pictures:
        """Return all pictures in it, as they were within the last minute."""
        return self._listed.pictures()

    def _read(self, before: Pictures) -> Pictures:
        try:
            shown = {self._id(f"{each.path} {each.since}"): each for each in files_of(self.root)}  # one replaced is new
        except OSError as exc:  # a share that is away comes back, and what it held is not gone
            log.warning("a folder of STUDIO_ALBUMS cannot be read: %s", exc.strerror)
            return before
        return shown or (before if not self.root.is_dir() else {})

    def _id(self, name: str) -> str:
        return derive(self._secret, "frame", name)


def folders_of(paths: Mapping[str, Path], secret: bytes) -> dict[str, Folder]:
    """Return the owner's folders by the names that people see."""
    return {name: Folder(path, secret) for name, path in paths.items()}


def files_of(root: Path) -> Iterator[Shown]:
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
                        yield Shown(path, stat.st_mtime)
