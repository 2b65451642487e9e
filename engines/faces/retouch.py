"""
What happens to a photo beside its faces' network: how much of the network's change is taken, the classic controls, and
repairs of old prints.

Knows pixels only: uint8 RGB (H, W, 3) in and out; no network, no files. Strengths are 0..1, and 0 gives the picture
back untouched. Large photos are worked on in bands of rows, so that no floating-point copy is ever larger than a band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.messages import RestoreMode

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Where no measurement or source is named, a number was set by hand, and no record is kept of others that were tried.
SOFT_PX = 12.0  # sigma at the network's size: what is coarser than this counts as light and colour, finer as detail
DETAIL_PX = 3.0  # sigma at the network's size: lashes, hair and folds are finer
CHROMA_LIMIT = 2.0  # of CIELAB's a, b; just below the difference that people just notice, 2.3 (Mahy et al. 1994)
# What rounding to levels may add to a colour, in CIELAB's a, b: of 47,613 random colours of skin it moved half by 0.28,
# 99.9 % by less than 0.73, and the worst, which was dark, by 0.83.
ROUNDING = 0.8
BISECTIONS = 7  # of the way back to the old lightness: 1/128 of it, at most 0.8 of CIELAB's 100
BAND_PX, SKIN_BAND_PX = 256, 64  # rows; in the second, many copies in floating point
SCRATCH_PX = 7  # no wider is a scratch
STRAIGHT = 0.15  # of its length it bends at most


def to_square(pixels: Pixels, size_px: int) -> Pixels:
    """Return the whole picture in the middle of the network's square; the rim repeats the edge. (N, N, 3)"""
    height, width = pixels.shape[:2]
    top, left, inner_height, inner_width = _inside(height, width, size_px)
    shrink = inner_height < height
    small = cv2.resize(pixels, (inner_width, inner_height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    bottom, right = size_px - inner_height - top, size_px - inner_width - left
    return np.asarray(cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_REPLICATE), dtype=np.uint8)


def _inside(height: int, width: int, size_px: int) -> tuple[int, int, int, int]:
    """Return where a picture of this shape lies in the square: top, left, height, width."""
    longer = max(height, width)
    inner_height, inner_width = (max(1, round(side * size_px / longer)) for side in (height, width))
    return (size_px - inner_height) // 2, (size_px - inner_width) // 2, inner_height, inner_width


def change_of(before: Pixels, after: Pixels, mode: RestoreMode) -> Floats:
    """
    Return what a network changed, weighed by the mode; (N, N, 3) in levels.

    natural: half of the change in light and colour, all of the detail; strong: all of both; detail: all, and half of
    the detail once more.
    """
    change = after.astype(np.float32) - before.astype(np.float32)
    coarse = cv2.GaussianBlur(change, (0, 0), SOFT_PX)
    weights = {"natural": (0.5, 1.0), "strong": (1.0, 1.0), "detail": (1.0, 1.5)}[mode]
    return np.asarray(cv2.addWeighted(coarse, weights[0] - weights[1], change, weights[1], 0), dtype=np.float32)


def without_colour(change: Floats) -> Floats:
    """Return the same change in light alone. (N, N, 3) in levels"""
    return np.repeat(cv2.cvtColor(change, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def local_contrast(face: Pixels, amount: float) -> Floats:
    """Return a change that brings out what is a few pixels wide: lashes, hair, folds. (N, N, 3) in levels."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_PX)
    return np.repeat(amount * fine[:, :, None], 3, axis=2)


def hold_skin(source: Pixels, changed: Pixels, limit: float = CHROMA_LIMIT) -> None:
    """
    Bring colours of `changed` back so that, where `source` is of skin's colour, they have moved no further than `limit`
    in CIELAB's a, b. Alters `changed`.
    """
    for rows in _bands(source.shape[0], SKIN_BAND_PX):
        was, now = _lab(source[rows]), _lab(changed[rows])
        too_far = (_colour_shift(was, now) > limit) & _is_skin(source[rows])
        if too_far.any():
            changed[rows][too_far] = _chroma_limited(was[too_far], now[too_far], limit)


def _colour_shift(was: Floats, now: Floats) -> Floats:
    """Return the distance in CIELAB's a, b. (..., 3) -> (...)"""
    return np.asarray(np.linalg.norm(now[..., 1:] - was[..., 1:], axis=-1), dtype=np.float32)


def _chroma_limited(was: Floats, now: Floats, limit: float) -> Pixels:
    """
    Return the new lightness with a colour that lies on the straight line from the old to the new one, as far along it
    as `limit` allows. CIELAB (n, 3) -> RGB levels (n, 3)

    The lightness stays the new one, as it is what restoring changes; the tint is what is protected. But not every a, b
    can be shown with every lightness: where clipping to RGB took the colour further away, the lightness gives way.
    """
    share = limit / np.maximum(_colour_shift(was, now), limit)  # 1 where it moved no further than the limit
    wanted = now.copy()
    wanted[:, 1:] = was[:, 1:] + (now[:, 1:] - was[:, 1:]) * share[:, None]
    levels = _levels(wanted)
    misfit = _colour_shift(was, _lab(levels[None])[0]) > limit + ROUNDING
    if misfit.any():
        levels[misfit] = _nearest_in_gamut(was[misfit], wanted[misfit], limit)
    return levels


def _nearest_in_gamut(was: Floats, wanted: Floats, limit: float) -> Pixels:
    """
    Return the colour nearest to `wanted`, on the straight line to `was`, that RGB can show within `limit` of `was`.
    CIELAB (n, 3) -> RGB levels (n, 3)

    Near white and near black there is hardly any colour: lightness comes back towards what it was until there is. `was`
    itself came from RGB, so the far end fits, and bisection keeps `high` where it fits.
    """
    low, high = np.zeros((len(was), 1), dtype=np.float32), np.ones((len(was), 1), dtype=np.float32)
    for _ in range(BISECTIONS):
        middle = np.asarray((low + high) / 2, dtype=np.float32)
        shown = _lab(_levels(wanted + middle * (was - wanted))[None])[0]
        fits = (_colour_shift(was, shown) <= limit + ROUNDING)[:, None]
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return _levels(wanted + high * (was - wanted))


def _is_skin(pixels: Pixels) -> NDArray[np.bool_]:
    """
    Return which pixels may be skin (H, W). All its shades lie in one part of the Cr, Cb plane: Cr 133..173 and Cb
    77..127 (Chai & Ngan 1999), here wider by 3 to 5 levels on each side.
    """
    ycc = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)
    low, high = np.array([0, 130, 74], dtype=np.uint8), np.array([255, 178, 130], dtype=np.uint8)
    return cv2.inRange(ycc, low, high) > 0


def denoise(pixels: Pixels, strength: float) -> Pixels:
    """
    Smooth but for edges; at 1, differences below about a quarter of the range are evened out. (Bilateral filter, Tomasi
    & Manduchi 1998)
    """
    if strength <= 0:
        return pixels
    return np.asarray(cv2.bilateralFilter(pixels, 7, 70 * strength, 3), dtype=np.uint8)


def sharpen(pixels: Pixels, strength: float) -> Pixels:
    """Apply an unsharp mask of sigma 1.5 px; at 1, detail counts two and a half times."""
    if strength <= 0:
        return pixels
    amount = 1.5 * strength
    soft = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    return np.asarray(cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0), dtype=np.uint8)


def adjust(pixels: Pixels, contrast: float, brightness: float) -> Pixels:
    """
    Change contrast about mid-grey, from 0.5 to 1.5 times, and brightness, by up to a quarter of the range; 0.5 leaves
    either as it is.
    """
    if contrast == 0.5 and brightness == 0.5:
        return pixels
    levels = (np.arange(256) - 127.5) * (0.5 + contrast) + 127.5 + 128 * (brightness - 0.5)
    return np.asarray(cv2.LUT(pixels, _u8(levels)), dtype=np.uint8)


# ---- old prints


def fading_of(pixels: Pixels) -> float:
    """Return how little of the range from black to white a picture uses: 0 most of it, 1 about a third or less."""
    low, high = _ends(pixels)  # the channel that uses most counts: 85 % of the range is no fading, 35 % the worst
    return float(np.clip((0.85 - float((high - low).max()) / 255) / 0.5, 0, 1))


def mend_fading(pixels: Pixels, strength: float) -> Pixels:
    """Stretch every channel to the whole range, which takes a colour cast away too; at 1 all the way."""
    if strength <= 0:
        return pixels
    low, high = _ends(pixels)
    reach = np.maximum(high - low, 32.0)  # nothing becomes more than eight times as strong
    stretched = (np.arange(256)[:, None] - low) * (255 / reach)  # (256, 3)
    levels = (1 - strength) * np.arange(256)[:, None] + strength * stretched
    return np.asarray(cv2.LUT(pixels, _u8(levels)[:, None, :]), dtype=np.uint8)


def _ends(pixels: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the darkest and the brightest level of each channel (3,), but for the last half per cent."""
    step = max(1, max(pixels.shape[:2]) // 1024)
    low, high = np.percentile(pixels[::step, ::step].reshape(-1, 3), (0.5, 99.5), axis=0)
    return low, high


def mend_scratches(pixels: Pixels, strength: float) -> Pixels:
    """
    Fill long thin lines that are much brighter or darker than what lies around them from their surroundings (Telea
    2004). At 1 a difference of 24 levels counts, at 0.1 one of 105.
    """
    if strength <= 0:
        return pixels
    return in_bands(pixels, lambda band: _without_scratches(band, 114 - 90 * strength), 7 * SCRATCH_PX)


def _without_scratches(pixels: Pixels, threshold: float) -> Pixels:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (SCRATCH_PX, SCRATCH_PX))
    # Bright and dark ones by themselves: where a scratch crosses an eye, the lashes are none of it.
    bright, dark = (cv2.morphologyEx(grey, kind, kernel) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))
    marks = _scratches(bright > threshold) | _scratches(dark > threshold)
    if not marks.any():
        return pixels
    return np.asarray(cv2.inpaint(pixels, cv2.dilate(marks, kernel[1:4, 1:4]), 3, cv2.INPAINT_TELEA), dtype=np.uint8)


def _scratches(marks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return only marks much longer than wide, and nearly straight: lids, lashes and frames of glasses are not."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marks.astype(np.uint8), connectivity=8)
    longest = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    slender = (longest >= 5 * SCRATCH_PX) & (stats[:, cv2.CC_STAT_AREA] < longest * SCRATCH_PX)
    slender[0] = False  # what is not marked
    for k in np.flatnonzero(slender):
        left, top, width, height = stats[k, :4]
        inside = labels[top : top + height, left : left + width] == k
        sides = cv2.minAreaRect(cv2.findNonZero(inside.astype(np.uint8)))[1]
        slender[k] = min(sides) <= max(SCRATCH_PX, STRAIGHT * max(sides))
    return np.asarray(slender[labels], dtype=np.uint8)


def in_bands(pixels: Pixels, work: Callable[[Pixels], Pixels], margin_px: int) -> Pixels:
    """Apply `work`, which looks `margin_px` far, band by band, with the same result as all at once."""
    height = pixels.shape[0]
    result = np.empty_like(pixels)
    for rows in _bands(height):
        top, bottom = max(0, rows.start - margin_px), min(height, rows.stop + margin_px)
        result[rows] = work(pixels[top:bottom])[rows.start - top : rows.stop - top]
    return result


def _bands(height: int, rows: int = BAND_PX) -> Iterator[slice]:
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _lab(pixels: Pixels) -> Floats:
    """Return RGB levels in CIELAB: lightness 0..100, a and b about -128..127. (..., 3)"""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _levels(lab: Floats) -> Pixels:
    """Return CIELAB (n, 3) as RGB levels (n, 3), clipped to what RGB can show."""
    return _u8(cv2.cvtColor(np.asarray(lab, dtype=np.float32)[None], cv2.COLOR_LAB2RGB)[0] * 255)


def _u8(x: NDArray[Any]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    return rounded
