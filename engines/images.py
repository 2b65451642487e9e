"""
Bytes <-> pictures: the only place that decodes, orients, strips and writes them. Between modules a picture is uint8 RGB
(H, W, 3).

Nothing of an uploaded file but its pixels goes on: no EXIF, no thumbnails, no colour profile, no text.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from engines.errors import ImageError, ImageTooLarge, NotFoundError, StorageError

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
READABLE = ("JPEG", "PNG", "WEBP")  # MPO, which many phones write into .jpg, opens as JPEG
MAX_MEGAPIXELS = 50
PREVIEW_PREFIX = "preview_"
NEGATIVE_SUFFIX = ".negative.npz"
PICTURE_NAME = re.compile(r"outputs_\d{14}(_\d{3,})?\.png")


def read(path: Path) -> Pixels:
    """An uploaded file, upright. ImageError: not a picture we read, or broken. ImageTooLarge: over MAX_MEGAPIXELS."""
    with _mapped_errors(), Image.open(path, formats=READABLE) as image:
        megapixels = image.width * image.height / 1e6
        if megapixels > MAX_MEGAPIXELS:  # known from the header, before a pixel is decoded
            raise ImageTooLarge(f"{megapixels:.0f} megapixels", megapixels=round(megapixels), limit=MAX_MEGAPIXELS)
        image.load()
        return np.array(_to_rgb(ImageOps.exif_transpose(_to_srgb(image))))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Photos of today's phones are in wider colour spaces; without their profile their colours would shift."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a profile that makes no sense is no reason to refuse the picture
        return image
    return converted or image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16-bit greys arrive as I;16 or I
        levels = np.asarray(image, dtype=np.float32)
        image = Image.fromarray(np.rint(levels.clip(0, 65535) / 257).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


@contextlib.contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():  # only the worker's thread reads pictures, so nobody is in the way
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is thrown away
            yield
    except UnidentifiedImageError as exc:
        raise ImageError("not a JPEG, PNG or WEBP picture") from exc
    except Image.DecompressionBombError as exc:
        raise ImageTooLarge(str(exc), megapixels=179, limit=MAX_MEGAPIXELS) from exc
    except OSError as exc:  # its text may name a path, which is nobody's business
        raise ImageError(f"the picture cannot be read: {exc.strerror or 'broken file'}") from exc
    except (SyntaxError, ValueError, EOFError, TypeError, struct.error) as exc:  # Pillow's decoders, for broken files
        raise ImageError(f"the picture is broken: {exc}") from exc


def fit(pixels: Pixels, side_px: int) -> Pixels:
    """No side longer than this; smaller pictures stay as they are."""
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return np.array(image)


def write_output(folder: Path, pixels: Pixels, text: str) -> str:
    """Save as outputs_YYYYMMDDHHMMSS.png, then _001 ... within that second. Returns the name. StorageError: the disk
    refuses.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)  # read back by every tool that knows A1111's pictures
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", pnginfo=info, compress_level=4)
    stem = time.strftime("outputs_%Y%m%d%H%M%S")
    names = chain([f"{stem}.png"], (f"{stem}_{i:03}.png" for i in count(1)))
    with _mapped_storage(folder):
        beside = _write_beside(folder, data.getvalue(), durable=True)
        name = next(name for name in names if _claim(beside, folder / name))
        beside.unlink(missing_ok=True)
        return name


def write_png(path: Path, pixels: Pixels) -> None:
    """Pixels exactly as they are, and nothing else, in an existing folder."""
    Image.fromarray(pixels).save(path, "PNG", optimize=True)


def write_preview(folder: Path, pixels: Pixels) -> str:
    """Save a small picture for the eyes only. Returns the name."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "WEBP", quality=80, method=0)
    name = f"{PREVIEW_PREFIX}{uuid.uuid4().hex}.webp"
    with _mapped_storage(folder):
        _write_beside(folder, data.getvalue(), durable=False).replace(folder / name)
    return name


@dataclass(frozen=True)
class Negative:
    """What is kept of a picture that only the tiny decoder has seen, so that the full one can draw it later."""

    latents: NDArray[np.float32]
    bundle: str
    seed: int
    text: str


def write_negative(picture: Path, negative: Negative) -> None:
    """Save it beside its picture, whole or not at all."""
    data = io.BytesIO()
    note = json.dumps([negative.bundle, negative.seed, negative.text])
    np.savez(data, allow_pickle=False, latents=negative.latents, note=np.array(note))
    path = picture.with_suffix(NEGATIVE_SUFFIX)
    with _mapped_storage(path.parent):
        _write_beside(path.parent, data.getvalue(), durable=True).replace(path)


def read_negative(folder: Path, name: str) -> Negative:
    """NotFoundError: no such picture, or nothing was kept of it. ImageError: what was kept is damaged."""
    if not PICTURE_NAME.fullmatch(name):
        raise NotFoundError("kept latent", name)
    try:
        data = (folder / name).with_suffix(NEGATIVE_SUFFIX).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            return Negative(kept["latents"], *json.loads(str(kept["note"])))
    except OSError as exc:
        raise NotFoundError("kept latent", name) from exc
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as exc:
        raise ImageError(f"what was kept of {name} is damaged") from exc


def _write_beside(folder: Path, data: bytes, durable: bool) -> Path:
    """`durable` waits for the disk; a preview is not worth that."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        with beside.open("xb") as f:
            f.write(data)
            f.flush()
            if durable:
                os.fsync(f.fileno())
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def _claim(beside: Path, path: Path) -> bool:
    """Give a finished file its name unless the name is taken. A link cannot overwrite; file systems without links get a
    rename.
    """
    try:
        os.link(beside, path)
        return True
    except FileExistsError:
        return False
    except OSError:
        if path.exists():
            return False
        beside.rename(path)
        return True


@contextlib.contextmanager
def _mapped_storage(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{folder}: {exc.strerror}", why=exc.strerror or "?") from exc


def remove_old_previews(folder: Path, older_than_s: float) -> None:
    before = time.time() - older_than_s
    for path in folder.glob(f"{PREVIEW_PREFIX}*.webp"):
        with contextlib.suppress(OSError):  # another worker tidies too, or the disk is read-only
            if path.stat().st_mtime < before:
                path.unlink()
