"""
Opening a stranger's picture: which formats are read, what is refused by its header, how it is turned, and what there is
of a JPEG whose end is missing. What becomes of the pixels is not known here.
"""

from __future__ import annotations

import contextlib
import math
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from engines.errors import ImageError, ImageTooLarge
from engines.images import boxes, causes, endings

# MPO, which many phones write into .jpg, opens as JPEG. Of several pictures in a file the first is read.
READABLE = ("JPEG", "PNG", "WEBP", "HEIF", "TIFF", "AVIF", "BMP", "GIF")
MAX_MEGAPIXELS = 50
# Of a progressive JPEG, each of which goes over the whole picture again: encoders write ten or so, a file of 400 KB can
# have thousands, which take minutes. (libjpeg-turbo, "Two issues with the JPEG standard", 2019)
MAX_SCANS = 100
START_OF_SCAN = b"\xff\xda"  # in no scan's data, where a 0 follows each 255 (ITU T.81, B.1.1.2)
MISSING = 128  # the level of what a baseline JPEG's file does not have: all its coefficients are 0 there
LEAST = 0.05  # of a picture's height, of which there has to be something: the first blocks may come of nothing
MISSING_LEVELS = 2  # how far colour conversion may take it from there
BROKEN = (SyntaxError, ValueError, EOFError, TypeError, RuntimeError, struct.error)  # decoders, for broken files
ODD_EXIF = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, struct.error)
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # EXIF; those by which width and height change places
# Of a TIFF: what cameras' raw files have, whose first picture is a thumbnail. (DNG 1.6; TIFF 6.0, NewSubfileType)
DNG_VERSION, SUB_IFDS, NEW_SUBFILE, REDUCED = 50706, 330, 254, 1
Share = Callable[[int, int], float]  # from an upright picture's width and height: the size in which it is needed


@dataclass(frozen=True)
class Opened:
    """A decoded picture as it is stored. `missing`: the share of it, 0 to 1, that its file does not have any more."""

    image: Image.Image
    missing: float = 0.0


@contextlib.contextmanager
def opened(path: Path, share: Share | None = None) -> Iterator[Opened]:
    """
    Open and decode a file. With a `share`, a JPEG of which a smaller copy is needed may be decoded in an eighth, a
    quarter or half of its size. ImageError: no picture we read, or broken; ImageTooLarge.
    """
    register_heif_opener(thumbnails=False)
    with mapped_errors(path), Image.open(path, formats=READABLE) as image:
        _check(image, path)
        if share is not None:
            needed = share(*(image.size[::-1] if _is_lying(image) else image.size))
            image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
        yield Opened(image, _load(image, path))


def _check(image: Image.Image, path: Path) -> None:
    """Refuse by its header what is too large, and a thumbnail in the place of a picture."""
    megapixels = image.width * image.height / 1e6
    if megapixels > MAX_MEGAPIXELS:  # before a pixel is decoded
        raise ImageTooLarge(f"{megapixels:.0f} megapixels", megapixels=round(megapixels), limit=MAX_MEGAPIXELS)
    if image.format in ("JPEG", "MPO") and (scans := path.read_bytes().count(START_OF_SCAN)) > MAX_SCANS:
        raise ImageError(f"a JPEG of {scans} scans", why=causes.TOO_MANY_SCANS)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]  # which a TIFF has
        if DNG_VERSION in tags or (SUB_IFDS in tags and tags.get(NEW_SUBFILE) == REDUCED):
            raise ImageError("a camera's raw file", why=causes.RAW)


def _load(image: Image.Image, path: Path) -> float:
    """Decode it, and of a JPEG that breaks off what there is. Return the share that is missing."""
    try:
        image.load()
        return 0.0
    except OSError:
        if image.format not in ("JPEG", "MPO") or endings.is_whole(path.resolve()):
            raise
    try:
        ImageFile.LOAD_TRUNCATED_IMAGES = True  # of this process, in which one picture is read at a time
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    missing = _missing(image)
    if missing > 1 - LEAST:
        raise ImageError("a JPEG without pixels", why=causes.CUT_OFF)
    return missing


def _missing(image: Image.Image) -> float:
    """
    Return the share of rows, from the bottom, of which there is nothing. A progressive JPEG has less detail there
    instead, and how much less cannot be said.
    """
    pixels = np.asarray(image).reshape(image.height, -1)
    if image.mode == "CMYK":  # stored the other way round, and what is missing with it
        pixels = pixels.reshape(-1, 4)[:, :3].reshape(image.height, -1)
    filled = ((pixels < MISSING - MISSING_LEVELS) | (pixels > MISSING + MISSING_LEVELS)).any(1)
    return float(1 - (np.flatnonzero(filled)[-1] + 1) / image.height) if filled.any() else 1.0


def upright(image: Image.Image, path: Path) -> Image.Image:
    """
    Turn a picture as its EXIF says; one that makes no sense says nothing. A HEIC or AVIF is turned by its boxes
    already, and by EXIF where it has none of those.
    """
    with contextlib.suppress(*ODD_EXIF):
        if (by_exif := _without_boxes(image, path)) is not None:
            image.getexif()[ORIENTATION] = by_exif
        ImageOps.exif_transpose(image, in_place=True)  # large photos are not copied without need
    return image


def _without_boxes(image: Image.Image, path: Path) -> int | None:
    """Return the orientation in the EXIF of a HEIC or AVIF that no box turns, which decoders have left out."""
    if image.format == "HEIF":
        orientation = image.info.get("original_orientation")
    elif image.format == "AVIF":
        stored = Image.Exif()
        stored.load(image._decoder.get_info()[4] or b"")  # type: ignore[attr-defined]  # as its file has it
        orientation = stored.get(ORIENTATION)
    else:
        return None
    return orientation if orientation and not boxes.is_turned(path) else None


def _is_lying(image: Image.Image) -> bool:
    with contextlib.suppress(*ODD_EXIF):
        return image.getexif().get(ORIENTATION) in LYING
    return False


@contextlib.contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Turn what decoders say of a file into ImageError, with the cause that its bytes tell, and ImageTooLarge."""
    try:
        with warnings.catch_warnings():  # only the worker's thread reads pictures, so nobody is in the way
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is thrown away
            yield
    except UnidentifiedImageError as exc:
        raise ImageError("not a picture that is read here", why=_cause(path)) from exc
    except Image.DecompressionBombError as exc:
        raise ImageTooLarge(str(exc), megapixels=179, limit=MAX_MEGAPIXELS) from exc
    except OSError as exc:  # its text may name a path, which is nobody's business
        why = exc.strerror or _cause(path)
        raise ImageError(f"the picture cannot be read: {why}", why=why) from exc
    except BROKEN as exc:
        raise ImageError(f"the picture is broken: {exc}", why=_cause(path)) from exc


def _cause(path: Path) -> str:
    """Return the cause; a path may be none at all."""
    try:
        return causes.cause(path)
    except (OSError, ValueError):
        return causes.DAMAGED
