"""
Is it still the same person? Compares a face before and after, and finds how much of a change may be taken.

Two things are held: where the landmarks lie, and the coarse shape of light and dark, which is what people know a face
by from across a street. Fine detail is what a restorer is for. The limits stand between what restoring photos of known
faces gave (shape >= 0.99, 95 of 100 landmarks <= 0.14) and half a blend with another person (shape <= 0.94).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.faces import Picture, Points

Floats = NDArray[np.float32]
Find = Callable[[Picture], Points | None]  # landmarks (5, 2) of the face in a crop, if one can be seen
SHAPE = 0.985  # lowest correlation of the blurred grey faces
DRIFT = 0.25  # largest root mean square shift of the landmarks, in distances between the eyes
FLAT = 0.1  # levels: what varies less has no shape
COARSE = 1 / 32  # of the side: what is finer does not count for the shape
MIDDLE = (slice(3 / 16, 14 / 16), slice(3.5 / 16, 12.5 / 16))  # of an aligned crop: rows, columns of the face itself
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the strength that was asked for


@dataclass(frozen=True)
class Allowed:
    """`strength` 0..1; `why` is empty if it is what was asked for."""

    strength: float
    why: str = ""


def allowed(before: Picture, blend: Callable[[float], Picture], strength: float, find: Find) -> Allowed:
    """
    Return the largest of the tried strengths at which blend(strength) is still the person of `before`, both aligned
    crops (N, N, 3); 0 if there is none.
    """
    landmarks, why = find(before), ""
    for share in SHARES:
        after = blend(strength * share)
        fault = _fault(before, after, landmarks, find)
        if not fault:
            return Allowed(strength * share, why)
        why = why or fault
    return Allowed(0.0, why)


def _fault(before: Picture, after: Picture, landmarks: Points | None, find: Find) -> str:
    if shape_likeness(before, after) < SHAPE:
        return "the features would change"
    if landmarks is None:  # too poor a face to find them in: the shape alone decides
        return ""
    moved = find(after)
    return "the features would move" if moved is None or drift(landmarks, moved) > DRIFT else ""


def shape_likeness(a: Picture, b: Picture) -> float:
    """Return the correlation of the blurred grey faces, -1..1."""
    x, y = _coarse(a), _coarse(b)
    spread = float(x.std()), float(y.std())
    if min(spread) < FLAT:
        return 1.0 if max(spread) < FLAT else 0.0
    return float((x * y).mean()) / (spread[0] * spread[1])


def drift(a: Points, b: Points) -> float:
    """Return how far landmarks moved, in distances between the eyes: root mean square of the five."""
    eyes = float(np.linalg.norm(a[0] - a[1]))
    return float(np.sqrt(np.square(a - b).sum(1).mean())) / max(eyes, 1e-6)


def _coarse(face: Picture) -> Floats:
    side = face.shape[0]
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = cv2.GaussianBlur(grey, (0, 0), side * COARSE)
    rows, columns = (slice(round(part.start * side), round(part.stop * side)) for part in MIDDLE)
    middle = np.asarray(blurred[rows, columns], dtype=np.float32)
    return np.asarray(middle - middle.mean(), dtype=np.float32)
