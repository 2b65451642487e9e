"""
What programs share that work in a home and have no page: the watch folder (webui/watch) and a machine that works for a
studio elsewhere (webui/join.py).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from engines.errors import StorageError
from engines.machine import preflight
from engines.settings import Settings, SettingsError
from webui import home_lock

if TYPE_CHECKING:  # what is compiled for certain processors is imported when it has been tried
    from engines.jobs.sqlite_queue import SqliteQueue

STOP_S = 7.0  # what a stop may take of the worker: Docker kills after 10
CANNOT = (SettingsError, StorageError, OSError)  # why `open_home` may fail; `say_why` says it


def open_home(settings: Settings, what: str, taken: str = "") -> tuple[TextIO, SqliteQueue]:
    """
    Return the lock of the home, signed with `what` works there, and its queue. `taken`: what to do if another process
    has it. Raise one of CANNOT.
    """
    try:
        lock = home_lock.take(settings)
    except SettingsError as exc:
        raise SettingsError(f"{exc}\n{taken}".strip()) from exc
    for folder in (settings.outputs, settings.models, settings.uploads):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if why := preflight.refusal(settings.state / preflight.FOLDER):
        raise SettingsError(" ".join(why))
    from engines.jobs import QuietHours
    from engines.jobs.sqlite_queue import SqliteQueue

    quiet = QuietHours.parse(settings.quiet_hours)
    path, limit, pause_s = settings.state / "jobs.db", settings.queue_limit, settings.pause_s
    queue = SqliteQueue(path, settings.outputs, limit, quiet=quiet, pause_s=pause_s)
    home_lock.sign(lock, what)
    return lock, queue


def say_why(exc: Exception) -> None:
    """Print why nothing can be started, with what to do."""
    why = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)
    print(f"无法启动 Cannot start: {why}", file=sys.stderr)
