"""
Small copies of the pictures that were made here, for walls of them: WEBP, made when one is asked for, and stored among
the pictures in a folder of their own. Photos that people send are none of these pictures and are opened elsewhere.
"""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

from PIL import Image

from engines import files
from engines.errors import NotFoundError
from engines.jobs import THUMBNAILS

log = logging.getLogger(__name__)
FORMATS = ("PNG", "JPEG", "WEBP")  # in which pictures are written here
MOST_BYTES = 30_000
SIZES = ((384, 80), (384, 60), (384, 40), (256, 40), (192, 30))  # px of the longer side, quality: until it is small
PROFILE_BYTES = 4_000  # of a colour profile that goes along; the usual ones have 500 to 3,200
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # decoders, for files that were damaged


def place(picture: Path) -> Path:
    """Return where the small copy of a picture lies, or would."""
    return picture.parent / THUMBNAILS / f"{picture.name.partition('.')[0]}.webp"


def stored(picture: Path) -> bytes | None:
    """Return the small copy of a picture that is there. None: it was not made yet. NotFoundError: the picture went."""
    if not picture.is_file():
        raise NotFoundError("picture", picture.name)
    try:
        return place(picture).read_bytes()
    except OSError:
        return None


def make(picture: Path) -> bytes:
    """
    Return the small copy of a picture, 30 KB at most, and store it. It takes as long as decoding the picture, and
    150 MB for one of 50 megapixels. NotFoundError: the picture is not there, or is damaged.
    """
    try:
        with Image.open(picture, formats=FORMATS) as image:
            data = _small(image)
    except BROKEN as exc:
        raise NotFoundError("picture", picture.name) from exc
    try:
        files.write_atomic(place(picture), data)
    except OSError as exc:  # on a full disk people look for what they can delete
        log.warning("a thumbnail cannot be stored: %s", exc.strerror)
    return data


def _small(image: Image.Image) -> bytes:
    profile = image.info.get("icc_profile") or b""
    how = {"icc_profile": profile} if len(profile) <= PROFILE_BYTES else {}
    image.thumbnail((SIZES[0][0],) * 2, reducing_gap=2.0)
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    for size, quality in SIZES:
        small.thumbnail((size, size))
        small.save(data := io.BytesIO(), "WEBP", quality=quality, **how)
        if data.tell() <= MOST_BYTES:
            break
    return data.getvalue()


def delete_orphans(outputs: Path) -> None:
    """Delete the small copies of pictures that are not there any more: people tidy their folders too. OSError."""
    folder = outputs / THUMBNAILS
    if folder.is_dir():
        left = {path.name.partition(".")[0] for path in outputs.iterdir()}
        for path in folder.glob("*.webp"):
            if path.stem not in left:
                path.unlink(missing_ok=True)
