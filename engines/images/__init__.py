"""
Bytes <-> pictures: the only place that decodes, orients, strips and writes them. Between modules a picture is uint8 RGB
(H, W, 3).

Nothing of an uploaded file but its pixels goes on: no EXIF, no thumbnails, no colour profile, no text.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
import unicodedata
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from engines import files
from engines.errors import StorageError
from engines.images.opening import ODD_EXIF, Share, mapped_errors, opened, upright
from engines.messages import PhotoFormat

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
GREY, COLOURED = 3.0, 24.0  # distance between largest and smallest channel in levels: a grey picture's mean; its most
PREVIEW_PREFIX = "preview_"
NAME_BYTES = 180  # of a photo's own name: with all that is put around it, disks take it
# The time, a number for the next ones within that second, and of a photo what its owner called it.
PICTURE_NAME = re.compile(r"outputs_\d{14}(_\d{3,})?(-[\w-]{1,60})?\.(png|jpg|webp)")
SUFFIXES: dict[PhotoFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
TAKEN, CAMERA, TAKEN_BY_CAMERA, USER_COMMENT = 0x0132, 0x8769, 0x9003, 0x9286  # EXIF; the last two are in the second


@dataclass(frozen=True)
class Photo:
    """
    A picture with what of its file goes on: transparency (H, W) or none, the profile that its RGB numbers are meant in,
    whether it was grey, when it was taken ("2004:05:06 07:08:09", or empty), and the share of it, from the bottom, that
    its file does not have any more.
    """

    pixels: Pixels
    alpha: NDArray[np.uint8] | None = None
    profile: bytes = b""
    grey: bool = False
    taken: str = ""
    missing: float = 0.0


def read(path: Path) -> Pixels:
    """Read an uploaded file, upright, in sRGB, on white. ImageError: no picture we read, or broken. ImageTooLarge."""
    with opened(path) as picture:
        return np.array(_to_rgb(upright(_to_srgb(picture.image), path)))


def read_shrunk(path: Path, share: Share) -> Pixels:
    """
    Read as `read`. A JPEG of which a smaller copy is needed is decoded in an eighth, a quarter or half of its size, if
    that is enough: of 50 megapixels in 0.2 s instead of 1.5.
    """
    with opened(path, share) as picture:
        return np.array(_to_rgb(upright(_to_srgb(picture.image), path)))


def read_photo(path: Path) -> Photo:
    """Read an uploaded file, upright, in its own colours. ImageError, ImageTooLarge: as read."""
    with opened(path) as picture:
        image = picture.image
        taken, profile = _taken(image), _profile(image)
        image = _to_8_bits(upright(image if profile else _to_srgb(image), path))
        alpha = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.array(image.getchannel("A"))
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return Photo(pixels, alpha, profile, _is_grey(pixels), taken, picture.missing)


def shown_by_browsers(path: Path) -> bool:
    """Whether a file that can be read is of a format that browsers show too; HEIC and TIFF are not. ImageError."""
    with mapped_errors(path), path.open("rb") as file:
        head = file.read(12)
    return head[8:12] in (b"avif", b"avis") if head[4:8] == b"ftyp" else head[:2] not in (b"II", b"MM")


def _taken(image: Image.Image) -> str:
    """Return when a photo was taken, if that looks like a time: the rest of the metadata is nobody's business."""
    said = ""
    with contextlib.suppress(*ODD_EXIF):
        exif = image.getexif()
        said = str(exif.get_ifd(CAMERA).get(TAKEN_BY_CAMERA) or exif.get(TAKEN) or "")
    return said if re.fullmatch(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d", said) else ""


def _profile(image: Image.Image) -> bytes:
    """Return the file's colour profile, if the numbers are RGB and it says what they mean."""
    data: bytes = image.info.get("icc_profile") or b""
    if not data or image.mode not in ("RGB", "RGBA"):
        return b""
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile.xcolor_space
    except (ImageCms.PyCMSError, OSError):
        return b""
    return data if space.strip() == "RGB" else b""


def _is_grey(pixels: Pixels) -> bool:
    """Whether a picture is grey: scans of grey prints are RGB files, and JPEG and scanners leave a little colour."""
    step = max(1, max(pixels.shape[:2]) // 1024)
    sample = pixels[::step, ::step]
    spread = sample.max(-1) - sample.min(-1)
    return bool(spread.mean() < GREY and np.percentile(spread, 99.9) < COLOURED)  # a face in the snow has colour


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB: today's phones take photos in wider colour spaces, and without a profile colours would shift."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a profile that makes no sense is no reason to refuse the picture
        return image
    return converted or image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit greys arrive as I;16 or I; TIFFs may have fractions, from 0 to 1, to 255 or to 65535, or CIE Lab."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if not image.mode.startswith(("I", "F")):
        return image
    levels = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    largest = levels.max(initial=0.0) if image.mode == "F" else 65535.0
    white = next((white for white in (1.0, 255.0) if largest <= white), 65535.0)
    return Image.fromarray(np.rint(levels.clip(0, white) * (255 / white)).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    image = _to_8_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def fit(pixels: Pixels, side_px: int) -> Pixels:
    """Shrink a picture so that no side is longer than this; smaller ones stay as they are."""
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return np.array(image)


def write_output(folder: Path, pixels: Pixels, text: str) -> str:
    """Save as outputs_YYYYMMDDHHMMSS.png, then _001 ... within that second. Returns the name. StorageError: the disk
    refuses.
    """
    return _claimed(folder, _encoded(Image.fromarray(pixels), "png", text), ".png")


def write_photo(folder: Path, photo: Photo, text: str, format: PhotoFormat, quality: int, name: str) -> str:
    """
    Save as write_output does, in the given format, with the photo's transparency (white in JPEG), profile and, if it
    has one, time; `name` is what its owner called it. Returns the name.
    """
    image = Image.fromarray(photo.pixels)
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
        image = _to_rgb(image) if format == "jpeg" else image
    elif photo.grey and not photo.profile and not np.ptp(photo.pixels, axis=-1).any():
        image = image.convert("L")
    more = {"icc_profile": photo.profile} if photo.profile else {}
    data = _encoded(image, format, text, quality=quality, exif=_exif(photo, format, text), **more)
    stem = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", Path(name).stem)).strip("-_")[:60]
    stem = stem.encode()[:NAME_BYTES].decode(errors="ignore")
    return _claimed(folder, data, f"-{stem}.{SUFFIXES[format]}" if stem else f".{SUFFIXES[format]}")


def _exif(photo: Photo, format: PhotoFormat, text: str) -> Image.Exif:
    """Return EXIF with the time, and the text for formats without another place, where A1111's tools look for it."""
    exif = Image.Exif()
    if photo.taken:
        exif[TAKEN] = photo.taken
        exif.get_ifd(CAMERA)[TAKEN_BY_CAMERA] = photo.taken
    if format != "png":
        exif.get_ifd(CAMERA)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif


def _encoded(image: Image.Image, format: PhotoFormat, text: str, **more: Any) -> bytes:
    data = io.BytesIO()
    if format == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", text)  # read back by every tool that knows A1111's pictures
        more.pop("quality", None)
        image.save(data, "PNG", pnginfo=info, compress_level=4, **more)
    elif format == "webp":
        image.save(data, "WEBP", method=2, **more)
    else:
        image.save(data, "JPEG", subsampling=0, **more)
    return data.getvalue()


def _claimed(folder: Path, data: bytes, ending: str) -> str:
    stem = time.strftime("outputs_%Y%m%d%H%M%S")
    names = chain([stem + ending], (f"{stem}_{i:03}{ending}" for i in count(1)))
    with mapped_storage(folder), files.temporary(folder) as beside:
        beside.write_bytes(data)
        files.sync(beside)
        return next(name for name in names if claim(beside, folder / name))


def write_png(path: Path, pixels: Pixels) -> None:
    """Save pixels exactly as they are, and nothing else, in an existing folder."""
    Image.fromarray(pixels).save(path, "PNG", optimize=True)


def write_preview(folder: Path, pixels: Pixels, profile: bytes = b"") -> str:
    """Save a small picture for the eyes only. Returns the name."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "WEBP", quality=80, method=0, icc_profile=profile)
    name = f"{PREVIEW_PREFIX}{uuid.uuid4().hex}.webp"
    with mapped_storage(folder):
        files.write_atomic(folder / name, data.getvalue())  # not durable: a preview is not worth waiting for the disk
    return name


def claim(beside: Path, path: Path) -> bool:
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
def mapped_storage(folder: Path) -> Iterator[None]:
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
