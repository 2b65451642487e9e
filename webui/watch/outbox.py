"""
Where results are laid: under the name, in the tree and with the time of the original, whole or not at all, and never in
the place of a file that is not ours. Ours is what is as the ledger has it, or is the very result.

The outbox may lie on a share that is away. What would then be written there would lie on the bare mount point and be
hidden when the share returns: so the outbox bears a mark, and is made only once, or beside an inbox that is there.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Literal

from webui.watch.ledger import Photo
from webui.watch.scan import MARK

Where = Literal["", "beside", "apart"]  # of an outbox: not made yet; on the file system of the inbox, or on another
PIECE_BYTES = 1 << 20
NAME_BYTES = 255
SAME = ({".jpg", ".jpeg", ".jpe", ".jfif"}, {".png"}, {".webp"})  # what a file of each kind may be called
# Of the disk or the share as a whole; others are of one name.
OF_ALL = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT)
)


class OutboxAway(Exception):
    """The outbox is not there, though it was made."""


@dataclass(frozen=True)
class Outbox:
    folder: Path
    inbox: Path

    def open(self, where: Where) -> Where:
        """
        Return where the outbox is, which is made if it may be; `where`: what this returned before. OutboxAway: it is to
        be waited for. OSError: it cannot be made. The inbox has to be there.
        """
        if self.is_there():
            return where or self._where(self.folder)
        if where == "apart" or (where == "beside" and self._where(self.folder) == "apart"):
            raise OutboxAway
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            _allow(self.folder, self.inbox, 0o777)
        (self.folder / MARK).touch()
        return self._where(self.folder)

    def is_there(self) -> bool:
        return (self.folder / MARK).is_file()

    def _where(self, folder: Path) -> Where:
        """Return where this folder is, or would be."""
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return "beside" if there.stat().st_dev == self.inbox.stat().st_dev else "apart"

    def lay(self, source: Path, photo: Photo) -> tuple[str, str]:
        """
        Copy a result to where it belongs, over our own older one. Return its path in the outbox and its checksum.
        OSError: it is not there.
        """
        wanted = PurePosixPath(name_of(photo.path, source.suffix))
        folder = self.folder / wanted.parent
        self._make(folder)
        # Always of the same name: the next try takes the place of what a crash has left.
        beside = folder / f".watch-{photo.sha256[:32]}.tmp"
        try:
            checksum = _copy(source, beside)
            self._dress(beside, photo)
            name = self._place(beside, checksum, photo, wanted)
            _sync(folder)  # the ledger must not be the only one to know of it when the power goes
        finally:
            with suppress(OSError):  # what cannot be removed must not hide why it failed
                beside.unlink(missing_ok=True)
        return name, checksum

    def holds(self, photo: Photo) -> Path | None:
        """Return where the result for a file lies that was laid here; None: not any more, or it was changed."""
        path = self.folder / photo.outbox
        return path if photo.outbox and photo.laid and _checksum(path) == photo.laid else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file of ours that is no photo, whole or not at all. OSError."""
        path = self.folder / name
        self._make(path.parent)
        beside = path.with_name(f".watch-{hashlib.sha256(name.encode()).hexdigest()[:32]}.tmp")
        try:
            beside.write_bytes(data)
            _allow(beside, self.inbox, 0o666)
            beside.replace(path)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)

    def _place(self, beside: Path, checksum: str, photo: Photo, wanted: PurePosixPath) -> str:
        """Give the copy its name: that of our older one, or the first that is free or bears just this result."""
        ours = self.holds(photo)
        if ours is not None and PurePosixPath(photo.outbox).suffix == wanted.suffix:
            beside.replace(ours)
            return photo.outbox
        for name in _names(wanted):
            path = self.folder / name
            if os.path.lexists(path):
                if _checksum(path) != checksum:
                    continue
                beside.replace(path)  # laid by us before a crash: of the same bytes, and with the right time
            elif not _linked(beside, path):
                continue
            return str(name)
        raise AssertionError("names do not end")

    def _make(self, folder: Path) -> None:
        """
        Make a folder of the outbox, as open as that of the originals: this program's own files are nobody else's.
        OSError; also if the outbox itself is not there any more, which is not made here.
        """
        parts = folder.relative_to(self.folder).parts
        for depth in range(1, len(parts) + 1):
            path, like = self.folder.joinpath(*parts[:depth]), self.inbox.joinpath(*parts[:depth])
            with suppress(FileExistsError):
                path.mkdir()
                _allow(path, like if like.is_dir() else self.inbox, 0o777)

    def _dress(self, beside: Path, photo: Photo) -> None:
        """Let it be as old as its original, and as open."""
        os.utime(beside, ns=(photo.stamp[1], photo.stamp[1]))
        original = self.inbox / photo.path
        _allow(beside, original if original.is_file() else self.inbox, 0o666)


def name_of(path: str, suffix: str) -> str:
    """Return what the result for a path is called. A HEIC becomes a JPEG, and says so: a.heic.jpg, for a.jpg may be."""
    pure = PurePosixPath(path)
    if any({pure.suffix.lower(), suffix} <= kind for kind in SAME):
        return path
    return str(pure.with_name(_short(pure.name, suffix)))


def _names(wanted: PurePosixPath) -> Iterator[PurePosixPath]:
    yield wanted
    for number in count(2):
        yield wanted.with_name(_short(wanted.stem, f" ({number}){wanted.suffix}"))


def _short(stem: str, ending: str) -> str:
    """Join them to a name that file systems take."""
    room = NAME_BYTES - len(os.fsencode(ending))
    data = os.fsencode(stem)
    while len(data) > room:
        stem = stem[:-1]
        data = os.fsencode(stem)
    return stem + ending


def _linked(beside: Path, path: Path) -> bool:
    """Return whether the copy has this name now: false if another program has just given it to a file. OSError."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # of file systems without links, and of names that none takes: then this says so
        if os.path.lexists(path):
            return False
        beside.rename(path)
    return True


def _allow(path: Path, like: Path, most: int) -> None:
    """Let others do with it what they may with something else. What its folder has given it, as its group, stays."""
    with suppress(OSError):  # shares that know no modes, or the owner of all that is on them
        path.chmod(path.stat().st_mode & 0o7000 | like.stat().st_mode & most | (0o700 & most))


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can be told so."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _copy(source: Path, target: Path) -> str:
    """Return the checksum of what was copied and is on the disk. OSError."""
    digest = hashlib.sha256()
    target.unlink(missing_ok=True)  # a crash may have left it as a second name of what was laid
    with source.open("rb") as file, target.open("xb") as copy:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _checksum(path: Path) -> str:
    """Return a file's checksum; empty: it is none, or cannot be read."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
