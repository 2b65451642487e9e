"""A queue's database as a backup has it: copied while others write to it, and moved to a home of another name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from engines.errors import StorageError
from engines.jobs import repair
from engines.jobs.statements import MOVE_PHOTO, NAMED

PHOTOS = ("$.image", "$.start")  # where a request has the path of its photo, engines.messages.photo_of


def copy(path: Path, target: Path) -> None:
    """
    Copy the database as it is at one moment, however many write to it, into one file of its own. StorageError: there is
    none, it is damaged, or the disk refuses.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=10, uri=True)) as source:
            with closing(sqlite3.connect(target, isolation_level=None)) as db:
                source.backup(db)  # in one step: who writes meanwhile makes it begin anew between two
                db.execute("PRAGMA journal_mode=DELETE")  # nothing of it beside it
        damaged = repair.is_damaged(target)
    except (OSError, sqlite3.Error) as exc:
        raise StorageError(f"{path}: {exc}", why=str(exc)) from exc
    if damaged:
        raise StorageError(f"{path} is damaged: the next start repairs it", why="damaged")


def unnamed(path: Path, pictures: Iterable[str]) -> frozenset[str]:
    """Return those of the files of pictures that nothing in the database names. StorageError."""
    try:
        with closing(sqlite3.connect(path)) as db:
            return frozenset(
                name for name in pictures if not db.execute(NAMED, (f"%{name.partition('.')[0]}%",)).fetchone()
            )
    except sqlite3.Error as exc:
        raise StorageError(f"{path}: {exc}", why=str(exc)) from exc


def move(path: Path, before: str, now: str) -> None:
    """Let jobs begin with photos of the folder `now` where they did with those of `before`. StorageError."""
    try:
        if repair.is_damaged(path):
            raise StorageError(f"{path} is damaged", why="damaged")
        with closing(sqlite3.connect(path)) as db, db:
            db.executemany(MOVE_PHOTO, [(photo, f"{before}/", f"{now}/") for photo in PHOTOS])
    except sqlite3.Error as exc:
        raise StorageError(f"{path}: {exc}", why=str(exc)) from exc
