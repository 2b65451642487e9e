"""
What is deleted in time, every hour: photos that were uploaded, when their days are over; what browsers have sent to the
page, and what a crash has left half written, after a day; pictures and presets that people have deleted, and pictures
for which there is no room. And what visitors leave behind at a frame whose page has died.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from engines import files
from engines.errors import StorageError
from engines.jobs import JobQueue
from engines.messages import photo_of
from engines.settings import Settings
from webui import outputs_cap, thumbnails
from webui.own_presets import OwnPresets
from webui.people import VISITOR

log = logging.getLogger(__name__)
EVERY_S, PURGE_EVERY_S = 3600.0, 60.0
UNDO_S = 30.0  # how long what was deleted may come back: pages offer it for 10 s, and their answers take a while
VISIT_S = 1800.0  # after the end of a visitor's last picture: a page that lives ends his visit much sooner
ON_THEIR_WAY_S = 900.0  # what a phone sends to a frame, or takes from it: longer than its links last
CACHE_DAYS = 1  # of what came through the page: who asks for something with it has it stored among the uploads


def hourly(queue: JobQueue, settings: Settings, stopping: threading.Event) -> None:
    """Sweep now, and every hour until it is `stopping`; what people have deleted goes within two minutes."""
    while True:
        sweep(queue, settings)
        next_s = time.monotonic() + EVERY_S
        while time.monotonic() < next_s:
            if stopping.wait(min(EVERY_S, PURGE_EVERY_S)):
                return
            purge(queue, settings)


def sweep(queue: JobQueue, settings: Settings) -> None:
    """Delete what its owner needs no more. What a job that has not ended begins with is needed."""
    purge(queue, settings)
    forget(settings.uploads, settings.keep_days, photos_in_use(queue))
    forget(settings.cache, CACHE_DAYS)
    # Where a crash has left what was half written.
    for folder in (settings.outputs, settings.uploads, settings.presets, settings.state):
        forget(folder, CACHE_DAYS, pattern=files.HALF_WRITTEN)
    try:
        thumbnails.delete_orphans(settings.outputs)
        outputs_cap.enforce(queue, settings)
    except OSError as exc:
        log.warning("the room that pictures take cannot be looked at: %s", exc.strerror)


def purge(queue: JobQueue, settings: Settings) -> None:
    """Delete for good what people have deleted, when it cannot be taken back any more, and what visitors have left."""
    before_s = time.time() - UNDO_S
    forget(settings.phone_links, ON_THEIR_WAY_S / 86400)
    try:
        OwnPresets(settings.presets).purge(before_s)
        for visitor in queue.lapsed(VISITOR, time.time() - VISIT_S):
            erase(queue, visitor)
        gone = queue.purge(before_s)
    except StorageError as exc:
        log.warning("what people have deleted stays for now: %s", exc)
        return
    if gone:
        log.info("the pictures of %d jobs were deleted by those whose they were", gone)


def erase(queue: JobQueue, owner: str) -> None:
    """Delete all of an owner's, his photos too. What he has under way is cancelled, and goes soon. StorageError."""
    photos = {Path(photo) for photo in map(photo_of, queue.erase(owner)) if photo}
    for photo in photos - photos_in_use(queue):
        try:
            photo.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("a visitor's photo cannot be deleted: %s", exc.strerror)
    queue.purge(time.time() - UNDO_S)


def photos_in_use(queue: JobQueue) -> set[Path]:
    """Return the photos of the jobs that have not ended."""
    return {Path(photo) for photo in map(photo_of, queue.unfinished()) if photo}


def forget(folder: Path, days: float, in_use: AbstractSet[Path] = frozenset(), pattern: str = "*") -> None:
    """Delete what is older than this, wherever in the folder: files, and folders in which nothing is."""
    before = time.time() - days * 86400
    deepest_first = sorted(folder.rglob(pattern), key=lambda path: len(path.parts), reverse=True)
    for path in deepest_first:
        try:
            if path.lstat().st_mtime >= before or path in in_use:
                continue
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # something is in it
                    path.rmdir()
            else:
                path.unlink()
        except FileNotFoundError:  # somebody else tidies too
            continue
        except OSError as exc:
            log.warning("something in %s cannot be deleted: %s", folder, exc.strerror)  # its name is a photo's
