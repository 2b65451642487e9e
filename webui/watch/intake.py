"""
How a photo of the inbox becomes a job: it is copied among the uploads, the copy is proved to be of a file that held
still, and what will be submitted is written down before it is. A restart at any point goes on from there, as the copy
bears its checksum as its name, and by that its job is recognised. Originals are opened for reading, and never locked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engines import files
from engines.errors import StorageError
from engines.jobs import JobQueue
from engines.messages import Enhance, PhotoFormat, photo_of
from webui.uploads import own_name
from webui.watch.ledger import Content, Ledger
from webui.watch.scan import Stamp

OWNER = "watch"  # no person's: those are numbers drawn by lot, or begin with "token:"
PIECE_BYTES = 1 << 20
# How many of the owner's latest jobs are looked through for one that was submitted and not written down. It is the very
# latest, as the next is submitted only when this one was written down.
LATEST = 4
# What is not written becomes the nearest that is: what keeps every level PNG, and photos, HEIC say, JPEG.
FORMATS: dict[str, PhotoFormat] = {
    **dict.fromkeys((".png", ".apng", ".tif", ".tiff", ".bmp", ".gif"), "png"),
    ".webp": "webp",
}


class Changed(Exception):
    """The file is another than the one that had settled: it settles anew."""


class Unreadable(Exception):
    """The inbox does not give the file away. `cause`: what the system says."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror or str(cause))


@dataclass(frozen=True)
class Intake:
    """`clock`: seconds since 1970."""

    queue: JobQueue
    ledger: Ledger
    inbox: Path
    uploads: Path
    clock: Callable[[], float]

    def take(self, path: str, stamp: Stamp) -> None:
        """
        Copy a settled file, and write down that its bytes are to be restored, or that they were. Changed, Unreadable:
        of the file. StorageError: of this machine's own disk.
        """
        try:
            with files.temporary(self.uploads) as beside:
                sha256 = _copy(self.inbox / path, stamp, beside)
                content = self.ledger.content(sha256)
                if content is not None and content.state not in ("failed", "gone"):
                    self.ledger.note(path, stamp, sha256)
                    return
                files.sync(beside)
                beside.replace(self.upload(sha256))
        except OSError as exc:
            raise StorageError(f"{self.uploads}: {exc.strerror}", why=exc.strerror or "?") from exc
        self.ledger.intend(path, stamp, sha256)  # what failed is tried again: its file was changed, if only its time

    def upload(self, sha256: str) -> Path:
        return self.uploads / f"watch-{sha256}"

    def submit(self, content: Content) -> None:
        """Submit what was intended, or find that it was. QueueFull, StorageError: it is still to be done."""
        upload, photos = self.upload(content.sha256), self.ledger.photos_of(content.sha256)
        job = self._submitted_already(content, upload)
        if not job and not (photos and upload.is_file()):  # no file has these bytes any more, or their copy was tidied
            self.ledger.forget(content.sha256)
            return
        job = job or self.queue.submit_all([_request(photos[0].path, upload)], OWNER, "batch")[0]
        self.ledger.submitted(content.sha256, job, self.clock())

    def _submitted_already(self, content: Content, upload: Path) -> str:
        """Return the job that a crash has kept from being written down; empty: there is none."""
        latest = (job for job in self.queue.latest_of(OWNER, LATEST) if photo_of(job.request) == str(upload))
        newest = next(latest, None)
        return newest.id if newest is not None and newest.id != content.job else ""


def _request(path: str, upload: Path) -> Enhance:
    kind = FORMATS.get(PurePosixPath(path).suffix.lower(), "jpeg")
    return Enhance(str(upload), name=own_name(shown(path)), format=kind, keep_date=True, auto=True)


def shown(path: str) -> str:
    """Return a path as text: of a name that is none, what cannot be read is replaced."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def _copy(source: Path, stamp: Stamp, target: Path) -> str:
    """
    Return the checksum of what was copied. Changed: size or time are not those, before or after. Unreadable. OSError:
    the target refuses.
    """
    digest = hashlib.sha256()
    with target.open("xb") as copy:
        for piece in _pieces(source, stamp):
            digest.update(piece)
            copy.write(piece)
        if copy.tell() != stamp[0]:
            raise Changed
    return digest.hexdigest()


def _pieces(source: Path, stamp: Stamp) -> Iterator[bytes]:
    """Yield a file's bytes, as long as it has this stamp before and after, by its name too. Changed. Unreadable."""
    try:
        with os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            _check(os.fstat(file.fileno()), stamp)
            while piece := file.read(PIECE_BYTES):
                yield piece
        _check(os.lstat(source), stamp)
    except FileNotFoundError as exc:
        raise Changed from exc
    except OSError as exc:
        raise Unreadable(exc) from exc


def _check(stat: os.stat_result, stamp: Stamp) -> None:
    if (stat.st_size, stat.st_mtime_ns) != stamp:
        raise Changed
