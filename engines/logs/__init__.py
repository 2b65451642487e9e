"""
Where log records go: to standard error, and into a file of this process alone, for two that turn one file over would
lose lines. A record that is made while a job is worked on bears the job's name; none bears a photo's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path

from engines.settings import Settings

log = logging.getLogger(__name__)
FORMAT = "%(asctime)s %(levelname)s %(name)s%(about)s: %(message)s"
FILE_BYTES, FILES = 5_000_000, 5
CRASHES = "crashes.jsonl"  # beside the logs
LETTERS = 8  # of a job's name: enough to find it, and too few for the address that is the key to it
_job: ContextVar[str] = ContextVar("job", default="")


def folder(state: Path) -> Path:
    return state / "log"


@contextmanager
def about(job_id: str) -> Iterator[None]:
    """Inside, what this thread logs bears the job's name; empty: none."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


class Lines(logging.Formatter):
    """Names the job, and of what lies in the folders that are `private` nothing: an error's words may name a photo."""

    def __init__(self, private: Sequence[Path]) -> None:
        super().__init__(FORMAT)
        here = "|".join(re.escape(str(path)) for path in private)
        self._photo = re.compile(rf"""(?<=['"])({here})/[^'"\n]+|({here})/\S+""")  # what is quoted may have spaces

    def format(self, record: logging.LogRecord) -> str:
        record.about = f" job={job_id[:LETTERS]}" if (job_id := _job.get()) else ""
        return self._photo.sub(lambda match: f"{match[1] or match[2]}/…", super().format(record))


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: on a full disk each line would become a story, and standard error has the line."""


def begin(settings: Settings, process: str) -> None:
    """Log from now on, as `process`: no other that lives may have this name."""
    lines = Lines((settings.uploads, settings.cache))
    path = folder(settings.state) / f"{process}.log"
    file = _File(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8", delay=True)
    root = logging.getLogger()
    root.setLevel(settings.log.upper())
    for handler in (logging.StreamHandler(), file):
        handler.setFormatter(lines)
        root.addHandler(handler)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        log.warning("nothing is logged into %s: %s", path, exc.strerror)
