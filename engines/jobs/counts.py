"""How many jobs there are, for who has no queue open."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from engines.errors import StorageError
from engines.jobs import State
from engines.jobs.statements import COUNT_UNFINISHED


def unfinished(path: Path) -> Counter[State]:
    """Count the jobs that wait and run, whosever they are, in a database that a server has open. StorageError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=10, uri=True)) as db:
            return Counter(dict(db.execute(COUNT_UNFINISHED).fetchall()))
    except sqlite3.Error as exc:
        raise StorageError(f"{path}: {exc}", why=str(exc)) from exc
