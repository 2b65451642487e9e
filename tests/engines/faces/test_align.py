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


def test_points_go_with_the_picture() -> None:
    landmarks = apply(matrix_of(0.8, -12.0, (90.0, 40.0)), faces.template(256))
    there = faces.moved(landmarks, faces.similarity(landmarks, 256))
    assert np.abs(there - faces.template(256)).max() < 1e-9


def test_a_face_aligned_and_put_back_is_the_same_where_it_was() -> None:
    picture = smooth_picture(320, 400)
    landmarks = apply(matrix_of(0.8, -12.0, (90.0, 40.0)), faces.template(256))
    matrix = faces.similarity(landmarks, 256)
    back = np.zeros_like(picture)
    crop = faces.align(picture, landmarks, 256).astype(np.float32)
    faces.add(back, crop, matrix, np.ones((256, 256), dtype=np.float32))
    rows, columns = np.mgrid[0:320, 0:400]
    inside = apply(matrix, np.column_stack((columns.ravel(), rows.ravel())).astype(np.float64))
    face = ((inside > 8) & (inside < 247)).all(1).reshape(320, 400)
    assert face.mean() > 0.2
    assert np.abs(back.astype(int) - picture)[face].mean() < 1.0
    assert np.abs(back.astype(int) - picture)[face].max() <= 6


def level_change(size_px: int, level: float) -> NDArray[np.float32]:
    return np.full((size_px, size_px, 3), level, dtype=np.float32)


def test_a_change_touches_nothing_outside_the_mask() -> None:
    picture = smooth_picture(300, 300)
    changed = picture.copy()
    matrix = faces.similarity(faces.template(256) * 0.5 + 60, 256)
    faces.add(changed, level_change(256, 255.0), matrix, faces.face_mask(faces.template(256), 256))
    assert (changed[125, 125] == 255).all()
    outside = np.ones((300, 300), dtype=bool)
    outside[60:188, 60:188] = False
    assert (changed[outside] == picture[outside]).all()
    assert (changed[60:64] == picture[60:64]).all(), "and the mask ends before the crop does"


@pytest.mark.parametrize("zoom", [0.15, 1.0, 5.0])
def test_a_large_face_has_no_steps_where_bands_meet(monkeypatch: pytest.MonkeyPatch, zoom: float) -> None:
    """It is put back 256 rows at a time."""
    matrix = faces.similarity(apply(matrix_of(zoom, 9.0, (30.0, -20.0)), faces.template(256)), 256)
    side = int(256 * zoom * 1.3)
    change = smooth_picture(256, 256).astype(np.float32) - 128
    mask, picture = faces.face_mask(faces.template(256), 256), np.full((side, side, 3), 128, dtype=np.uint8)
    banded, whole = picture.copy(), picture.copy()
    monkeypatch.setattr(faces, "BAND_PX", 16 if zoom < 1 else 64)
    faces.add(banded, change, matrix, mask)
    monkeypatch.setattr(faces, "BAND_PX", 10**6)
    faces.add(whole, change, matrix, mask)
    assert np.abs(banded.astype(int) - whole).max() <= 1 and (whole != picture).mean() > 0.1


@pytest.mark.parametrize("shift", [(-400.0, 0.0), (400.0, 0.0), (0.0, -400.0), (0.0, 400.0), (-60.0, -60.0)])
def test_a_face_across_the_border_or_beyond_it(shift: tuple[float, float]) -> None:
    picture = smooth_picture(160, 200)
    changed, landmarks = picture.copy(), faces.template(256) * 0.7 + np.array(shift)
    matrix = faces.similarity(landmarks, 256)
    rows, columns = faces.region(matrix, 256, picture.shape)
    assert 0 <= rows.start <= rows.stop <= 160 and 0 <= columns.start <= columns.stop <= 200
    faces.add(changed, level_change(256, 40.0), matrix, faces.face_mask(faces.template(256), 256))
    touched = (changed != picture).any(-1)
    assert touched.any() == (min(shift) > -400 and max(shift) < 400)
    touched[rows, columns] = False
    assert not touched.any()


def tilted(degrees: float, size_px: int = 256) -> NDArray[np.float64]:
    middle = np.full(2, size_px / 2)
    return apply(matrix_of(1.0, degrees, (0.0, 0.0)), faces.template(size_px) - middle) + middle


@pytest.mark.parametrize("size_px", [64, 256])
@pytest.mark.parametrize("degrees", [0.0, 12.0, -25.0])
def test_the_mask_follows_the_face(size_px: int, degrees: float) -> None:
    landmarks = tilted(degrees, size_px)
    mask = faces.face_mask(landmarks, size_px)
    assert mask.shape == (size_px, size_px) and mask.dtype == np.float32
    assert all(mask[round(y), round(x)] > 0.9 for x, y in landmarks), "eyes, nose and mouth are taken whole"
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.01
    assert mask[: size_px // 16, : size_px // 16].max() == 0, "no corners: it is no square"
    across, along = (np.abs(np.diff(mask, axis=axis)).max() * size_px for axis in (1, 0))
    assert max(across, along) < 20, "it falls smoothly"


def test_the_mask_turns_with_the_face() -> None:
    """Away from the border of the crop it is the same oval, turned."""
    middle = np.full(2, 128.0)
    turn = matrix_of(1.0, 20.0, (0.0, 0.0))
    turn[:, 2] = middle - turn[:, :2] @ middle
    expected = cv2.warpAffine(faces.face_mask(tilted(0), 256), turn, (256, 256))
    turned = faces.face_mask(tilted(20), 256)
    assert np.abs(turned - expected)[40:190, 40:216].max() < 0.05
    assert np.abs(turned - faces.face_mask(tilted(0), 256)).max() > 0.3


def test_landmarks_in_one_line_still_give_a_mask() -> None:
    flat = np.full((5, 2), 120.0) + np.arange(5)[:, None] * (1.0, 0.0)
    mask = faces.face_mask(flat, 256)
    assert np.isfinite(mask).all() and 0 < mask.mean() < 0.6


def test_what_a_network_does_to_all_colours_makes_no_seam() -> None:
    mask = faces.face_mask(faces.template(256), 256)
    shift = np.broadcast_to(np.array([9.0, -4.0, 2.0], dtype=np.float32), (256, 256, 3))
    assert np.abs(faces.without_seam(shift, mask)).max() < 1e-3
    local = np.zeros((256, 256, 3), dtype=np.float32)
    local[118:130, 90:102] = 30
    assert (faces.without_seam(local, mask) == local).all(), "what happens inside is taken as it is"
    both = faces.without_seam(local + shift, mask)
    assert np.abs(both - local).max() < 1e-3
