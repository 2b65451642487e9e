"""
Uploaded photos on disk, named by their content: the queue keeps a path, so a job outlives the page that sent the photo.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from engines.errors import ImageError, StorageError

PIECE_BYTES = 1 << 20


def keep(source: BinaryIO, folder: Path) -> Path:
    """Store what can be read from `source`. ImageError: nothing. StorageError: the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{uuid4().hex}.tmp"
        try:
            return beside.replace(folder / _copy(source, beside)[:32])
        finally:
            beside.unlink(missing_ok=True)
    except OSError as exc:
        raise StorageError(f"{folder}: {exc.strerror}", why=exc.strerror or "?") from exc


def _copy(source: BinaryIO, target: Path) -> str:
    """The checksum of what was copied. ImageError: it was nothing."""
    digest = hashlib.sha256()
    with target.open("xb") as copy:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
        if not copy.tell():
            raise ImageError("the file is empty")
    return digest.hexdigest()


def forget(folder: Path, days: int) -> None:
    """Delete what was stored longer ago than this."""
    before = time.time() - days * 86400
    for path in folder.glob("*"):
        if path.is_file() and path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
