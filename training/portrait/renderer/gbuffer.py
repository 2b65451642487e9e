"""
What the camera sees before any light falls on it: depth, normal, material and surface coordinates of every sample.

Knows the camera: a long lens that keeps the midpoint of the eyes at one place of the picture, whatever the pose.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.portrait.renderer.body import PIVOT_Y, PIVOT_Z, Anatomy

Floats = npt.NDArray[np.float32]
DISTANCE = 10.0  # camera to origin
UNITS_ACROSS = 3.55  # width of the picture at the depth of the eyes
EYE_LINE = 0.430  # of the picture's height, from the top
FAR = -50.0


def floats(values: object) -> Floats:
    """What numpy computed, in single precision."""
    return np.asarray(values, np.float32)


class Camera(NamedTuple):
    x: float  # world position under the picture's centre column, at the eyes' depth
    y: float
    focus_z: float
    units_per_px: float
    size_px: int


class GBuffer(NamedTuple):
    z: Floats  # (S, S) world z, larger is nearer; FAR where nothing is
    normal: Floats  # (S, S, 3) world
    material: npt.NDArray[np.uint8]  # (S, S)
    coord: Floats  # (S, S, 3) head or torso coordinates of solids; (along, across, chance) of sheets
    tangent: Floats  # (S, S, 3) direction of hair


def camera_for(p: Anatomy, size_px: int) -> Camera:
    turn = np.array(p.turn).reshape(3, 3)
    eyes = turn @ np.array([0.0, -PIVOT_Y, 0.62 - PIVOT_Z]) + np.array([0.0, PIVOT_Y, PIVOT_Z])
    units_per_px = UNITS_ACROSS / size_px
    middle_y = float(eyes[1]) - (0.5 - EYE_LINE) * UNITS_ACROSS
    return Camera(float(eyes[0]), middle_y, float(eyes[2]), units_per_px, size_px)


def empty(size_px: int) -> GBuffer:
    flat = (size_px, size_px)
    return GBuffer(
        np.full(flat, FAR, np.float32),
        np.zeros((*flat, 3), np.float32),
        np.zeros(flat, np.uint8),
        np.zeros((*flat, 3), np.float32),
        np.zeros((*flat, 3), np.float32),
    )
