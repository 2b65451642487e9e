"""
Clothes: the parts that stand off the body (hoods, rolled collars, shirt collars) as sheets, and the relief and colour
of the cloth itself in torso coordinates.
"""

from __future__ import annotations

from math import atan2, sin
from typing import NamedTuple

import numpy as np

from training.portrait.renderer.body import (
    DRESS,
    HANFU,
    HOODIE,
    SHIRT,
    SUIT,
    TEE,
    TRIM,
    TURTLENECK,
    VNECK,
    Anatomy,
    above_neckline,
)
from training.portrait.renderer.gbuffer import Floats
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import bump, noise, rise
from training.portrait.renderer.sheets import Sheets, single, tube
from training.portrait.renderer.skinpaint import mix

Rgb = tuple[float, float, float]


class Wardrobe(NamedTuple):
    main: Rgb
    second: Rgb  # shirt, stripes, inner collar
    accent: Rgb  # tie, strings
    stripes: float  # 1: striped T-shirt
    tie: float  # 1: with a tie


def from_torso(points: Floats, p: Anatomy) -> Floats:
    """Torso coordinates to world: the inverse of body.to_torso."""
    x, z = points[..., 0], points[..., 2] + 0.25
    world = points.copy()
    world[..., 0] = p.torso_cos * x + p.torso_sin * z
    world[..., 2] = -p.torso_sin * x + p.torso_cos * z - 0.25
    return world


def collar_ring(height: float, fall: float, wide: float, deep: float, points: int = 49) -> Floats:
    """A ring around the neck, lower in front by `fall`."""
    a = np.linspace(0, 2 * np.pi, points)
    x, z = wide * np.sin(a), -0.28 + deep * np.cos(a)
    return np.stack([x, height - fall * (z + 0.28), z], 1).astype(np.float32)


def extras(p: Anatomy) -> list[Sheets]:
    """Sheets of the garment, material TRIM. Chance above 0.6: the main colour (above 0.65 ribbed); 0.2: the second."""
    parts: list[Floats] = []
    if p.clothes == TURTLENECK:
        ring = collar_ring(-1.20, 0.22, 0.375 * p.neck, 0.385 * p.neck)
        parts.append(tube(ring, 0.085, 12, 1.5))
    if p.clothes == HOODIE:
        ring = collar_ring(-1.45, 0.52, 0.60, 0.50, 61)
        behind = (1 - np.cos(np.linspace(0, 2 * np.pi, 61))) / 2
        ring[:, 1] += 0.10 * behind
        parts.append(tube(ring, (0.085 + 0.11 * behind).astype(np.float32), 16, 1.35))
    sheets = [single(from_torso(part, p), TRIM, 0.7 if p.clothes == TURTLENECK else 0.62) for part in parts]
    if p.clothes in (SHIRT, SUIT):
        chance = 0.62 if p.clothes == SHIRT else 0.2
        sheets += [single(from_torso(leaf(side, p), p), TRIM, chance) for side in (-1.0, 1.0)]
    return sheets


def leaf(side: float, p: Anatomy) -> Floats:
    """One half of a shirt collar: a band that starts behind the neck and ends in a point in front."""
    t, v = np.meshgrid(np.linspace(0, 1, 26), np.linspace(0, 1, 8), indexing="ij")
    angle = np.pi * (1 - 0.955 * t)
    radius = 0.395 * p.neck + 0.03 + 0.085 * v
    x, z = side * radius * np.sin(angle), -0.27 + radius * np.cos(angle)
    fold = -1.20 - 0.56 * (-0.27 + (0.395 * p.neck + 0.03) * np.cos(angle) + 0.27)
    drop = 0.15 + 0.17 * t**5
    x = x + side * (0.02 + 0.13 * v) * t**5
    return np.stack([x, fold - drop * v, z + 0.03 * v * t**5], -1).astype(np.float32)


@compiled
def lapel(x: float, y: float) -> tuple[float, float]:
    """For a suit: distance outside the shirt's opening, and the lapel's width at this height."""
    a = abs(x)
    outside = a - max(0.40 * (y + 2.38), 0.0) * 0.92
    width = 0.20 + 0.10 * rise(-2.2, -1.75, y)
    return outside, width


@compiled
def cloth_height(x: float, y: float, z: float, p: Anatomy) -> float:
    """Relief of the cloth: soft folds, seams, edges."""
    h = 0.030 * noise(x * 2.6 + 3.0, y * 1.5 + 0.6 * x) + 0.010 * noise(x * 6.0, y * 3.0)
    edge = above_neckline(x, y, z, p)
    if p.clothes == SUIT and z > -0.25:
        outside, width = lapel(x, y)
        notch = bump(y + 1.80 - 0.25 * abs(x), 0.02) * (outside > 0.12)
        h += 0.030 * rise(width + 0.01, width - 0.015, outside) * (outside > 0.0) - 0.02 * notch
        h -= 0.02 * rise(0.0, -0.02, outside)
    elif p.clothes == HANFU:
        h += 0.020 * rise(0.165, 0.150, edge) + 0.012 * rise(0.050, 0.040, edge)
        h += 0.012 * rise(0.0, 0.02, x * 0.9 - (y + 2.02) * 0.55)
    elif p.clothes == TEE or p.clothes == VNECK:
        h += 0.010 * rise(0.060, 0.050, edge)
    elif p.clothes == SHIRT:
        h += 0.010 * rise(0.055, 0.045, abs(x)) * (z > -0.2)
    return h


@compiled
def knit(angle: float, ribs: float) -> float:
    return 0.90 + 0.10 * sin(angle * ribs)


@compiled
def cloth_colour(x: float, y: float, z: float, p: Anatomy, w: Wardrobe) -> tuple[Rgb, float]:
    """Colour and gloss of a cloth point in torso coordinates."""
    kind, rgb, gloss, shade = p.clothes, w.main, 0.03, 1.0
    edge = above_neckline(x, y, z, p)
    if kind == TEE:
        if w.stripes > 0.5 and sin(y * 27.0 + 0.6 * z) > 0.0 and edge > 0.06:
            rgb = w.second
        shade = 0.86 if edge < 0.055 else 1.0
    elif kind == VNECK:
        shade = knit(x, 60.0) if edge > 0.055 else 0.84
    elif kind == TURTLENECK:
        shade = knit(atan2(x, z + 0.5), 52.0)
    elif kind == HOODIE:
        string = rise(0.024, 0.016, abs(abs(x) - 0.17 - 0.02 * sin(y * 5.0))) * (y > -2.10) * (z > -0.1)
        rgb = mix(rgb, w.accent, string)
    elif kind == SUIT and z > -0.25:
        outside, width = lapel(x, y)
        if outside < 0.0:
            knot = 0.075 if y > -1.66 else 0.055 + 0.085 * (-y - 1.66)
            worn = w.tie > 0.5 and abs(x) < knot
            rgb = w.accent if worn else w.second
            shade = 0.80 if outside > -0.02 else 1.0
            if worn:
                shade = 0.75 if abs(y + 1.66) < 0.012 else 0.92 + 0.10 * sin((x + y) * 70.0)
        elif abs(outside - width) < 0.010 or (abs(y + 1.80 - 0.25 * abs(x)) < 0.012 and 0.12 < outside < width + 0.02):
            shade = 0.55
    elif kind == SHIRT:
        button = (x * x + (y + 2.02) ** 2 < 0.0006) or (x * x + (y + 2.24) ** 2 < 0.0006)
        shade = 0.55 if button else 1.0
    elif kind == HANFU:
        crossed = x * 0.9 - (y + 2.02) * 0.55
        lower = y < -2.0 and crossed < 0.16 and crossed > 0.0
        if edge < 0.045:
            rgb = (0.80, 0.78, 0.74)
        elif edge < 0.16 or lower:
            rgb = w.second
        gloss = 0.08
    elif kind == DRESS:
        shade = 0.92 if edge < 0.03 else 1.0
        gloss = 0.10
    shade *= 0.95 + 0.10 * noise(x * 3.1 + 5.0, y * 3.1)
    return (rgb[0] * shade, rgb[1] * shade, rgb[2] * shade), gloss
