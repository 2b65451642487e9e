"""
Fine relief of the face: bends the traced normals by a height map and puts the eyeballs and teeth in.

Runs once for a geometry; colours and light come later. Heights are in units (about 10 cm, body.py): 0.010 is a
millimetre. They were chosen for how the pictures look.
"""

from __future__ import annotations

from math import sqrt

from training.portrait.renderer.body import EYE, SKIN, Anatomy
from training.portrait.renderer.facemap import (
    EYE_X,
    aperture,
    crease_mask,
    inside_mouth,
    lip_mask,
    mouth_lines,
    mouth_seam,
    nostril_mask,
    wrinkles,
)
from training.portrait.renderer.gbuffer import GBuffer
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import bump, rise


@compiled
def height(x: float, y: float, p: Anatomy) -> float:
    """Return the height over the smooth face, in units: lids, lips, the groove under the nose, wrinkles."""
    a = abs(x)
    h = 0.0
    if y > -0.2:  # above the tip of the nose: lids; below it: lips
        h -= 0.010 * crease_mask(a, y, p)
        h += 0.010 * rise(0.035, 0.0, abs(aperture(a, y, p)))
    else:
        u, top, inner_top, inner_low, low = mouth_lines(x, p)
        if abs(u) < 1.15:  # beyond the mouth's corners (1) its lines fade
            upper = min(max((y - inner_top) / (top - inner_top + 1e-4), 0.0), 1.0)
            lower = min(max((inner_low - y) / (inner_low - low + 1e-4), 0.0), 1.0)
            fade = rise(1.05, 0.6, abs(u))
            h += 0.016 * lip_mask(x, y, p)
            h += fade * (0.105 * upper * (1.0 - upper) + 0.175 * lower * (1.0 - lower))
            h -= 0.022 * mouth_seam(x, y, p)
        # the groove between nose and lip (philtrum)
        h -= 0.012 * bump(a, 0.035) * rise(-0.42, -0.47, y) * rise(top - 0.01, top + 0.03, y)
    h -= 0.020 * nostril_mask(a, y, p)
    return h - 0.016 * wrinkles(a, y, p)


@compiled
def bend(buffer: GBuffer, row: int, column: int, gx: float, gy: float, p: Anatomy) -> None:
    """Tilt a normal by a height gradient given in head coordinates."""
    t = p.turn
    nx = buffer.normal[row, column, 0] - (t[0] * gx + t[1] * gy)
    ny = buffer.normal[row, column, 1] - (t[3] * gx + t[4] * gy)
    nz = buffer.normal[row, column, 2] - (t[6] * gx + t[7] * gy)
    length = 1.0 / sqrt(nx * nx + ny * ny + nz * nz)
    buffer.normal[row, column, 0] = nx * length
    buffer.normal[row, column, 1] = ny * length
    buffer.normal[row, column, 2] = nz * length


@compiled
def set_eyeball(buffer: GBuffer, row: int, column: int, x: float, y: float, p: Anatomy) -> None:
    """Make a pixel part of a wet sphere behind the lids. Its radius, 0.235 units, is twice an eyeball's."""
    t = p.turn
    ex = (abs(x) - EYE_X) / 0.235 * (1.0 if x > 0.0 else -1.0)
    ey = y / 0.235
    ez = sqrt(max(1.0 - ex * ex - ey * ey, 0.05))  # real, however far from the middle
    buffer.material[row, column] = EYE
    buffer.normal[row, column, 0] = t[0] * ex + t[1] * ey + t[2] * ez
    buffer.normal[row, column, 1] = t[3] * ex + t[4] * ey + t[5] * ez
    buffer.normal[row, column, 2] = t[6] * ex + t[7] * ey + t[8] * ez


@compiled
def add_relief(buffer: GBuffer, p: Anatomy) -> None:
    """Bend the normals of all skin in front of the ears and above the chin, and set the eyeballs."""
    e = 0.003  # units, of the finite difference: about a sample of a picture of 512 px (3.55 / 1024)
    for row in range(buffer.z.shape[0]):
        for column in range(buffer.z.shape[1]):
            x, y, z = buffer.coord[row, column, 0], buffer.coord[row, column, 1], buffer.coord[row, column, 2]
            if buffer.material[row, column] != SKIN or z < 0.25 or y < -0.95:  # only the face has relief
                continue
            if aperture(abs(x), y, p) < 0.0:
                set_eyeball(buffer, row, column, x, y, p)
            elif inside_mouth(x, y, p) < 0.5:
                h = height(x, y, p)
                bend(buffer, row, column, (height(x + e, y, p) - h) / e, (height(x, y + e, p) - h) / e, p)
