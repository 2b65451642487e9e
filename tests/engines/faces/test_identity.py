"""The identity guard: what a restorer is for passes, another person does not; in between the strength is lowered."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines import faces
from engines.faces import identity
from engines.faces.identity import SHARES, allowed

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]
SIZE_PX = 128


def person(seed: int) -> Picture:
    """A face with its own arrangement of light and dark, in an aligned crop."""
    rng = np.random.default_rng(seed)
    picture = np.full((SIZE_PX, SIZE_PX, 3), (205, 165, 140), dtype=np.float32)
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] / SIZE_PX
    for _ in range(14):
        centre, size, depth = rng.uniform(0.25, 0.75, 2), rng.uniform(0.05, 0.14), rng.uniform(-60, 60)
        picture += depth * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * size**2))[..., None]
    for mark in faces.template(SIZE_PX):
        cv2.circle(picture, (round(mark[0]), round(mark[1])), 5, (60, 40, 40), -1, cv2.LINE_AA)
    return np.asarray(picture.clip(0, 255), dtype=np.uint8)


def blurred(picture: Picture, sigma: float = 2.5) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.uint8)


def towards(before: Picture, after: Picture) -> Callable[[float], Picture]:
    return lambda share: np.asarray(np.rint(before + share * (after.astype(float) - before)), dtype=np.uint8)


def in_place(picture: Picture) -> Points:
    return faces.template(SIZE_PX)


def nowhere(picture: Picture) -> None:
    return None


def test_a_restored_face_is_taken_as_asked() -> None:
    sharp = person(1)
    for strength in (0.1, 0.7, 1.0):
        taken = allowed(blurred(sharp), towards(blurred(sharp), sharp), strength, in_place)
        assert (taken.strength, taken.why) == (strength, "")


def test_another_persons_face_is_not_taken() -> None:
    taken = allowed(person(1), towards(person(1), person(4)), 1.0, in_place)
    assert taken.strength == 0 and taken.why == "the features would change"


def test_a_face_that_becomes_somebody_elses_is_softened() -> None:
    """The strongest of the tried shares at which it is still the same."""
    before = person(1)
    blend = towards(before, towards(before, person(3))(0.4))
    likeness = [identity.shape_likeness(before, blend(share)) for share in SHARES]
    assert likeness == sorted(likeness) and likeness[0] < identity.SHAPE < likeness[-1], "the case is of this kind"
    taken = allowed(before, blend, 1.0, in_place)
    best = next(share for share, like in zip(SHARES, likeness, strict=True) if like >= identity.SHAPE)
    assert taken.strength == best < 1 and taken.why == "the features would change"


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
def test_shares_are_of_what_was_asked_for(strength: float) -> None:
    tried: list[float] = []

    def blend(share: float) -> Picture:
        tried.append(share)
        return person(4)

    assert allowed(person(1), blend, strength, in_place).strength == 0
    assert tried == [strength * share for share in SHARES]


def test_features_that_would_move_are_noticed() -> None:
    """The same light and dark, and yet the eyes elsewhere."""
    before = person(1)
    moving = towards(before, blurred(before, 1))
    marks = faces.template(SIZE_PX)
    eyes_px = float(np.linalg.norm(marks[0] - marks[1]))

    def find(picture: Picture) -> Points:
        share = float(np.abs(picture.astype(int) - before).mean()) / full
        return marks + (share * 2 * identity.DRIFT * eyes_px, 0)

    full = float(np.abs(moving(1.0).astype(int) - before).mean())
    taken = allowed(before, moving, 1.0, find)
    assert 0.25 <= taken.strength < 0.75 and taken.why == "the features would move"


def test_a_face_that_could_no_longer_be_found_is_not_taken() -> None:
    before = person(1)

    def find(picture: Picture) -> Points | None:
        return faces.template(SIZE_PX) if (picture == before).all() else None

    taken = allowed(before, towards(before, blurred(before, 1)), 1.0, find)
    assert (taken.strength, taken.why) == (0, "the features would move")


def test_a_face_too_poor_for_landmarks_is_judged_by_its_shape() -> None:
    sharp = person(1)
    assert allowed(blurred(sharp), towards(blurred(sharp), sharp), 1.0, nowhere).strength == 1
    assert allowed(sharp, towards(sharp, person(4)), 1.0, nowhere).strength == 0


def test_likeness_is_about_the_face_and_not_about_light() -> None:
    face = person(3)
    darker = np.asarray(face * 0.6, dtype=np.uint8)
    assert identity.shape_likeness(face, face) == pytest.approx(1)
    assert identity.shape_likeness(face, darker) > 0.995
    assert identity.shape_likeness(face, 255 - face) == pytest.approx(-1, abs=0.01)
    assert identity.shape_likeness(face, person(4)) < 0.9
    background = face.copy()
    background[:, :16] = background[:, -16:] = 0
    assert identity.shape_likeness(face, background) > 0.995, "what is behind the head is nobody's identity"


def test_one_flat_colour_is_like_itself() -> None:
    flat = np.full((64, 64, 3), 120, dtype=np.uint8)
    assert identity.shape_likeness(flat, flat) == 1
    assert allowed(flat, lambda share: flat, 1.0, nowhere).strength == 1


def test_a_face_that_is_wiped_away_is_not_the_same() -> None:
    flat = np.full((SIZE_PX, SIZE_PX, 3), 150, dtype=np.uint8)
    assert identity.shape_likeness(person(1), flat) == 0
    assert allowed(person(1), lambda share: flat, 1.0, nowhere).strength == 0


def test_drift_is_measured_in_distances_between_the_eyes() -> None:
    marks = faces.template(512)
    eyes_px = float(np.linalg.norm(marks[0] - marks[1]))
    assert identity.drift(marks, marks) == 0
    assert identity.drift(marks, marks + (eyes_px / 2, 0)) == pytest.approx(0.5)
    assert identity.drift(marks * 3, (marks + (eyes_px / 2, 0)) * 3) == pytest.approx(0.5)
