"""Beards and moustaches: short locks on the lower face, and the coil of hair of a bun."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.portrait.renderer.body import BEARD, HAIR, Anatomy, face
from training.portrait.renderer.gbuffer import Floats
from training.portrait.renderer.grooms import BASE, to_world
from training.portrait.renderer.growth import POINTS, grow, outwards, ribbons
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.sheets import Sheets, unit


@compiled
def land_on_face(x: Floats, y: Floats, p: Anatomy, roots: Floats) -> None:
    """Points of the face seen from the front, at the given x and y of the head."""
    for g in range(x.shape[0]):
        z = 1.1
        for _ in range(14):
            z -= 0.9 * face(x[g], y[g], z, p)
        roots[g, 0], roots[g, 1], roots[g, 2] = x[g], y[g], z


def covered(x: Floats, y: Floats, p: Anatomy, goatee: bool) -> npt.NDArray[np.bool_]:
    """Where a beard grows: along the jaw, up the sideburns, not on the cheeks and not on the lips."""
    a = np.abs(x)
    cheek_line = -0.30 - 0.42 * np.clip(0.58 - a, 0, 1) - 0.15 * (a < 0.2)
    lips = (a / 0.27) ** 2 + ((y - p.mouth_y + 0.02 + p.mouth_open) / (0.095 + p.mouth_open)) ** 2 < 1.0
    grows = (y < cheek_line) & ~lips
    chin = (a < 0.24) & (y < p.mouth_y + 0.1)
    kept: npt.NDArray[np.bool_] = grows & chin if goatee else grows
    return kept


def locks(
    x: Floats,
    y: Floats,
    lengths: tuple[float, float],
    clear: float,
    droop: float,
    p: Anatomy,
    rng: np.random.Generator,
) -> Sheets:
    """Short locks on the face; `droop` 1 lets them hang, less combs them to the sides."""
    k = len(x)
    head = np.zeros((k, 3), np.float32)
    land_on_face(x, y, p, head)
    keep = (head[:, 2] > -0.15) & (head[:, 2] < 1.0)
    head = head[keep]
    k = len(head)
    roots, paths = to_world(head, p), np.zeros((k, POINTS, 3), np.float32)
    comb = BASE._replace(side=0.35 if droop > 0.5 else 1.0, up=-droop, back=-0.2, grip=1.0, gravity=0.1, cling=0.6)
    comb = comb._replace(window=0.0, lift=0.45)
    outward = outwards(roots[:, None], p)[:, 0]
    size = rng.uniform(*lengths, k).astype(np.float32)
    clears = rng.uniform(0.3 * clear, clear, k).astype(np.float32)
    stray = rng.normal(0, 0.10, (k, 3)).astype(np.float32)
    grow(roots, outward, size, clears, stray, comb, p, paths)
    width = rng.uniform(0.030, 0.048, k).astype(np.float32)
    return Sheets(ribbons(paths, width, 0.35, outwards(paths, p)), rng.random(k).astype(np.float32), BEARD)


def beard(kind: str, p: Anatomy, rng: np.random.Generator) -> list[Sheets]:
    """`full`, `goatee` or `moustache`; stubble is painted."""
    sheets = []
    if kind in ("full", "goatee"):
        x = rng.uniform(-0.62, 0.62, 1500).astype(np.float32)
        y = rng.uniform(-0.98, -0.12, 1500).astype(np.float32)
        here = covered(x, y, p, kind == "goatee")
        long = rng.uniform(0.0, 0.18) if kind == "full" else 0.0
        sheets.append(locks(x[here], y[here], (0.10, 0.16 + long), 0.05 + 0.3 * long, 1.0, p, rng))
    x = rng.uniform(-0.205, 0.205, 120).astype(np.float32)
    y = (p.mouth_y + 0.128 + 0.3 * p.mouth_open - 0.30 * x * x + rng.uniform(-0.010, 0.030, 120)).astype(np.float32)
    sheets.append(locks(x, y, (0.08, 0.12), 0.085, 0.45, p, rng))
    return sheets


def bun(x: float, y: float, z: float, radius: float, p: Anatomy, rng: np.random.Generator) -> Sheets:
    """A ball of wound locks."""
    k = 70
    axis = unit((rng.normal(0, 0.35, (k, 3)) + np.array([0.0, 0.0, 1.0])).astype(np.float32))
    first = unit(np.cross(axis, np.array([0.0, 1.0, 0.2])))
    second = np.cross(axis, first)
    lean = rng.uniform(-0.75, 0.75, (k, 1, 1))
    angle = rng.uniform(0, 6.28, (k, 1)) + np.linspace(0, 2.4, POINTS)[None]
    ring = np.cos(angle)[..., None] * first[:, None] + np.sin(angle)[..., None] * second[:, None]
    away = unit((ring * np.sqrt(1 - lean**2) + lean * axis[:, None]).astype(np.float32))
    size = radius * rng.uniform(0.92, 1.04, (k, 1, 1)) * np.array([1.0, 0.86, 1.0])
    paths = to_world((np.array([x, y, z]) + away * size).reshape(-1, 3).astype(np.float32), p).reshape(k, POINTS, 3)
    centre = to_world(np.array([[x, y, z]], np.float32), p)[0]
    width = rng.uniform(0.05, 0.075, k).astype(np.float32)
    return Sheets(ribbons(paths, width, 0.4, unit(paths - centre)), rng.random(k).astype(np.float32), HAIR)
