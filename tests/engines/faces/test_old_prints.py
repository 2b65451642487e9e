"""Repairs of old prints: what has faded gets its range back, scratches go, and what only looks like them stays."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.faces import retouch

Pixels = NDArray[np.uint8]


def print_of(height: int = 400, width: int = 320, seed: int = 0) -> Pixels:
    """Soft shapes over the whole range of levels, as in a photograph."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 18)
    low, high = np.percentile(soft, (2, 98), axis=(0, 1))
    return np.asarray(((soft - low) / (high - low) * 255).clip(0, 255), dtype=np.uint8)


def faded(picture: Pixels, share: float = 0.4) -> Pixels:
    """Blacks have become brown, whites yellow."""
    return np.asarray(np.array([95, 80, 60]) + picture * share, dtype=np.uint8)


def spread(picture: Pixels) -> Any:
    low, high = np.percentile(picture.reshape(-1, 3), (1, 99), axis=0)
    return high - low


def distance(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def test_a_faded_print_gets_its_range_and_loses_its_cast() -> None:
    original = print_of()
    old = faded(original)
    assert spread(old).max() < 110
    mended = retouch.mend_fading(old, 1.0)
    assert spread(mended).min() > 240
    assert distance(mended, original) < 0.15 * distance(old, original)


def test_fading_goes_as_far_as_it_is_asked_to() -> None:
    old = faded(print_of())
    steps = [distance(retouch.mend_fading(old, strength), old) for strength in (0.0, 0.25, 0.5, 1.0)]
    assert steps[0] == 0 and steps == sorted(steps)
    assert steps[1] == pytest.approx(steps[3] / 4, rel=0.1)


def test_how_faded_a_picture_is_can_be_told() -> None:
    whole = print_of()
    assert retouch.fading_of(whole) == 0
    told = [retouch.fading_of(faded(whole, share)) for share in (0.6, 0.5, 0.3)]
    assert told == sorted(told) and 0 < told[0] < told[2] <= 1
    assert retouch.fading_of(np.full((30, 30, 3), 128, dtype=np.uint8)) == 1


def test_a_picture_of_one_colour_is_not_blown_up() -> None:
    flat = np.full((30, 30, 3), (90, 120, 60), dtype=np.uint8)
    assert np.ptp(retouch.mend_fading(flat, 1.0).reshape(-1, 3), axis=0).max() == 0
    grain = (flat + np.random.default_rng(0).integers(0, 3, flat.shape)).astype(np.uint8)
    assert np.ptp(retouch.mend_fading(grain, 1.0)[..., 0]) <= 8 * 2, "its grain is no picture"


def scratched(picture: Pixels, level: int, thick: int = 2) -> tuple[Pixels, NDArray[np.bool_]]:
    """One long scratch, from the top to below the middle, and where it is."""
    line = np.zeros(picture.shape[:2], dtype=np.uint8)
    cv2.line(line, (60, 0), (150, picture.shape[0] * 2 // 3), 1, thick)
    result = picture.copy()
    result[line > 0] = level
    return result, line > 0


@pytest.mark.parametrize("level", [255, 0])
@pytest.mark.parametrize("thick", [1, 3])
def test_a_scratch_is_filled_from_its_surroundings(level: int, thick: int) -> None:
    original = np.asarray(60 + print_of() * 0.5, dtype=np.uint8)
    bad, where = scratched(original, level, thick)
    mended = retouch.mend_scratches(bad, 0.8)
    left = np.abs(mended.astype(int) - original)[where].mean()
    assert left < 4 < 0.1 * np.abs(bad.astype(int) - original)[where].mean()
    far = cv2.dilate(where.astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
    assert (mended[far] == original[far]).all(), "the rest is not touched"


@pytest.mark.parametrize("end", range(256, 270, 3))
def test_a_scratch_goes_wherever_it_ends(end: int) -> None:
    """Photos are worked on in bands of 256 rows: no stub may stay in the next one."""
    original = np.full((400, 80, 3), 120, dtype=np.uint8)
    bad = original.copy()
    bad[150:end, 40:42] = 250
    assert np.abs(retouch.mend_scratches(bad, 1.0).astype(int) - 120).max() <= 2


def test_a_faint_scratch_needs_more_strength() -> None:
    bad, where = scratched(np.full((400, 320, 3), 120, dtype=np.uint8), 120 + 50)
    left = [np.abs(retouch.mend_scratches(bad, s).astype(int) - 120)[where].mean() for s in (0.0, 0.3, 0.9)]
    assert left[0] == left[1] == 50 and left[2] < 2


def eye() -> Pixels:
    """White, iris, pupil with its light, and a line of lashes."""
    picture = np.full((120, 160, 3), (205, 165, 140), dtype=np.uint8)
    cv2.ellipse(picture, (80, 60), (26, 12), 0, 0, 360, (240, 238, 235), -1, cv2.LINE_AA)
    cv2.circle(picture, (80, 60), 10, (90, 60, 40), -1, cv2.LINE_AA)
    cv2.circle(picture, (80, 60), 4, (10, 8, 8), -1, cv2.LINE_AA)
    cv2.circle(picture, (83, 57), 2, (255, 255, 255), -1, cv2.LINE_AA)
    for x in range(58, 103, 6):
        cv2.line(picture, (x, 50), (x + (x - 80) // 5, 41), (40, 25, 20), 1, cv2.LINE_AA)
    return picture


def test_eyes_and_lashes_are_no_scratches() -> None:
    assert (retouch.mend_scratches(eye(), 0.6) == eye()).all()


def test_a_scratch_across_an_eye_goes_and_the_eye_stays() -> None:
    bad = eye()
    cv2.line(bad, (0, 10), (159, 105), (255, 255, 255), 2)
    mended = retouch.mend_scratches(bad, 0.6)
    assert distance(mended, eye()) < 0.5 * distance(bad, eye())
    assert mended[60:63, 78:81].max() < 60 and mended[42:50, 92:100].min() < 90, "pupil and lashes are still there"


def test_at_rest_nothing_is_touched() -> None:
    picture = scratched(faded(print_of()), 255)[0]
    assert retouch.mend_scratches(picture, 0) is picture and retouch.mend_fading(picture, 0) is picture


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (257, 3)])
def test_tiny_pictures_are_mended_too(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert retouch.mend_scratches(picture, 1.0).shape == retouch.mend_fading(picture, 1.0).shape == picture.shape
