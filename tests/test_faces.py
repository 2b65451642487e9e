"""
Alignment: similarities are recovered exactly, landmarks land on the template, and what is cut out can be put back.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines import faces


def matrix_of(scale: float, degrees: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack((linear, shift))


def apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def smooth_picture(height: int, width: int, seed: int = 3) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    spread = (blurred - blurred.mean()) * 8 + 128
    return np.asarray(spread.clip(0, 255), dtype=np.uint8)


SIMILARITIES = [(1.0, 0.0, (0.0, 0.0)), (0.37, 28.0, (40.0, -7.5)), (3.2, -170.0, (-5.0, 9.0))]


@pytest.mark.parametrize(("scale", "degrees", "shift"), SIMILARITIES)
def test_a_known_similarity_is_recovered(scale: float, degrees: float, shift: tuple[float, float]) -> None:
    known = matrix_of(scale, degrees, shift)
    source = np.random.default_rng(0).uniform(0, 500, (5, 2))
    assert np.allclose(faces.umeyama(source, apply(known, source)), known, atol=1e-9)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    source = faces.template(256)
    mirrored = source * np.array([-1.0, 1.0])
    assert np.linalg.det(faces.umeyama(source, mirrored)[:, :2]) > 0


def test_the_fit_is_the_least_squares_one() -> None:
    landmarks = faces.template(256) * 1.7 + np.random.default_rng(1).normal(0, 6, (5, 2))
    best = faces.similarity(landmarks, 256)
    target = faces.template(256)

    def error(matrix: NDArray[np.float64]) -> float:
        return float(np.square(apply(matrix, landmarks) - target).sum())

    for scale, degrees, shift in [
        (1.01, 0, (0, 0)),
        (0.99, 0, (0, 0)),
        (1, 0.5, (0, 0)),
        (1, 0, (0.5, 0)),
        (1, 0, (0, -0.5)),
    ]:
        nudge = np.vstack((matrix_of(scale, degrees, shift), [0, 0, 1]))
        assert error(best) < error((nudge @ np.vstack((best, [0, 0, 1])))[:2])


def test_coinciding_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        faces.similarity(np.full((5, 2), 30.0), 256)


@pytest.mark.parametrize("size_px", [128, 256])
@pytest.mark.parametrize("zoom", [0.2, 0.6, 1.9])
def test_landmarks_land_on_the_template(size_px: int, zoom: float) -> None:
    """Dots drawn at the landmarks of a tilted face are found at the template's points, whatever the shrinking."""
    to_picture = matrix_of(1 / zoom, 17.0, (size_px * 0.9 / zoom, size_px * 0.35 / zoom))
    landmarks = apply(to_picture, faces.template(size_px))
    side = int(size_px * 2 / zoom)
    grid = np.mgrid[0:side, 0:side][::-1].astype(np.float32)  # (2, side, side): x, y
    for point, expected in zip(landmarks, faces.template(size_px), strict=True):
        distance = np.square(grid - point.astype(np.float32)[:, None, None]).sum(0)
        dot = (255 * np.exp(-distance / (2 * (3 / zoom) ** 2))).astype(np.uint8)
        crop = faces.align(np.repeat(dot[:, :, None], 3, axis=2), landmarks, size_px)[:, :, 0].astype(np.float64)
        rows, columns = np.mgrid[0:size_px, 0:size_px]
        centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
        assert np.abs(centre - expected).max() < 0.15


def test_shrinking_averages_and_does_not_alias() -> None:
    """A one-pixel checkerboard shrunk five times must become grey, not a moire."""
    board = np.indices((1000, 1000)).sum(0) % 2 * 255
    picture = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    landmarks = faces.template(256) * 3.1 + 60
    crop = faces.align(picture, landmarks, 256)
    assert crop.std() < 6
    assert abs(float(crop.mean()) - 127.5) < 2


def test_a_picture_aligned_and_pasted_back_is_the_same_inside_the_face() -> None:
    picture = smooth_picture(320, 400)
    landmarks = apply(matrix_of(0.8, -12.0, (90.0, 40.0)), faces.template(256))
    matrix = faces.similarity(landmarks, 256)
    blank = np.zeros_like(picture)
    back = faces.paste(blank, faces.align(picture, landmarks, 256), matrix, np.ones((256, 256), dtype=np.float32))
    rows, columns = np.mgrid[0:320, 0:400]
    inside = apply(matrix, np.column_stack((columns.ravel(), rows.ravel())).astype(np.float64))
    face = ((inside > 8) & (inside < 247)).all(1).reshape(320, 400)
    assert face.mean() > 0.2
    assert np.abs(back.astype(int) - picture)[face].mean() < 1.0
    assert np.abs(back.astype(int) - picture)[face].max() <= 6


def test_pasting_touches_nothing_outside_the_mask() -> None:
    picture = smooth_picture(300, 300)
    matrix = faces.similarity(faces.template(256) * 0.5 + 60, 256)
    white = np.full((256, 256, 3), 255, dtype=np.uint8)
    pasted = faces.paste(picture, white, matrix, faces.soft_mask(256))
    assert (pasted[124 : 124 + 1, 124 : 124 + 1] == 255).all()
    outside = np.ones((300, 300), dtype=bool)
    outside[58:190, 58:190] = False
    assert (pasted[outside] == picture[outside]).all()


def test_the_soft_mask_has_no_edge() -> None:
    mask = faces.soft_mask(128)
    assert mask[0].max() < 0.01
    assert mask[64, 64] == 1.0
    assert np.abs(np.diff(mask[64])).max() < 0.2
