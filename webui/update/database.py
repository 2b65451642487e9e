"""
`python -m webui.update.database copy|restore|fits|tidy HOME ...`: what an update does to the databases of a home, as
whoever owns the home. Root follows no link there, and leaves no file that the service could not write.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from engines.errors import StorageError
from engines.jobs import backup
from engines.settings import Settings, SettingsError
from webui import home_lock
from webui.update import MISFIT

NAMES = ("jobs.db", "watch.db")
BESIDE = ("", "-wal", "-shm")  # the files of one database
COPIES = "before-update"  # in state/: a folder for each release that has left its databases
UNDONE = "undone"  # in there: what was newer than a copy that was put in its place


def copy(state: Path, name: str) -> None:
    """Copy the databases as that release leaves them: all, or no folder of its name. StorageError, OSError."""
    _copy(state, state / COPIES / name)


def _copy(state: Path, folder: Path) -> None:
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for path in (state / name for name in NAMES):
        if path.is_file():
            backup.copy(path, beside / path.name)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def restore(state: Path, name: str) -> None:
    """
    Put the databases back as that release left them; what is there now lies in UNDONE then. Each is written in one
    transaction, so that there is one at any moment. StorageError, OSError.
    """
    folder = state / COPIES / name
    if not folder.is_dir():
        raise StorageError(f"{folder}: no copy", why="no copy of the database")
    try:
        _copy(state, state / COPIES / UNDONE)
    except StorageError:  # damaged: set aside as it is
        _set_aside(state)
    for database in NAMES:
        if (folder / database).is_file():
            backup.copy(folder / database, state / database)
        else:
            for end in BESIDE:
                (state / f"{database}{end}").unlink(missing_ok=True)


def _set_aside(state: Path) -> None:
    aside = state / COPIES / f"{UNDONE}-{time.strftime('%Y%m%d%H%M%S')}"
    aside.mkdir()
    for path in (state / f"{name}{end}" for name in NAMES for end in BESIDE):
        with suppress(FileNotFoundError):
            path.rename(aside / path.name)


def fits(path: Path, columns: Mapping[str, Sequence[str]]) -> bool:
    """
    Return whether a program with these tables and columns can work with a database that a newer one has left: all of
    them are there, and what it does not fill in has a default. sqlite3.Error.
    """
    if not path.is_file():
        return True
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        for table, wanted in columns.items():
            there = {row[1]: row for row in db.execute(f"PRAGMA table_info({table})")}
            strange = [row for name, row in there.items() if name not in wanted]
            if not set(wanted) <= set(there) or any(row[3] and row[4] is None for row in strange):  # notnull, default
                return False
    return True


def tidy(state: Path, stay: str) -> None:
    """Delete all copies but that release's, and what was undone. OSError."""
    for folder in (state / COPIES).glob("*"):
        if folder.name != stay and not folder.name.startswith(UNDONE):
            shutil.rmtree(folder)


def main(arguments: Sequence[str]) -> int:
    os.umask(0o077)
    verb, home, argument = arguments
    settings = Settings(Path(home))
    try:
        if verb == "tidy":  # nobody looks at copies while a server is at work
            tidy(settings.state, argument)
            return 0
        with home_lock.take(settings) as lock:
            home_lock.sign(lock, "updating")
            if verb == "fits":
                columns = runpy.run_path(argument)["COLUMNS"]  # of another release: its schema imports nothing of ours
                return 0 if fits(settings.state / NAMES[0], columns) else MISFIT
            {"copy": copy, "restore": restore}[verb](settings.state, argument)
    except (OSError, sqlite3.Error, StorageError, SettingsError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
