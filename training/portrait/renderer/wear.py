"""What is worn on the head: hats, glasses and earrings, built from sheets in head coordinates."""

from __future__ import annotations

import numpy as np

from training.portrait.renderer.body import FRAME, HAT, LENS, METAL, TRIM, Anatomy
from training.portrait.renderer.gbuffer import Floats
from training.portrait.renderer.grooms import to_world
from training.portrait.renderer.sheets import Sheets, single, tube

HEAD_X, HEAD_Z, HEAD_BACK = 0.80, 0.91, -0.10  # half axes of a hat's ring, and its centre's z


def placed(points: Floats, material: int, p: Anatomy, chance: float = 0.5) -> Sheets:
    flat = to_world(points.reshape(-1, 3).astype(np.float32), p)
    return single(flat.reshape(points.shape), material, chance)


def turned(rings: list[tuple[float, float]], tilt: float, lean: float = 0.0) -> Floats:
    """A surface of revolution: rings of (height, radius as a share of the head), lower at the back by `tilt`."""
    angle = np.linspace(0, 2 * np.pi, 49)
    grid = np.zeros((len(rings), 49, 3))
    for i, (height, share) in enumerate(rings):
        x, z = HEAD_X * share * np.sin(angle), HEAD_BACK + HEAD_Z * share * np.cos(angle)
        grid[i] = np.stack([x, height + tilt * (z - HEAD_BACK) + lean * x, z], 1)
    return grid.astype(np.float32)


def dome(low: float, top: float, fullness: float, share: float = 1.0, steps: int = 14) -> list[tuple[float, float]]:
    t = np.linspace(0, 1, steps)
    up, around = np.sin(t * np.pi / 2), np.maximum(np.cos(t * np.pi / 2), 0.0) ** fullness
    return [(low + (top - low) * float(u), share * float(r)) for u, r in zip(up, around, strict=True)]


def cuff(height: float, share: float, thick: float, tall: float) -> list[tuple[float, float]]:
    """The cross-section of a rolled edge."""
    a = np.linspace(-np.pi, np.pi, 14)
    return [(height + tall * float(np.sin(v)), share + thick * float(np.cos(v))) for v in a]


def beanie(p: Anatomy) -> list[Sheets]:
    return [
        placed(turned(dome(0.44, 1.24, 0.62), 0.14), HAT, p),
        placed(turned(cuff(0.50, 1.015, 0.055, 0.125), 0.14), HAT, p, 0.9),
    ]


def wide_brim(p: Anatomy) -> list[Sheets]:
    brim = [(0.50 - 0.07 * (share - 1.0) ** 2 * 4, share) for share in np.linspace(0.95, 1.62, 10)]
    edge = turned([(float(h), float(s)) for h, s in brim], 0.10)
    edge[..., 1] -= 0.10 * (edge[..., 0] / 1.2) ** 2
    crown = [
        (0.50, 1.0), (0.62, 0.99), (0.80, 0.96), (0.95, 0.92), (1.06, 0.84), (1.12, 0.70), (1.13, 0.45), (1.11, 0.0),
    ]  # fmt: skip
    band = [(0.52, 1.012), (0.60, 1.012), (0.68, 1.0)]
    return [
        placed(edge, HAT, p, 0.3),
        placed(turned(crown, 0.10), HAT, p, 0.3),
        placed(turned(band, 0.10), TRIM, p, 0.3),
    ]


def cap(p: Anatomy) -> list[Sheets]:
    s, t = np.meshgrid(np.linspace(-1, 1, 25), np.linspace(0, 1, 9), indexing="xy")
    x = 0.66 * np.sin(s * np.pi / 2) * (1 + 0.02 * t)
    z = 0.74 - 0.60 * (1 - np.cos(s * np.pi / 2)) + 0.50 * t * np.cos(s * np.pi / 2) ** 0.6
    y = 0.50 - 0.02 * t - 0.13 * t * t - 0.16 * np.sin(s * np.pi / 2) ** 2 * (0.3 + 0.7 * t)
    visor = np.stack([x, y, z], -1)
    under = visor - np.array([0.0, 0.035, 0.0])
    rim = np.stack([visor[-1], under[-1]], 0)
    button = turned(dome(1.19, 1.25, 0.6, 0.07, 6), 0.0)
    parts = [turned(dome(0.40, 1.20, 0.62), 0.10), visor, under, rim, button]
    return [placed(part, HAT, p, 0.1) for part in parts]


def beret(p: Anatomy) -> list[Sheets]:
    rings = [
        (0.50, 0.97), (0.58, 1.06), (0.68, 1.17), (0.80, 1.22), (0.93, 1.16), (1.03, 0.95), (1.09, 0.60), (1.11, 0.0),
    ]  # fmt: skip
    band = [(0.44, 0.985), (0.50, 1.0), (0.54, 0.99)]
    return [placed(turned(rings, 0.10, 0.16), HAT, p, 0.5), placed(turned(band, 0.10, 0.10), HAT, p, 0.9)]


HATS = {"beanie": beanie, "wide brim": wide_brim, "cap": cap, "beret": beret}


def rim_curve(kind: str, side: float, size: float) -> Floats:
    """Outline of one lens, slightly wrapped around the face."""
    angle = np.linspace(0, 2 * np.pi, 41)
    power = 2.0 if kind == "round" else 3.6
    c, s = np.cos(angle), np.sin(angle)
    radius = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    wide, high = (0.205, 0.198) if kind == "round" else (0.225, 0.165)
    if kind == "sunglasses":
        wide, high = 0.232, 0.190
        radius *= 1.0 + 0.07 * np.sin(angle) * np.abs(c)
    x, y = size * wide * radius * c, size * high * radius * s - 0.015
    a = 0.302 + x
    return np.stack([side * a, y, 0.835 - 0.20 * (a - 0.1) ** 2 - 0.12 * np.maximum(a - 0.3, 0)], 1).astype(np.float32)


def glasses(kind: str, size: float, p: Anatomy) -> list[Sheets]:
    thick = {"round": 0.0165, "square": 0.0235, "sunglasses": 0.022}[kind]
    parts = []
    for side in (-1.0, 1.0):
        rim = rim_curve(kind, side, size)
        parts.append(placed(tube(rim, thick, 8), FRAME, p))
        if kind == "sunglasses":
            middle = rim[:-1].mean(0)
            rings = np.linspace(1.0, 0.0, 6)[:, None, None]
            bowl = middle + (rim - middle)[None] * rings + np.array([0, 0, 0.016]) * (1 - rings**2)
            parts.append(placed(bowl, LENS, p))
        t = np.linspace(0, 1, 12)[:, None]
        hinge, behind = rim[0] + np.array([0, 0.05, -0.01]), np.array([side * 0.745, 0.06, -0.05])
        temple = hinge + (behind - hinge) * t + np.array([side * 0.06, 0.0, 0.0]) * np.sin(np.pi * t)
        parts.append(placed(tube(temple.astype(np.float32), 0.8 * thick, 6), FRAME, p))
    t = np.linspace(-1, 1, 13)
    bridge = np.stack([0.105 * t, 0.035 + 0.025 * (1 - t**2), 0.835 + 0.012 * (1 - t**2)], 1)
    return [*parts, placed(tube(bridge.astype(np.float32), 0.85 * thick, 8), FRAME, p)]


def earrings(kind: str, p: Anatomy) -> list[Sheets]:
    parts = []
    for side in (-1.0, 1.0):
        at = np.array([side * 0.755, -0.30, -0.03])
        if kind == "stud":
            grid = turned(dome(0.0, 0.05, 1.0, 0.06, 8), 0.0) - np.array([0, 0, HEAD_BACK])
            ball = (
                np.stack([grid[..., 0], grid[..., 2] * 0.9, grid[..., 1]], -1) + at + np.array([side * 0.01, 0, 0.03])
            )
            parts.append(placed(ball, METAL, p))
        else:
            a = np.linspace(0, 2 * np.pi, 33)
            ring = at + np.stack([0.03 * np.sin(a) * side, 0.125 * np.cos(a) - 0.125, 0.09 * np.sin(a)], 1)
            parts.append(placed(tube(ring.astype(np.float32), 0.017, 8), METAL, p))
    return parts
