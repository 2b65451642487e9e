"""
What happens to a photo around its restored face: how much of the network's change is taken, and the classic controls.

Knows pixels only: uint8 RGB (H, W, 3) in and out; no network, no files. Strengths are 0..1. Large photos are worked on
in bands of rows, so that no copy in floating point is ever larger than a band.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.messages import RestoreMode

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
SOFT_PX = 12.0  # at the network's size: what is coarser than this counts as light and colour, finer as detail
CHROMA_LIMIT = 2.0  # CIELAB; about the smallest shift of skin colour that people notice
BAND_PX = 256


def to_square(pixels: Pixels, size_px: int) -> Pixels:
    """The whole picture brought into the middle of the network's square; the rim repeats the edge. (N, N, 3)"""
    height, width = pixels.shape[:2]
    top, left, inner_height, inner_width = _inside(height, width, size_px)
    shrink = inner_height < height
    small = cv2.resize(pixels, (inner_width, inner_height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    bottom, right = size_px - inner_height - top, size_px - inner_width - left
    return np.asarray(cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_REPLICATE), dtype=np.uint8)


def _inside(height: int, width: int, size_px: int) -> tuple[int, int, int, int]:
    """Where a picture of this shape lies in the square: top, left, height, width."""
    longer = max(height, width)
    inner_height, inner_width = (max(1, round(side * size_px / longer)) for side in (height, width))
    return (size_px - inner_height) // 2, (size_px - inner_width) // 2, inner_height, inner_width


def take_change(pixels: Pixels, before: Pixels, after: Pixels, strength: float, mode: RestoreMode) -> Pixels:
    """
    Add what the network changed in the square (before -> after) to the full picture, which keeps its own resolution.

    natural: half of the change in light and colour, all of the detail; strong: all of both; detail: all, and half of
    the detail once more.
    """
    change = after.astype(np.float32) - before.astype(np.float32)
    coarse = cv2.GaussianBlur(change, (0, 0), SOFT_PX)
    fine = change - coarse
    weights = {"natural": (0.5, 1.0), "strong": (1.0, 1.0), "detail": (1.0, 1.5)}[mode]
    chosen = cv2.addWeighted(coarse, weights[0] * strength, fine, weights[1] * strength, 0)
    height, width = pixels.shape[:2]
    top, left, inner_height, inner_width = _inside(height, width, before.shape[0])
    inner = np.asarray(chosen[top : top + inner_height, left : left + inner_width], dtype=np.float32)
    result = np.empty_like(pixels)
    for rows in _bands(height):
        result[rows] = _u8(pixels[rows] + _enlarged(inner, height, width, rows))
    return result


def _enlarged(small: Floats, height: int, width: int, rows: slice) -> Floats:
    """The given rows of `small` enlarged to (height, width), pixel areas aligned: x_small = (x + 1/2) * scale - 1/2."""
    scale_x, scale_y = small.shape[1] / width, small.shape[0] / height
    to_small = np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, (rows.start + 0.5) * scale_y - 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = (width, rows.stop - rows.start)
    enlarged = cv2.warpAffine(small, to_small, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(enlarged, dtype=np.float32)


def hold_chroma(source: Pixels, changed: Pixels, limit: float = CHROMA_LIMIT) -> Pixels:
    """Keep the new lightness, but let colour move no further than `limit` in the a, b plane of CIELAB."""
    result = changed.copy()
    for rows in _bands(source.shape[0]):
        was, now = _lab(source[rows]), _lab(changed[rows])
        shift = now[..., 1:] - was[..., 1:]
        distance = np.linalg.norm(shift, axis=-1, keepdims=True)
        too_far = distance > limit
        now[..., 1:] = was[..., 1:] + shift * (limit / np.maximum(distance, limit)).astype(np.float32)
        held = _u8(cv2.cvtColor(now, cv2.COLOR_LAB2RGB) * 255)
        np.copyto(result[rows], held, where=too_far)
    return result


def denoise(pixels: Pixels, strength: float) -> Pixels:
    """Edge-keeping smoothing; at 1, differences below about a quarter of the range are evened out. (Tomasi & Manduchi
    1998)
    """
    if strength <= 0:
        return pixels
    return np.asarray(cv2.bilateralFilter(pixels, 7, 70 * strength, 3), dtype=np.uint8)


def sharpen(pixels: Pixels, strength: float) -> Pixels:
    """Unsharp mask of radius 1.5 px; at 1, detail counts two and a half times."""
    if strength <= 0:
        return pixels
    amount = 1.5 * strength
    soft = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    return np.asarray(cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0), dtype=np.uint8)


def adjust(pixels: Pixels, contrast: float, brightness: float) -> Pixels:
    """0.5 leaves as is; contrast turns about mid-grey from 0.5 to 1.5 times, brightness shifts by up to a quarter."""
    if contrast == 0.5 and brightness == 0.5:
        return pixels
    levels = (np.arange(256) - 127.5) * (0.5 + contrast) + 127.5 + 128 * (brightness - 0.5)
    return np.asarray(cv2.LUT(pixels, _u8(levels)), dtype=np.uint8)


def _bands(height: int) -> Iterator[slice]:
    for start in range(0, height, BAND_PX):
        yield slice(start, min(start + BAND_PX, height))


def _lab(pixels: Pixels) -> Floats:
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _u8(x: NDArray[Any]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    return rounded
