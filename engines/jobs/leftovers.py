"""
Deletes pictures: those that had to go, and those of attempts that a crash or a stop has broken off, which nobody would
be shown, and nobody would delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from glob import escape
from itertools import chain
from pathlib import Path

from engines import files
from engines.jobs import THUMBNAILS


def delete_unnamed(folder: Path, begun: float, is_named: Callable[[str], bool]) -> None:
    """
    Delete the picture that has come since `begun`, in seconds since 1970, of which no event was stored: the program
    crashed in between. That leaves one at most, as a worker stores one's event before it writes the next: where there
    are more, the database has lost what named them, and they stay.
    """
    modified = {path.name.partition(".")[0]: path.stat().st_mtime for path in folder.glob("outputs_*")}
    unnamed = [name for name, then in modified.items() if then >= begun and not is_named(name)]
    if len(unnamed) == 1:
        delete_picture(folder, unnamed[0])


def delete_half_written(folder: Path) -> None:
    """Delete what a crash has left of files that were being written. Nobody may be writing any now."""
    for path in folder.glob(files.HALF_WRITTEN):
        with suppress(OSError):  # as below
            path.unlink()


def delete_picture(folder: Path, picture: str) -> None:
    """Delete it, and what is kept beside it."""
    names = f"{escape(picture.partition('.')[0])}.*"
    for path in chain(folder.glob(names), (folder / THUMBNAILS).glob(names)):
        with suppress(OSError):  # a picture too many on a disk that refuses keeps no program from starting
            path.unlink()


def delete_pictures(folder: Path, pictures: Iterable[str]) -> None:
    """Delete many, and what is kept beside them: the folders, which may be full, are read once."""
    stems = {picture.partition(".")[0] for picture in pictures}
    for path in [*folder.iterdir(), *(folder / THUMBNAILS).glob("*")] if stems else ():
        if path.name.partition(".")[0] in stems:
            with suppress(OSError):  # the next sweep tries again
                path.unlink()
