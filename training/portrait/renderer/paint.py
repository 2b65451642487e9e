"""Every sample of a G-buffer gets its colour from its material's painter and its light from shade.py."""

from __future__ import annotations

from math import sin

import numpy as np

from training.portrait.renderer.body import BEARD, CLOTH, EYE, FRAME, HAIR, HAT, LENS, METAL, SKIN, Anatomy
from training.portrait.renderer.garments import Wardrobe, cloth_colour
from training.portrait.renderer.gbuffer import Floats, GBuffer
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.palette import Materials
from training.portrait.renderer.shade import Lighting, cel_lit, lit
from training.portrait.renderer.shapes import noise
from training.portrait.renderer.skinpaint import Complexion, eye_colour, face_colour

Rgb = tuple[float, float, float]


@compiled
def hair_colour(along: float, across: float, chance: float, base: Rgb) -> Rgb:
    """Darker roots, lighter tips, a tone for each lock, fine strands along it."""
    strand = 0.80 + 0.30 * noise(across * 2.4 + chance * 61.0, along * 1.3 + chance * 17.0)
    k = strand * (0.84 + 0.32 * chance) * (0.62 + 0.42 * min(1.0, along * 3.0 + 0.15))
    return base[0] * k, base[1] * k, base[2] * k


@compiled
def worn_colour(
    material: int, along: float, across: float, chance: float, m: Materials, w: Wardrobe
) -> tuple[Rgb, float]:
    """Hats, frames, lenses, metal, and the standing parts of clothes."""
    if material == HAT:
        k, gloss = 1.0, 0.02
        if chance > 0.6:
            k = 0.86 + 0.14 * sin(across * 150.0)
        elif chance > 0.4:
            k = 0.92 + 0.08 * sin(across * 110.0)
        elif chance > 0.2:
            k = 0.92 + 0.08 * sin(along * 40.0)
        return (m.hat[0] * k, m.hat[1] * k, m.hat[2] * k), gloss
    if material == FRAME:
        return m.frame, 0.45
    if material == LENS:
        k = 0.6 + 0.8 * along
        return (m.lens[0] * k, m.lens[1] * k, m.lens[2] * k), 0.42
    if material == METAL:
        return m.metal, 0.70
    if chance > 0.6:
        k = 0.92 + 0.08 * sin(along * 120.0) if chance > 0.65 else 1.0
        return (w.main[0] * k, w.main[1] * k, w.main[2] * k), 0.03
    return (m.band if chance > 0.25 else w.second), 0.03


@compiled
def paint(
    buffer: GBuffer,
    ao: Floats,
    sun: Floats,
    p: Anatomy,
    c: Complexion,
    w: Wardrobe,
    m: Materials,
    light: Lighting,
    out: Floats,
) -> None:
    """Linear colour (S, S, 3) of everything that is not background; ao and sun are (S/2, S/2)."""
    size = buffer.z.shape[0]
    view = (0.0, 0.0, 1.0)
    for row in range(size):
        for column in range(size):
            material = int(buffer.material[row, column])
            if material == 0:
                continue
            x, y, z = buffer.coord[row, column, 0], buffer.coord[row, column, 1], buffer.coord[row, column, 2]
            n = (buffer.normal[row, column, 0], buffer.normal[row, column, 1], buffer.normal[row, column, 2])
            t = (buffer.tangent[row, column, 0], buffer.tangent[row, column, 1], buffer.tangent[row, column, 2])
            gloss = 0.9
            if material == SKIN:
                albedo, gloss = face_colour(x, y, z, p, c)
            elif material == EYE:
                albedo = eye_colour(x, y, p, c)
            elif material in (HAIR, BEARD):
                albedo = hair_colour(x, y, z, c.hair)
            elif material == CLOTH:
                albedo, gloss = cloth_colour(x, y, z, p, w)
            else:
                albedo, gloss = worn_colour(material, x, y, z, m, w)
            a, s = ao[row // 2, column // 2], sun[row // 2, column // 2]
            if light.cel > 0.5:
                rgb = cel_lit(material, n, t, view, albedo, gloss, a, s, light)
            else:
                rgb = lit(material, n, t, view, albedo, gloss, a, s, light)
            out[row, column, 0], out[row, column, 1], out[row, column, 2] = rgb[0], rgb[1], rgb[2]


def new_picture(size_px: int) -> Floats:
    return np.zeros((size_px, size_px, 3), np.float32)
