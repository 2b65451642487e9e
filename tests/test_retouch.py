"""Retouching: pixels only, so every rule can be checked on pictures made for it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines import retouch
from tests.conftest import REPOSITORY

Pixels = NDArray[np.uint8]


def grey(level: int, height: int = 64, width: int = 64) -> Pixels:
    return np.full((height, width, 3), level, dtype=np.uint8)


def slope(height: int, width: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x * 200 // width, y * 200 // height, (x + y) * 200 // (width + height)), -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 80), (80, 40), (41, 80), (300, 7)])
def test_the_square_holds_the_whole_picture_in_the_middle(height: int, width: int) -> None:
    side = max(height, width)
    picture = slope(height, width)
    square = retouch.to_square(picture, side)
    top, left = (side - height) // 2, (side - width) // 2
    assert square.shape == (side, side, 3)
    assert (square[top : top + height, left : left + width] == picture).all()
    assert (square[: top + 1, left] == picture[0, 0]).all() and (
        square[top + height - 1 :, left] == picture[-1, 0]
    ).all()


def test_shrinking_averages() -> None:
    board = np.indices((640, 640)).sum(0) % 2 * 255
    square = retouch.to_square(np.repeat(board[..., None], 3, -1).astype(np.uint8), 64)
    assert square.std() < 2 and abs(float(square.mean()) - 127.5) < 1


LIGHT = 40  # a change in light: everywhere the same
GRAIN = 20  # a change in detail: every other pixel


def changed(light: int, grain: int, side: int = 64) -> tuple[Pixels, Pixels]:
    before = grey(100, side, side)
    sign = (np.indices((side, side)).sum(0) % 2 * 2 - 1)[..., None]
    return before, (before.astype(int) + light + grain * sign).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "light", "grain"), [("natural", 0.5, 1.0), ("strong", 1.0, 1.0), ("detail", 1.0, 1.5)]
)
def test_modes_take_light_and_detail_as_documented(mode: Any, light: float, grain: float) -> None:
    before, after = changed(LIGHT, 0)
    taken = retouch.take_change(before, before, after, 1.0, mode).astype(int) - before
    assert np.abs(taken - light * LIGHT).max() <= 1
    before, after = changed(0, GRAIN)
    taken = retouch.take_change(before, before, after, 1.0, mode).astype(int) - before
    assert np.abs(np.abs(taken) - grain * GRAIN)[8:-8, 8:-8].max() <= 1


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_scales_the_change(strength: float) -> None:
    before, after = changed(LIGHT, 0)
    taken = retouch.take_change(before, before, after, strength, "strong").astype(int) - before
    assert np.abs(taken - strength * LIGHT).max() <= 1


def test_an_unchanged_square_changes_nothing() -> None:
    picture = slope(50, 70)
    square = retouch.to_square(picture, 32)
    for mode in ("natural", "strong", "detail"):
        assert (retouch.take_change(picture, square, square, 1.0, mode) == picture).all()


@pytest.mark.parametrize(("height", "width"), [(128, 256), (256, 128), (200, 200)])
def test_a_change_lands_where_it_was_made(height: int, width: int) -> None:
    """A spot in the middle of the upper left quarter of the picture, whatever its shape; the rest keeps its detail."""
    picture = np.random.default_rng(0).integers(40, 200, (height, width, 3), dtype=np.uint8)
    side, size_px = max(height, width), 64
    row, column = height // 4, width // 4
    before = retouch.to_square(picture, size_px)
    after = before.copy()
    y, x = ((row + (side - height) // 2) * size_px // side, (column + (side - width) // 2) * size_px // side)
    after[y - 1 : y + 2, x - 1 : x + 2] = np.minimum(before[y - 1 : y + 2, x - 1 : x + 2].astype(int) + 50, 255)
    taken = np.abs(retouch.take_change(picture, before, after, 1.0, "strong").astype(int) - picture).sum(-1)
    weights = taken / taken.sum()
    centre = (weights.sum(1) @ np.arange(height), weights.sum(0) @ np.arange(width))
    assert abs(centre[0] - row) < 4 and abs(centre[1] - column) < 4
    assert taken[height // 2 :, width // 2 :].max() == 0


def lab(pixels: Pixels) -> Any:
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


@pytest.mark.parametrize("limit", [0.5, 2.0, 6.0])
def test_colour_moves_no_further_than_the_limit(limit: float) -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(90, 170, (40, 40, 3), dtype=np.uint8)
    pushed = np.clip(source.astype(int) + rng.integers(-40, 41, source.shape), 0, 255).astype(np.uint8)
    held = retouch.hold_chroma(source, pushed, limit)
    moved = np.linalg.norm(lab(held)[..., 1:] - lab(source)[..., 1:], axis=-1)
    assert moved.max() <= limit + 1.2  # half a level of rounding in each channel
    assert np.linalg.norm(lab(pushed)[..., 1:] - lab(source)[..., 1:], axis=-1).max() > 10
    assert np.abs(lab(held)[..., 0] - lab(pushed)[..., 0]).max() <= 0.6  # lightness is the new one


def test_a_small_shift_of_colour_is_kept() -> None:
    source, pushed = grey(128), grey(128)
    pushed[..., 0] += 1
    assert (retouch.hold_chroma(source, pushed) == pushed).all()


def test_unchanged_colours_stay_to_the_last_bit() -> None:
    """On the way to CIELAB and back nothing may be lost: strength 0 must leave the photo as it is."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    assert (retouch.hold_chroma(every, every) == every).all()


def test_denoising_calms_grain_and_keeps_edges() -> None:
    rng = np.random.default_rng(0)
    clean = grey(60)
    clean[:, 32:] = 200
    noisy = np.clip(clean + rng.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
    calm = retouch.denoise(noisy, 1.0)
    assert np.abs(calm.astype(int) - clean)[:, :24].mean() < 0.6 * np.abs(noisy.astype(int) - clean)[:, :24].mean()
    assert calm[:, 34:].mean() - calm[:, :30].mean() > 130
    assert retouch.denoise(noisy, 0.0) is noisy


def test_sharpening_steepens_edges_and_leaves_planes() -> None:
    step = grey(80)
    step[:, 32:] = 160
    soft = cv2.GaussianBlur(step, (0, 0), 2)
    sharp = retouch.sharpen(np.asarray(soft, np.uint8), 1.0).astype(int)
    assert np.abs(np.diff(sharp[32, :, 0])).max() > 1.2 * np.abs(np.diff(soft[32, :, 0].astype(int))).max()
    assert (retouch.sharpen(grey(90), 1.0) == 90).all()
    assert retouch.sharpen(step, 0.0) is step


def test_contrast_turns_about_mid_grey_and_brightness_shifts() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert (retouch.adjust(levels, 0.5, 0.5) == levels).all()
    assert np.abs(retouch.adjust(levels, 1.0, 0.5) - ((levels - 127.5) * 1.5 + 127.5).clip(0, 255)).max() <= 0.5
    assert np.abs(retouch.adjust(levels, 0.0, 0.5) - ((levels - 127.5) * 0.5 + 127.5)).max() <= 0.5
    assert np.abs(retouch.adjust(levels, 0.5, 1.0) - (levels.astype(float) + 64).clip(0, 255)).max() <= 0.5
    assert np.abs(retouch.adjust(levels, 0.5, 0.0) - (levels.astype(float) - 64).clip(0, 255)).max() <= 0.5


STRIP = """
    import resource
    import numpy as np
    from engines import retouch
    from engines.errors import StudioError
    picture = np.zeros((8, 30_000, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, resource.RLIM_INFINITY))
    try:
        square = retouch.to_square(picture, 256)
        result = retouch.take_change(picture, square, square, 1.0, "natural")
        print("done", (result == picture).all())
    except StudioError as exc:
        print("refused", exc.code)
"""


def test_a_long_strip_does_not_fill_the_memory() -> None:
    """30 000 x 8 pixels are a quarter of a megapixel, and a square of that side nearly a thousand."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STRIP)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() in ("done True", "refused bad_image", "refused image_too_large"), done.stderr[-300:]
