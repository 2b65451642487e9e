"""
Ambient occlusion and soft shadows from the depth picture alone (screen space), at half the samples' resolution.

Works for hair, hats, glasses and chins alike, because all it asks is: does something stand in front? Lengths are in
units, of which the eyes are 0.60 apart: about 10 cm each. Where no source is named, numbers were chosen for how the
pictures look and for the time they take; none was measured against a reference.
"""

from __future__ import annotations

from math import cos, sin, sqrt

import numpy as np
from scipy.ndimage import uniform_filter  # type: ignore[import-untyped,unused-ignore]

from training.portrait.renderer.gbuffer import FAR, Floats
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import hashed

SAMPLES = 14  # of each pixel; with a 4 x 4 pattern that is 224 of a neighbourhood
REACH_UNITS = 0.42  # 4 cm: creases and what is under a chin, not the whole head
SHADOW_STEPS = 26
SHADOW_REACH_UNITS = 1.7  # 18 cm: from a hat's brim to the neck


@compiled
def ambient(z: Floats, normal: Floats, units_per_px: float, out: Floats) -> None:
    """
    Fill `out` with Alchemy obscurance (McGuire 2011), 1 in the open: samples on a spiral, turned by a 4x4 pattern that
    a blur removes later.
    """
    size = z.shape[0]
    for row in range(size):
        for column in range(size):
            if z[row, column] == FAR:
                out[row, column] = 1.0
                continue
            turn = 6.2832 * hashed(float((row % 4) * 4 + column % 4))
            total = 0.0
            for k in range(SAMPLES):
                radius = REACH_UNITS * ((k + 0.6) / SAMPLES) ** 1.3  # denser near by
                angle = turn + 2.399963 * k  # the golden angle: no two samples of a spiral lie behind each other
                dx, dy = radius * cos(angle), radius * sin(angle)
                i, j = row - int(dy / units_per_px), column + int(dx / units_per_px)
                if i < 0 or j < 0 or i >= size or j >= size or z[i, j] == FAR:
                    continue
                dz = z[i, j] - z[row, column]
                far = dx * dx + dy * dy + dz * dz + 1e-5  # no division by 0
                facing = normal[row, column, 0] * dx + normal[row, column, 1] * dy + normal[row, column, 2] * dz
                fade = max(1.0 - far / (REACH_UNITS * REACH_UNITS * 1.6), 0.0)  # nothing at 1.26 times the reach
                total += max(facing / sqrt(far) - 0.12, 0.0) * fade  # 7 degrees: a flat surface must not shade itself
            out[row, column] = max(1.0 - 1.75 * total / SAMPLES, 0.0)  # strength, McGuire's sigma


@compiled
def shadow(z: Floats, units_per_px: float, lx: float, ly: float, lz: float, spread: float, out: Floats) -> None:
    """Fill `out` with 1 where the light reaches. `spread` is the light's radius as seen from the person: soft edges."""
    size = z.shape[0]
    for row in range(size):
        for column in range(size):
            if z[row, column] == FAR:
                out[row, column] = 1.0
                continue
            cell = float((row % 4) * 4 + column % 4)
            ax = lx + spread * (2.0 * hashed(cell + 17.0) - 1.0)
            ay = ly + spread * (2.0 * hashed(cell + 41.0) - 1.0)
            out[row, column] = reached(z, row, column, ax, ay, lz, hashed(cell + 3.0), units_per_px)


@compiled
def reached(
    z: Floats, row: int, column: int, lx: float, ly: float, lz: float, jitter: float, units_per_px: float
) -> float:
    """Walk from a pixel towards the light; return 0 if something stands in the way, else 1."""
    size = z.shape[0]
    for k in range(SHADOW_STEPS):
        t = SHADOW_REACH_UNITS * ((k + 0.3 + jitter) / SHADOW_STEPS) ** 1.6  # short steps first: contact shadows
        i, j = row - int(ly * t / units_per_px), column + int(lx * t / units_per_px)
        if i < 0 or j < 0 or i >= size or j >= size:
            return 1.0
        above = z[i, j] - (z[row, column] + lz * t)
        # The margin grows with the steps, else surfaces shade themselves; what is 0.95 units nearer has a gap behind it
        if 0.025 + 0.05 * t < above < 0.95:
            return 0.0
    return 1.0


def downscaled(buffer_z: Floats, normal: Floats) -> tuple[Floats, Floats]:
    """Return every second sample of each row and column."""
    return np.ascontiguousarray(buffer_z[::2, ::2]), np.ascontiguousarray(normal[::2, ::2])


def blur_within(values: Floats, z: Floats, width_px: int) -> Floats:
    """Blur over a box of `width_px` without the empty background."""
    here = (z > FAR).astype(np.float32)
    weight = uniform_filter(here, width_px)
    blurred: Floats = uniform_filter(values * here, width_px) / np.maximum(weight, 1e-3)
    return blurred
