"""
What a face detector's numbers mean: rows of candidates in, faces out. Which graph made them is a bundle's family.

Both families know the same five landmarks in the same order: the eye on the picture's left, the other eye, the nose
tip, the corners of the mouth left and right. Points are (x, y) in pixels of the picture, as in engines/faces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import faces
from engines.faces import Picture, Points

Floats = NDArray[np.floating[Any]]
SCORE = 0.5  # below, a candidate is no face
OVERLAP = 0.3  # of two boxes (intersection over union), from which the weaker one is the same face
UNLIKELY = (
    0.1  # how far landmarks may lie from a face's, as a share of the crop's side: portraits 0.06, any points 0.155
)
LARGEST = 12.0  # logarithm of a size in cells: beyond any picture
CELL_PX = 32  # sides that the networks can halve five times
STRIDES = (8, 16, 32)  # of YuNet's three grids


@dataclass(frozen=True)
class Face:
    """`box` is left, top, right, bottom in pixels of the picture; `score` 0..1."""

    box: tuple[float, float, float, float]
    landmarks: Points  # (5, 2)
    score: float

    @property
    def size_px(self) -> float:
        """The length of the longer side."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def is_possible(self) -> bool:
        left, top, right, bottom = self.box
        return left < right and top < bottom and unlikeliness(self.landmarks) < UNLIKELY

    def enlarged(self, times: float, height: int, width: int) -> Face:
        """Return the face in a picture of this size, so many times as large as what was looked at without its rim."""
        left, top, right, bottom = (side * times for side in self.box)
        return Face((left, top, min(right, width), min(bottom, height)), self.landmarks * times, self.score)


def shown(picture: Picture, longest_px: int, square: bool = False) -> tuple[Picture, float]:
    """
    Return what a detector looks at, and how much smaller it is: sides are multiples of CELL_PX, the longest no longer
    than `longest_px`, which is one too. Larger pictures are averaged, smaller ones stay as they are; the rest is black.
    `square`: filled up to longest_px x longest_px.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    full = [longest_px if square else math.ceil(side / CELL_PX) * CELL_PX for side in inner]
    right, bottom = full[0] - inner[0], full[1] - inner[1]
    filled = cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return np.asarray(filled, dtype=np.uint8), scale


def decode(family: str, rows: Floats, height: int, width: int) -> list[Face]:
    """
    Return the faces that rows of candidates (n, K) of a picture of this size stand for, surest first. Where several
    stand for one face the surest stays, and what cannot be a face by the arrangement of its landmarks goes.
    """
    candidates = [face for face in DECODERS[family](rows, height, width) if face.is_possible]
    boxes = [(f.box[0], f.box[1], f.box[2] - f.box[0], f.box[3] - f.box[1]) for f in candidates]
    scores = [face.score for face in candidates]
    surest = cv2.dnn.NMSBoxes(boxes, scores, SCORE, OVERLAP) if candidates else ()
    return [candidates[int(i)] for i in surest]


def unlikeliness(landmarks: Points) -> float:
    """
    Return how far five points lie from the arrangement of a frontal face, whatever its place, size and tilt: the root
    mean square distance as a share of an aligned crop's side; infinite where they make no arrangement.
    """
    try:
        matrix = faces.similarity(landmarks, 1)
    except ValueError:  # all in one place, or not numbers
        return math.inf
    there = faces.moved(landmarks, matrix)
    return float(np.sqrt(np.square(there - faces.template(1)).sum(1).mean()))


def centerface(rows: Floats, height: int, width: int) -> list[Face]:
    """
    Decode CenterFace's candidates. Rows go through a grid of 4 px cells: heat, log of height and width, offset down and
    right, then five landmarks (down, right) as shares of the box. Xu et al., "CenterFace: joint face detection and
    alignment using face as point", 2020.
    """
    columns = width // 4
    faces_here = []
    for i in np.flatnonzero((rows[:, 0] > SCORE) & _sane(rows, rows[:, 1:3])):
        heat, log_height, log_width, down, right = map(float, rows[i, :5])
        box_height, box_width = 4 * math.exp(log_height), 4 * math.exp(log_width)
        top = (i // columns + down + 0.5) * 4 - box_height / 2
        left = (i % columns + right + 0.5) * 4 - box_width / 2
        marks = rows[i, 5:].reshape(5, 2)[:, ::-1].astype(np.float64) * (box_width, box_height) + (left, top)
        box = (max(left, 0.0), max(top, 0.0), min(left + box_width, width), min(top + box_height, height))
        faces_here.append(Face(box, marks, heat))
    return faces_here


def yunet(rows: Floats, height: int, width: int) -> list[Face]:
    """
    Decode YuNet's candidates. Rows go through the grids of STRIDES: class, objectness, centre, log of size, five
    landmarks, in cells. Wu et al., "YuNet: a tiny millisecond-level face detector", 2023, as OpenCV's FaceDetectorYN
    reads them.
    """
    faces_here, start = [], 0
    for stride in STRIDES:
        columns, count = width // stride, (height // stride) * (width // stride)
        grid = rows[start : start + count]
        scores = np.sqrt(np.clip(grid[:, 0], 0, 1) * np.clip(grid[:, 1], 0, 1))
        for i in np.flatnonzero((scores > SCORE) & _sane(grid, grid[:, 4:6])):
            cell = np.array((i % columns, i // columns), dtype=np.float64)
            centre, half = (cell + grid[i, 2:4]) * stride, np.exp(grid[i, 4:6].astype(np.float64)) * stride / 2
            marks = (grid[i, 6:16].reshape(5, 2) + cell) * stride
            (left, top), (right, bottom) = np.maximum(centre - half, 0), np.minimum(centre + half, (width, height))
            faces_here.append(Face((left, top, right, bottom), marks.astype(np.float64), float(scores[i])))
        start += count
    return faces_here


def _sane(rows: Floats, sizes: Floats) -> NDArray[np.bool_]:
    """Return which rows (n, K) hold numbers that can be used, by their logarithms of sizes (n, 2). (n,)"""
    return np.asarray(np.isfinite(rows).all(1) & (np.abs(sizes) < LARGEST).all(1))


DECODERS: Mapping[str, Callable[[Floats, int, int], list[Face]]] = {"centerface": centerface, "yunet": yunet}
