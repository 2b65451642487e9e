"""
What detectors' numbers mean: faces written into maps by hand are found where they were written, at every size; what is
no face, or twice the same, goes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import faces
from engines.bundle import Shelf
from engines.faces import detection
from engines.faces.detection import CELL_PX, SCORE, STRIDES, Face
from engines.roles import Detector
from engines.roles.loaded import LoadedBundles
from tests.support.fakes import candidates
from tests.support.not_people import KINDS, nobody

Points = NDArray[np.float64]
Array = NDArray[Any]


def at(x: float, y: float, size_px: float, degrees: float = 0.0) -> Points:
    """Landmarks of a frontal face about this point, in a crop of this size."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (faces.template(1) - (0.5, 0.6)) @ turn.T * size_px + np.array([x, y])


def centerface(people: list[Points], height: int = 128, width: int = 160) -> list[Face]:
    rows = candidates(np.zeros((1, 3, height, width)), people)[0]
    return detection.decode("centerface", rows, height, width)


def yunet_rows(people: list[Points], height: int, width: int, stride: int) -> NDArray[np.float32]:
    """As OpenCV's FaceDetectorYN reads them: centre, size and landmarks in cells from the cell's corner."""
    grids = []
    for step in STRIDES:
        columns = width // step
        grid = np.zeros((height // step * columns, 16), dtype=np.float32)
        for landmarks in people if step == stride else ():
            low, high = landmarks.min(0), landmarks.max(0)
            centre, size = (low + high) / 2 / step, 2 * (high - low) / step
            column, row = centre.astype(int)
            cell = grid[row * columns + column]
            cell[:2], cell[2:4], cell[4:6] = (0.9, 0.8), centre - (column, row), np.log(size)
            cell[6:] = (landmarks / step - (column, row)).ravel()
        grids.append(grid)
    return np.concatenate(grids)


def placed(face: Face, landmarks: Points) -> None:
    """The face is where these landmarks are, and its box is twice as large as they spread."""
    assert np.abs(face.landmarks - landmarks).max() < 0.01
    low, high = landmarks.min(0), landmarks.max(0)
    centre, half = (low + high) / 2, high - low
    assert np.abs(np.array(face.box) - (*(centre - half), *(centre + half))).max() < 0.01


@pytest.mark.parametrize(("x", "y", "size_px"), [(80, 64, 80), (50.3, 71.9, 60), (110, 66, 40), (81.99, 60.01, 55)])
def test_centerface_is_read_as_it_was_written(x: float, y: float, size_px: float) -> None:
    (face,) = centerface([at(x, y, size_px)])
    placed(face, at(x, y, size_px))
    assert face.score == pytest.approx(0.95) and face.size_px == pytest.approx(
        2 * max(np.ptp(at(x, y, size_px), axis=0)), abs=0.01
    )


@pytest.mark.parametrize("stride", STRIDES)
def test_yunet_is_read_from_each_of_its_grids(stride: int) -> None:
    people = [at(80, 60, 70), at(200, 150, 90, 15)]
    found = detection.decode("yunet", yunet_rows(people, 256, 320, stride), 256, 320)
    assert len(found) == 2 and all(face.score == pytest.approx(np.sqrt(0.9 * 0.8)) for face in found)
    for face, landmarks in zip(sorted(found, key=lambda f: f.box[0]), people, strict=True):
        placed(face, landmarks)


def test_the_surest_comes_first() -> None:
    found = centerface([at(120, 64, 50), at(40, 64, 50)])
    assert [face.landmarks[2, 0] > 80 for face in found] == [True, False] and found[0].score > found[1].score


@pytest.mark.parametrize("family", ["centerface", "yunet"])
def test_what_is_unsure_is_no_face(family: str) -> None:
    rows = candidates(np.zeros((1, 3, 128, 128)), [at(60, 60, 60)])[0]
    if family == "yunet":
        rows = yunet_rows([at(60, 60, 60)], 128, 128, 16)
        rows[:, 1] *= SCORE**2 / 0.9 / 0.8
    else:
        rows[:, 0] *= SCORE / 0.95
    assert detection.decode(family, rows * np.float32(1 - 1e-3) if family == "centerface" else rows, 128, 128) == []
    assert detection.decode(family, np.zeros_like(rows), 128, 128) == []


def test_of_two_candidates_for_one_face_the_surer_stays() -> None:
    found = centerface([at(80, 64, 60), at(86, 64, 62), at(80, 71, 58)])
    assert len(found) == 1 and found[0].score == pytest.approx(0.95)


def test_faces_side_by_side_both_stay() -> None:
    assert len(centerface([at(50, 64, 60), at(95, 64, 60)])) == 2


MIRRORED = faces.template(80)[[1, 0, 2, 4, 3]]
TURNED_OVER = faces.template(80) * (1, -1) + (0, 80)
IMPOSSIBLE: Mapping[str, Points] = {
    "in one place": np.full((5, 2), 60.0),
    "mirrored": MIRRORED + 20,
    "the mouth above the eyes, and not mirrored": TURNED_OVER + 20,
    "in one line": np.column_stack((np.linspace(20, 90, 5), np.linspace(40, 44, 5))),
    "scattered": np.array([[30, 30], [40, 90], [100, 35], [90, 20], [35, 60]], dtype=float),
    "not numbers": np.full((5, 2), np.nan),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_landmarks_that_no_face_has_are_dropped(name: str) -> None:
    """Detectors see faces in foliage and in letters; their landmarks give them away."""
    rows = candidates(np.zeros((1, 3, 128, 160)), [at(80, 64, 60)])[0]
    (i,) = np.flatnonzero(rows[:, 0])
    (left, top, right, bottom) = centerface([at(80, 64, 60)])[0].box
    shares = (IMPOSSIBLE[name] - (left, top)) / (right - left, bottom - top)
    rows[i, 5:] = shares[:, ::-1].ravel()
    assert detection.decode("centerface", rows, 128, 160) == []


@pytest.mark.parametrize("degrees", [0, 20, -45, 90, 170])
def test_a_face_may_be_tilted(degrees: float) -> None:
    assert detection.unlikeliness(at(80, 64, 60, degrees)) < 1e-9
    assert len(centerface([at(80, 64, 60, degrees)])) == 1


def test_a_face_seen_from_the_side_is_still_one() -> None:
    """A profile's eyes are closer together; shared/portraits knows no such, the street does."""
    profile = at(80, 64, 60)
    profile[:, 0] = 80 + (profile[:, 0] - 80) * 0.55
    assert 0 < detection.unlikeliness(profile) < detection.UNLIKELY


@pytest.mark.parametrize("family", ["centerface", "yunet"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e4, -1e4, 3e38])
def test_numbers_that_make_no_sense_are_no_face(family: str, value: float) -> None:
    """A network of somebody else's may say anything; it neither stops the job nor warns in its log."""
    width = 15 if family == "centerface" else 16
    for column in range(width):
        rows = candidates(np.zeros((1, 3, 64, 64)), [at(32, 32, 40)])[0]
        if family == "yunet":
            rows = yunet_rows([at(32, 32, 40)], 64, 64, 8)
        rows[rows[:, 0] > 0, column] = value
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = detection.decode(family, rows, 64, 64)
        for face in found:
            assert np.isfinite(face.landmarks).all() and np.isfinite(face.box).all()


def test_a_box_stays_inside_the_picture() -> None:
    (face,) = centerface([at(6, 60, 70)])
    assert face.box[0] == 0 and face.box[2] > 20 and face.landmarks[0, 0] < 0


@pytest.mark.parametrize(
    ("height", "width", "expected", "scale"),
    [
        (64, 96, (64, 96), 1.0),
        (60, 90, (64, 96), 1.0),
        (1, 1, (32, 32), 1.0),
        (1600, 800, (1600, 800), 1.0),
        (3200, 1600, (1600, 800), 0.5),
        (3000, 4000, (1216, 1600), 0.4),
        (8, 30_000, (32, 1600), 1600 / 30_000),
    ],
)
def test_a_detector_looks_at_sides_that_it_can_halve(
    height: int, width: int, expected: tuple[int, int], scale: float
) -> None:
    look, shrunk = detection.shown(np.full((height, width, 3), 200, dtype=np.uint8), 1600)
    assert look.shape == (*expected, 3) and look.dtype == np.uint8
    assert all(side % CELL_PX == 0 for side in look.shape[:2]) and shrunk == pytest.approx(scale)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    assert (look[: inner[0], : inner[1]] == 200).all()
    assert not look[inner[0] :].any() and not look[:, inner[1] :].any(), "the rest is black"


@pytest.mark.parametrize(("height", "width"), [(64, 96), (640, 640), (1280, 320), (2000, 3000)])
def test_a_detector_of_a_fixed_size_sees_a_square(height: int, width: int) -> None:
    look, scale = detection.shown(np.full((height, width, 3), 200, dtype=np.uint8), 640, square=True)
    assert look.shape == (640, 640, 3) and scale == min(1.0, 640 / max(height, width))
    assert abs(float((look > 0).mean()) - height * width * scale**2 / 640**2) < 0.01


class Eye:
    """A session that sees one face at the given point of whatever it is shown, and keeps what it was shown."""

    def __init__(self, landmarks: Points) -> None:
        self.landmarks, self.fed = landmarks, np.zeros(())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.fed = feeds["picture"]
        return {"candidates": candidates(self.fed, [self.landmarks])}

    def close(self) -> None:
        """Nothing was opened."""


def test_faces_come_back_in_the_pixels_of_the_picture() -> None:
    eye = Eye(at(200, 140, 60))
    picture = np.zeros((800, 1280, 3), dtype=np.uint8)
    picture[..., 0] = 250
    (face,) = Detector(eye, "centerface", 320).find(picture)
    assert np.abs(face.landmarks - at(200, 140, 60) * 4).max() < 0.1 and face.size_px > 4 * 25
    assert eye.fed.shape == (1, 3, 224, 320) and eye.fed.dtype == np.float32
    assert eye.fed[0, 0, 0, 0] == 250 and not eye.fed[0, 1:].any(), "RGB, levels of 255"


def test_no_face_lies_beyond_the_edge_of_the_picture() -> None:
    """Below and to the right of it the detector sees black, which nobody else does."""
    picture = np.full((70, 70, 3), 90, dtype=np.uint8)  # shown as 96 x 96
    (face,) = Detector(Eye(at(60, 60, 50)), "centerface", 1600).find(picture)
    assert max(face.box) <= 70 and min(face.box) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_built_in_detector_sees_nobody_where_nobody_is(builtin: Any, kind: str) -> None:
    loaded, _ = LoadedBundles(Shelf((builtin,))).get("detector", "ort")
    for seed in range(2):
        assert loaded.face_detector.find(nobody(kind, seed)) == []
    loaded.close()
