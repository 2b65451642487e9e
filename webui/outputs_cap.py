"""
STUDIO_OUTPUTS_GB: how much room pictures may take. When they have taken more for a day, and those whose they are have
been able to read so, the oldest go, job by job, until they fit. What is in the album stays.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from engines import files
from engines.jobs import THUMBNAILS, Deletable, JobQueue
from engines.settings import Settings

log = logging.getLogger(__name__)
GB = 1_000_000_000
NOTICE_S = 86400.0  # from when there is too much until something is deleted
AT_ONCE = 50  # jobs whose pictures are deleted while the queue waits


@dataclass(frozen=True)
class Over:
    """Since when there is too much, in seconds since 1970."""

    since_s: float


@dataclass(frozen=True)
class Notice:
    """What a person is warned of: how many pictures of his go, and in how many hours, 1 at least."""

    pictures: int
    hours: int


def sizes(folder: Path) -> Counter[str]:
    """Return how many bytes the pictures of the folder take, with their small copies, by name before the first dot."""
    taken = _sizes(folder)
    with suppress(FileNotFoundError):  # nobody has looked at any yet
        taken += _sizes(folder / THUMBNAILS)
    return taken


def _sizes(folder: Path) -> Counter[str]:
    taken: Counter[str] = Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False):
                    taken[entry.name.partition(".")[0]] += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:  # deleted since it was listed
                continue
    return taken


def most_bytes(settings: Settings) -> int:
    """Return how many bytes pictures may take; 0: any number."""
    return int(settings.outputs_gb * GB)


def over_since(settings: Settings) -> Over | None:
    """Return since when there is too much; None: there is not, or nobody has noticed yet."""
    try:
        return files.read_json(Over, _mark(settings)) if settings.outputs_gb else None
    except (OSError, ValueError):
        return None


def doomed(queue: JobQueue, settings: Settings) -> list[Deletable]:
    """Return the jobs whose pictures go next, oldest first: no more than have to. OSError."""
    taken = sizes(settings.outputs)
    too_many = taken.total() - most_bytes(settings)
    going: list[Deletable] = []
    for job in queue.deletable() if too_many > 0 else ():
        if size := sum(taken[name] for name in _stems(job.pictures)):
            going.append(job)
            too_many -= size
            if too_many <= 0:
                break
    return going


def notice(queue: JobQueue, settings: Settings, owner: str) -> Notice | None:
    """Return what there is to say to the owner of some jobs; None: nothing of his goes. OSError."""
    over = over_since(settings)
    if over is None or not owner:
        return None
    pictures = sum(len(job.pictures) for job in doomed(queue, settings) if job.owner == owner)
    left_s = over.since_s + NOTICE_S - time.time()
    return Notice(pictures, max(1, math.ceil(left_s / 3600))) if pictures else None


def enforce(queue: JobQueue, settings: Settings, now_s: float | None = None) -> None:
    """Note that there is too much, or that there is not any more; after a day of it delete. OSError."""
    now_s = time.time() if now_s is None else now_s
    if not settings.outputs_gb or sizes(settings.outputs).total() <= most_bytes(settings):
        _mark(settings).unlink(missing_ok=True)
        return
    over = over_since(settings)
    if over is None or over.since_s > now_s:  # the clock was put back
        files.write_atomic(_mark(settings), json.dumps(asdict(Over(now_s))).encode(), durable=True)
        log.warning(
            "the pictures take more than STUDIO_OUTPUTS_GB=%g: those of %d jobs are deleted in %.0f hours",
            settings.outputs_gb,
            len(doomed(queue, settings)),
            NOTICE_S / 3600,
        )
    elif now_s - over.since_s >= NOTICE_S:
        _delete(queue, settings)


def _delete(queue: JobQueue, settings: Settings) -> None:
    going = doomed(queue, settings)
    gone = sum(len(queue.delete_pictures(going[k : k + AT_ONCE])) for k in range(0, len(going), AT_ONCE))
    if gone:
        log.info("the pictures of %d jobs were deleted: STUDIO_OUTPUTS_GB=%g", gone, settings.outputs_gb)
    if sizes(settings.outputs).total() <= most_bytes(settings):
        _mark(settings).unlink(missing_ok=True)


def _stems(pictures: Iterable[str]) -> set[str]:
    return {picture.partition(".")[0] for picture in pictures}


def _mark(settings: Settings) -> Path:
    return settings.state / "outputs_over.json"
