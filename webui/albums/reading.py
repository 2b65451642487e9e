"""
How a file of a folder is read that is not ours: none but what lies in it, no more than may be, and without waiting for
a share that hangs. Bytes alone: what is in them is decoded elsewhere (copies.py).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

from engines.errors import FileTooLarge, FolderAway, ImageError, NotFoundError, StorageError, StudioError

T = TypeVar("T")
PIECE_BYTES = 1 << 20
FILE_S = 20.0  # for one file
OUTSIDE = (errno.ELOOP, errno.ENOTDIR)  # where there is a link now; EXDEV is a mount, which is the owner's doing


class Waiting:
    """
    Calls that may hang for ever, each in a thread of its own. While one is overdue the others are refused at once, so
    that there are few such threads, and nobody's browser waits for one answer after the other. Any thread may ask.
    """

    def __init__(self) -> None:
        self._overdue = 0
        self._lock = threading.Lock()

    @property
    def overdue(self) -> bool:
        return self._overdue > 0

    def call(self, limit_s: float, call: Callable[..., T], *arguments: Any) -> T:
        """FolderAway: it takes longer than `limit_s` seconds, or one before it still does."""
        if self.overdue:
            raise FolderAway("a call has not come back yet")
        outcome: Future[T] = Future()
        threading.Thread(target=_answer, args=(outcome, call, arguments), name="album", daemon=True).start()
        try:
            return outcome.result(limit_s)
        except TimeoutError as exc:
            if outcome.done():  # just now
                return outcome.result()
            with self._lock:
                self._overdue += 1
            outcome.add_done_callback(self._came_back)
            raise FolderAway(f"a call takes more than {limit_s:g} s") from exc

    def _came_back(self, _: Future[Any]) -> None:
        with self._lock:
            self._overdue -= 1


def _answer(outcome: Future[T], call: Callable[..., T], arguments: tuple[Any, ...]) -> None:
    try:
        outcome.set_result(call(*arguments))
    except (StudioError, OSError) as exc:
        outcome.set_exception(exc)
    finally:
        outcome.cancel()  # which does nothing to one that has an answer: nobody waits for a thread that a fault ended


def copy(root: Path, path: Path, target: Path, most_bytes: int) -> None:
    """Copy a file of the folder `root`, as `pieces` reads it. StorageError: this machine's disk refuses."""
    source = pieces(root, path, most_bytes)
    try:
        with target.open("xb") as file:
            for piece in source:
                file.write(piece)
    except OSError as exc:  # what the other disk refuses is none by now
        raise StorageError(f"a copy cannot be written: {exc.strerror}", why=exc.strerror or "?") from exc


def pieces(root: Path, path: Path, most_bytes: int) -> Iterator[bytes]:
    """
    Yield what is in a file. NotFoundError: it is not there any more, or no file of this folder. FolderAway: the share
    does not give it. FileTooLarge. ImageError: it may not be read.
    """
    try:
        with os.fdopen(opened(root, path), "rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size
            if left > most_bytes:
                raise FileTooLarge(left, most_bytes)
            while left and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                yield piece
    except FileNotFoundError as exc:
        raise NotFoundError("picture", path.name) from exc
    except PermissionError as exc:
        raise ImageError("the file may not be read", why=exc.strerror or "?") from exc
    except OSError as exc:
        if exc.errno in OUTSIDE:
            raise NotFoundError("picture", path.name) from exc
        raise FolderAway(f"a file cannot be read: {exc.strerror}") from exc


def opened(root: Path, path: Path) -> int:
    """
    Open a file below `root` by the way that its path is, on which there may be no link: somebody may have laid one
    since it was listed, and on a network share it would lead about on this machine. OSError.
    """
    *above, name = path.relative_to(root).parts
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in above:
            outer, folder = folder, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(outer)
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise FileNotFoundError(errno.ENOENT, "no file")
