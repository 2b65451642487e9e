"""
The solid person: skull, face, neck, torso and the cloth around it, as one distance function.

Units: the eyes are 0.60 apart; x to the picture's right, y up, z towards the camera; the origin lies inside the head
at eye height. Knows only what shows in the silhouette or in large shading. Lips, lids, brows and folds come later
(relief.py, skinpaint.py); hair, hats and glasses are sheets (sheets.py).
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import ball, capsule, cut, ellipsoid, join

SKIN, EYE, CLOTH, HAIR, BEARD, FRAME, LENS, HAT, METAL, TRIM = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
BARE, TEE, VNECK, TURTLENECK, HOODIE, SUIT, SHIRT, DRESS, HANFU = 0, 1, 2, 3, 4, 5, 6, 7, 8


class Anatomy(NamedTuple):
    """Everything that shapes a person. Factors are 1 for the average face, lengths are in units."""

    turn: tuple[float, float, float, float, float, float, float, float, float]  # head to world rotation, row by row
    torso_cos: float
    torso_sin: float
    jaw_width: float
    jaw_length: float
    jaw_corner: float
    cheek: float
    chin: float
    eye_scale: float
    eye_open: float
    eye_cant: float
    nose_length: float
    nose_width: float
    nose_size: float
    mouth_width: float
    mouth_y: float
    smile: float
    mouth_open: float
    lip: float
    brow_y: float
    brow_weight: float
    brow_arch: float
    brow_tilt: float
    gaze_x: float
    gaze_y: float
    lash: float
    neck: float
    shoulder: float
    age: float  # 0 young, 1 old: wrinkles
    clothes: int


PIVOT_Y, PIVOT_Z = -0.55, -0.12  # where the head turns on the neck


@compiled
def to_head(x: float, y: float, z: float, p: Anatomy) -> tuple[float, float, float]:
    """World point to head coordinates."""
    t = p.turn
    y, z = y - PIVOT_Y, z - PIVOT_Z
    hx = t[0] * x + t[3] * y + t[6] * z
    hy = t[1] * x + t[4] * y + t[7] * z
    hz = t[2] * x + t[5] * y + t[8] * z
    return hx, hy + PIVOT_Y, hz + PIVOT_Z


@compiled
def to_torso(x: float, z: float, p: Anatomy) -> tuple[float, float]:
    """World point to torso coordinates: a turn about the upright axis."""
    return p.torso_cos * x - p.torso_sin * (z + 0.25), p.torso_sin * x + p.torso_cos * (z + 0.25) - 0.25


@compiled
def skull(x: float, y: float, z: float, p: Anatomy) -> float:
    """The head without ears and nose; hair grows and drapes on it."""
    a = sqrt(x * x + 0.0004)
    dome = ellipsoid(x, y - 0.28, z + 0.10, 0.715, 0.735, 0.82)
    lower = ellipsoid(x, y + 0.27, z - 0.10, 0.590 * p.jaw_width, 0.70 * p.jaw_length, 0.60)
    d = join(dome, lower, 0.36)
    cheek = ball(a - 0.33, y + 0.30, z - 0.42, 0.245 * p.cheek)
    d = join(d, cheek, 0.28)
    jowl = ball(a - 0.20, y + 0.58 * p.jaw_length, z - 0.36, 0.24)
    d = join(d, jowl, 0.28)
    chin_y = -0.80 * p.jaw_length
    chin = ellipsoid(x, y - chin_y, z - 0.47, 0.20 * p.chin, 0.15 * p.chin, 0.17)
    d = join(d, chin, 0.24)
    if p.jaw_corner > 0.0:
        corner = ball(a - 0.39 * p.jaw_width, y + 0.50 * p.jaw_length, z - 0.05, 0.16 * p.jaw_corner)
        d = join(d, corner, 0.30)
    return d


@compiled
def features(x: float, y: float, z: float, d: float, p: Anatomy) -> float:
    """Sockets, lids, nose and the mound of the mouth, added to the skull's distance d. Only the front needs it."""
    a = sqrt(x * x + 0.0004)
    eye = p.eye_scale
    socket = ellipsoid(a - 0.29, y - 0.01, z - 0.83, 0.21 * eye, 0.12 * eye, 0.12)
    d = cut(d, socket, 0.16)
    ridge = capsule(a, y, z, 0.13, 0.225, 0.615, 0.42, 0.23, 0.51, 0.05, 0.045)
    d = join(d, ridge, 0.18)
    lid = ball(a - 0.30, y, z - 0.475, 0.16 + 0.055 * eye)
    d = join(d, lid, 0.07)
    tip_y, tip_z = -0.335 * p.nose_length, 0.775 + 0.045 * p.nose_size
    bridge = capsule(x, y, z, 0.0, 0.12, 0.62, 0.0, tip_y + 0.03, tip_z - 0.03, 0.050, 0.066 * p.nose_size)
    tip = ellipsoid(x, y - tip_y, z - tip_z, 0.088 * p.nose_size, 0.078 * p.nose_size, 0.085 * p.nose_size)
    wing = ellipsoid(a - 0.088 * p.nose_width, y - tip_y + 0.028, z - tip_z + 0.085, 0.052 * p.nose_size, 0.052, 0.075)
    nose = join(join(bridge, tip, 0.07), wing, 0.05)
    d = join(d, nose, 0.085)
    mound = ellipsoid(x, y - p.mouth_y, z - 0.56, 0.27 * p.mouth_width, 0.17, 0.135)
    return join(d, mound, 0.16)


@compiled
def ear(x: float, y: float, z: float) -> float:
    a = abs(x)
    shell = ellipsoid(a - 0.735 + 0.22 * (z + 0.05), y + 0.09, z + 0.06, 0.060, 0.215, 0.135)
    bowl = ellipsoid(a - 0.800 + 0.22 * (z + 0.05), y + 0.06, z + 0.01, 0.050, 0.130, 0.080)
    return cut(shell, bowl, 0.05)


@compiled
def face(x: float, y: float, z: float, p: Anatomy) -> float:
    """The whole head in head coordinates."""
    d = skull(x, y, z, p)
    if d > 0.5:
        return d - 0.2
    if z > 0.10:
        d = features(x, y, z, d, p)
    return join(d, ear(x, y, z), 0.05)


@compiled
def torso(x: float, y: float, z: float, p: Anatomy) -> float:
    """Neck, trapezius, shoulders and chest in torso coordinates."""
    a = sqrt(x * x + 0.0009)
    neck = capsule(x, y, z, 0.0, -0.70, -0.15, 0.0, -1.80, -0.34, 0.335 * p.neck, 0.40 * p.neck)
    w = p.shoulder
    slope = capsule(a, y, z, 0.20, -1.58, -0.36, 1.02 * w, -1.88, -0.33, 0.20, 0.30)
    arm = ball(a - 1.16 * w, y + 2.02, z + 0.30, 0.36)
    chest = ellipsoid(x, y + 2.55, z + 0.24, 1.20 * w, 1.02, 0.62)
    bones = capsule(a, y, z, 0.10, -1.73, 0.06, 0.75 * w, -1.66, -0.10, 0.05, 0.05)
    trunk = join(join(join(slope, arm, 0.25), chest, 0.40), bones, 0.10)
    return join(trunk, neck, 0.30)


@compiled
def above_neckline(x: float, y: float, z: float, p: Anatomy) -> float:
    """Negative inside the space that the neckline keeps free of cloth: above a plane that falls to the front."""
    kind = p.clothes
    if kind == DRESS:
        return min(ellipsoid(x, y + 1.50, z - 0.05, 1.00 * p.shoulder, 0.40, 0.95), -1.52 - y)
    height, fall, curve = -1.43, 0.55, 0.10
    if kind == TURTLENECK:
        height, fall, curve = -1.12, 0.16, 0.0
    if kind in (SUIT, SHIRT):
        height, fall = -1.36, 0.34
    if kind in (VNECK, HANFU):
        height, fall = -1.40, 0.26
    plane = (height - fall * (z + 0.33) + curve * x * x - y) * 0.85
    depth, steep = 0.0, 0.50
    if kind == VNECK:
        depth = -2.12
    if kind == SHIRT:
        depth, steep = -1.86, 0.62
    if kind == HANFU:
        depth = -2.02
    if depth < 0.0:
        plane = min(plane, max(abs(x) * 0.85 - (y - depth) * steep, -(z + 0.30)))
    return plane


@compiled
def cloth(x: float, y: float, z: float, skin: float, p: Anatomy) -> float:
    """The garment: the torso a little thicker, without what lies above its neckline. `skin` is the torso's distance."""
    thickness = 0.035
    if p.clothes == HOODIE or p.clothes == SUIT:
        thickness = 0.065
    if p.clothes == TURTLENECK:
        thickness = 0.045
    return cut(skin - thickness, above_neckline(x, y, z, p), 0.03)


@compiled
def person(x: float, y: float, z: float, p: Anatomy) -> tuple[float, int]:
    """Distance to the nearest surface in world coordinates, and its material."""
    d, material = 9.0, SKIN
    if y < -0.30:
        tx, tz = to_torso(x, z, p)
        d = torso(tx, y, tz, p)
        if p.clothes != BARE and d < 0.4:
            garment = cloth(tx, y, tz, d, p)
            if garment < d:
                material = CLOTH
                d = garment
    if y > -1.45:
        hx, hy, hz = to_head(x, y, z, p)
        around = ball(hx, hy - 0.02, hz + 0.05, 1.20)
        if around > 0.30:
            return min(d, around), material
        head = face(hx, hy, hz, p)
        if material == SKIN:
            return join(d, head, 0.10), SKIN
        if head < d:
            return head, SKIN
    return d, material
