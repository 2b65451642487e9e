"""
Uploaded photos on disk, named by their content: the queue keeps a path, so a job outlives the page that sent the photo.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from engines import files
from engines.errors import ImageError, StorageError
from engines.images.causes import EMPTY

PIECE_BYTES = 1 << 20
NAME_LETTERS = 255  # of a file's name, as file systems have it


@dataclass(frozen=True)
class Upload:
    """A file in the page's cache, and what its owner calls it."""

    path: str
    name: str


def received(folder: Path, payload: Any) -> Upload | None:
    """
    Return the file that a page sent, unopened. ValueError: not a file in `folder`, where uploads arrive.
    """
    if payload is None:
        return None
    path = Path(payload.path or "").resolve()
    if not (path.is_relative_to(folder) and path.is_file()):  # the folder itself is none
        raise ValueError("not a file that was uploaded")
    return Upload(str(path), own_name(payload.orig_name or path.name))


def lend(picture: Path, cache: Path, name: str = "") -> str:
    """
    Return where a copy of a picture lies in the page's cache, as if it had been chosen there. `name`: what it is called
    there, if not as it is. OSError.
    """
    folder = cache / uuid4().hex
    folder.mkdir(parents=True)
    return str(shutil.copyfile(picture, folder / (name or picture.name)))


def received_many(folder: Path, payload: Any) -> list[Upload]:
    uploads = (received(folder, file) for file in (payload or ()))
    return [upload for upload in uploads if upload is not None]


def own_name(name: str) -> str:
    """Return a file's name without its owner's folders; of a long one the end, as it tells the kind."""
    return re.split(r"[/\\]", name)[-1][-NAME_LETTERS:]


def keep(source: BinaryIO, folder: Path) -> Path:
    """Store what can be read from `source`. ImageError: nothing. StorageError: the disk refuses."""
    try:
        with files.temporary(folder) as beside:
            return beside.replace(folder / _copy(source, beside)[:32])
    except OSError as exc:
        raise StorageError(f"{folder}: {exc.strerror}", why=exc.strerror or "?") from exc


def _copy(source: BinaryIO, target: Path) -> str:
    """Return the checksum of what was copied. ImageError: it was nothing."""
    digest = hashlib.sha256()
    with target.open("xb") as copy:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
        if not copy.tell():
            raise ImageError("the file is empty", why=EMPTY)
    return digest.hexdigest()
