"""What a server has stored of the last job: for tests that see it from a browser alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from engines.messages import unpack


def last_order(home: Path) -> Any:
    """What the last job was asked to do."""
    return unpack(_text(home, "SELECT request FROM job ORDER BY number DESC LIMIT 1"))


def last_event(home: Path) -> Any:
    """What became of it."""
    return unpack(
        _text(home, "SELECT body FROM event JOIN job ON job.id = event.job ORDER BY number DESC, seq DESC LIMIT 1")
    )


def _text(home: Path, sql: str) -> str:
    with sqlite3.connect(home / "state" / "jobs.db") as db:
        (text,) = db.execute(sql).fetchone()
    return str(text)
