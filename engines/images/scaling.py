"""
A picture for a screen: as large as it is shown and no larger, cut about what matters in it, in a format that the screen
reads, with the colours that it has. Pictures are uint8 RGB (H, W, 3).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from engines import images
from engines.errors import ImageError
from engines.images import causes

Fit = Literal["auto", "contain", "cover"]
ScreenFormat = Literal["avif", "webp", "jpeg", "png"]
Palette = Literal["", "mono", "grey4", "grey16", "spectra6", "acep7"]
Focus = tuple[float, float]
Crop = tuple[float, float, float, float]  # left, top, width, height, in pixels of the picture
PORTRAIT: Focus = (0.5, 0.4)  # where faces are in a portrait, and higher than the middle in most photos
LOST = 0.2  # of a picture: what "auto" cuts off at most to fill a screen
QUALITY = {"avif": 62, "webp": 80, "jpeg": 85}
STEPS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)  # of the quality, where bytes are few
SMALLER = 0.8  # and after them of the sides
SMALLEST_PX = 16
GREYS = {"mono": 2, "grey4": 4, "grey16": 16}
# What panels call their pure colours. Their paper is darker and their inks duller, which drivers correct.
INKS = {
    "spectra6": ((0, 0, 0), (255, 255, 255), (255, 255, 0), (255, 0, 0), (0, 0, 255), (0, 255, 0)),
    "acep7": ((0, 0, 0), (255, 255, 255), (0, 255, 0), (0, 0, 255), (255, 0, 0), (255, 255, 0), (255, 128, 0)),
}


@dataclass(frozen=True, slots=True)
class Scaling:
    """
    A box of `width` by `height` pixels. `fit`: "contain" shows all of the picture, "cover" fills the box about `focus`
    (shares of the picture, from its left and upper edges; None: about the faces in it), "auto" covers where that cuts
    off little. Nothing is made larger than it is. `palette`: what an e-ink panel can show, in dots; then the format
    should be "png". `most_bytes`: 0, or how long the file may be; it gets coarser, and then smaller, until it is.
    """

    width: int
    height: int
    fit: Fit = "auto"
    focus: Focus | None = None
    format: ScreenFormat = "jpeg"
    palette: Palette = ""
    most_bytes: int = 0


def scaled(path: Path, how: Scaling) -> bytes:
    """Return the file of a picture for a screen. ImageError, ImageTooLarge: as images.read, or no file is so small."""
    pixels = images.read_shrunk(path, lambda width, height: share(width, height, how))
    height, width = pixels.shape[:2]
    if how.focus is None and _covers(width, height, how):
        from engines.images.focus import middle_of_faces  # with OpenCV, which most screens' pictures do not need

        how = replace(how, focus=middle_of_faces(pixels))
    left, top, crop_width, crop_height = crop(width, height, how)
    factor = share(width, height, how)
    size = max(1, round(crop_width * factor)), max(1, round(crop_height * factor))
    box = (left, top, left + crop_width, top + crop_height)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box, reducing_gap=2.0)
    return _encoded(small, how)


def share(width: int, height: int, how: Scaling) -> float:
    """Return in which part of its size an upright picture is needed, 1 at most."""
    sides = how.width / width, how.height / height
    return min(1.0, max(sides) if _covers(width, height, how) else min(sides))


def crop(width: int, height: int, how: Scaling) -> Crop:
    """Return what is shown of an upright picture: all of it, or a part in the shape of the box, about the focus."""
    focus = how.focus or PORTRAIT
    if not _covers(width, height, how):
        return 0.0, 0.0, float(width), float(height)
    aspect = how.width / how.height
    shown_width, shown_height = min(width, height * aspect), min(height, width / aspect)
    left = min(max(focus[0] * width - shown_width / 2, 0.0), width - shown_width)
    top = min(max(focus[1] * height - shown_height / 2, 0.0), height - shown_height)
    return left, top, shown_width, shown_height


def _covers(width: int, height: int, how: Scaling) -> bool:
    ratio = (width / height) / (how.width / how.height)
    return how.fit == "cover" or (how.fit == "auto" and min(ratio, 1 / ratio) >= 1 - LOST)


def _encoded(image: Image.Image, how: Scaling) -> bytes:
    while True:
        for quality in STEPS:
            data = _written(inked(image, how.palette), how.format, quality)
            if not how.most_bytes or len(data) <= how.most_bytes:
                return data
            if how.format == "png":
                break  # which has no quality
        if min(image.size) * SMALLER < SMALLEST_PX:
            raise ImageError(f"no picture is as small as {how.most_bytes} bytes", why=causes.NO_COPY)
        image = image.resize((int(image.width * SMALLER), int(image.height * SMALLER)), Image.Resampling.LANCZOS)


def _written(image: Image.Image, format: ScreenFormat, quality: float) -> bytes:
    data = io.BytesIO()
    if format == "png":
        image.save(data, "PNG", optimize=True)
    elif format == "avif":
        image.convert("RGB").save(data, "AVIF", quality=round(QUALITY[format] * quality), speed=9)
    elif format == "webp":
        image.convert("RGB").save(data, "WEBP", quality=round(QUALITY[format] * quality), method=2)
    else:
        image.convert("RGB").save(data, "JPEG", quality=round(QUALITY[format] * quality), optimize=True)
    return data.getvalue()


def inked(image: Image.Image, palette: Palette) -> Image.Image:
    """Return the picture in the colours that a panel has, with errors spread to neighbours (Floyd and Steinberg)."""
    if not palette:
        return image
    inks = INKS.get(palette) or _greys(GREYS[palette])
    colours = Image.new("P", (1, 1))
    colours.putpalette(np.array(inks, np.uint8).tobytes())
    return image.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG)


def _greys(count: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((level,) * 3 for level in np.linspace(0, 255, count).round().astype(int).tolist())
