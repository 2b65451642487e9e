"""
A photo as the start of a portrait: whether a bundle can begin with one, and what of it is shown at the picture's size.

Knows pixels and faces; no engine, and nothing of noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engines.bundle import Bundle
from engines.errors import OptionError
from engines.faces.detection import Face
from engines.images import Pixels
from engines.images.decoder import SHARED, Decoder
from engines.messages import Generate


def read(r: Generate, bundle: Bundle, decoder: Decoder = SHARED) -> Pixels | None:
    """
    (H, W, 3), upright, in sRGB, on white; None: the request begins with noise alone. OptionError: this bundle has no
    encoder. ImageError.
    """
    if not r.start:
        return None
    if not bundle.has("encoder"):
        raise OptionError("start", "photo", "none with this model")
    return decoder.read(Path(r.start))


def nearest(photo: Pixels, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (width, height) whose shape is closest to the photo's; of equal shapes the first."""
    height, width = photo.shape[:2]
    return min(sizes, key=lambda size: abs(math.log(size[0] * height / (size[1] * width))))


def fitted(photo: Pixels, width: int, height: int, faces: Sequence[Face]) -> Pixels:
    """
    As much of the photo as has this shape, about its largest face or else about its middle, at this size. (height,
    width, 3)
    """
    top, left, rows, columns = _window(photo, width, height, faces)
    window = photo[top : top + rows, left : left + columns]
    method = cv2.INTER_AREA if rows > height else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(window, (width, height), interpolation=method), dtype=np.uint8)


def _window(photo: Pixels, width: int, height: int, faces: Sequence[Face]) -> tuple[int, int, int, int]:
    """top, left, rows, columns"""
    across, down = photo.shape[1], photo.shape[0]
    scale = min(across / width, down / height)
    rows, columns = max(1, min(down, round(height * scale))), max(1, min(across, round(width * scale)))
    box = max(faces, key=lambda face: face.size_px).box if faces else (0, 0, across, down)
    top, left = (box[1] + box[3] - rows) / 2, (box[0] + box[2] - columns) / 2
    return round(np.clip(top, 0, down - rows)), round(np.clip(left, 0, across - columns)), rows, columns
