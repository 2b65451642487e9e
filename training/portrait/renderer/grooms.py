"""
Hairstyles: which roots, combed how, how long and how curly. Turns a style's name into sheets of hair.

A style is one or more `Groom`s. Numbers are in units of the head (eyes 0.60 apart, head about 2 high).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from training.portrait.renderer.body import HAIR, PIVOT_Y, PIVOT_Z, Anatomy, skull
from training.portrait.renderer.gbuffer import Floats, floats
from training.portrait.renderer.growth import POINTS, Comb, coil, grow, outwards, ribbons
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.sheets import Sheets, unit

BASE = Comb(
    part=0.0, back=0.3, up=-0.3, side=0.8, tie_x=0.0, tie_y=0.0, tie_z=0.0, tie=0.0, twin=0.0,
    grip=0.35, gravity=0.35, window=0.52, cling=1.0, lift=0.25,
)  # fmt: skip


@dataclass(frozen=True)
class Groom:
    """One group of locks."""

    region: str  # all, top, sides, fringe, knot
    count: int
    length: tuple[float, float]
    clear: tuple[float, float]  # distance kept from the scalp: volume
    width: tuple[float, float]
    comb: Comb = BASE
    stray: float = 0.10
    wave: float = 0.0
    wave_length: float = 0.55
    curl: float = 0.0
    pitch: float = 0.30
    bulge: float = 0.40
    point: float = 3.0
    even: float = 0.0  # 1: all ends at the same height (a cut line) instead of the same length


@compiled
def land(directions: Floats, p: Anatomy, roots: Floats) -> None:
    """Where rays from inside the head leave the skull, in head coordinates."""
    for g in range(directions.shape[0]):
        t = 0.5
        for _ in range(10):
            t -= skull(t * directions[g, 0], 0.22 + t * directions[g, 1], -0.10 + t * directions[g, 2], p)
        for c in range(3):
            roots[g, c] = t * directions[g, c]
        roots[g, 1] += 0.22
        roots[g, 2] -= 0.10


def hairline(a: Floats) -> Floats:
    """Height of the hairline over the forehead and temples."""
    line: Floats = 0.66 - 0.62 * a * a
    return line


def in_region(region: str, r: Floats) -> npt.NDArray[np.bool_]:
    a, y, z = np.abs(r[:, 0]), r[:, 1], r[:, 2]
    scalp = ((y > hairline(a)) & (z > -0.05)) | ((z < 0.06) & (y > 0.16)) | ((z < -0.16) & (y > -0.50))
    if region == "top":
        return scalp & (y > 0.56 - 0.25 * (z < 0))
    if region == "sides":
        return scalp & (y <= 0.62 - 0.25 * (z < 0))
    if region == "fringe":
        return scalp & (z > 0.05) & (y < hairline(a) + 0.26) & (a < 0.56)
    return scalp


def scatter(groom: Groom, p: Anatomy, rng: np.random.Generator) -> Floats:
    """Roots in head coordinates, evenly spread (a shaken Fibonacci lattice), about `count` of them."""
    share = {"all": 0.60, "top": 0.22, "sides": 0.38, "fringe": 0.10}[groom.region]
    n = int(groom.count / share)
    i = np.arange(n) + 0.5 + rng.uniform(-0.3, 0.3, n)
    height, turn = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i + rng.uniform(0, 6.28)
    ring = np.sqrt(np.maximum(1 - height * height, 0))
    directions = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1).astype(np.float32)
    roots = np.zeros_like(directions)
    land(directions, p, roots)
    kept: Floats = roots[in_region(groom.region, roots)]
    return kept


def knot(groom: Groom, rng: np.random.Generator) -> Floats:
    """Roots around a tie, where a tail begins."""
    c = groom.comb
    side = np.where(rng.random(groom.count) < 0.5, -1.0, 1.0) if c.twin > 0 else np.ones(groom.count)
    centre = np.stack([side * c.tie_x, np.full(groom.count, c.tie_y), np.full(groom.count, c.tie_z)], 1)
    around: Floats = unit(rng.normal(size=(groom.count, 3)).astype(np.float32)) * 0.07
    return floats(centre + around)


def to_world(points: Floats, p: Anatomy) -> Floats:
    pivot = np.array([0.0, PIVOT_Y, PIVOT_Z], np.float32)
    return floats((points - pivot) @ np.array(p.turn, np.float32).reshape(3, 3).T + pivot)


def paths_of(groom: Groom, p: Anatomy, rng: np.random.Generator) -> Floats:
    head = knot(groom, rng) if groom.region == "knot" else scatter(groom, p, rng)
    roots = to_world(head, p)
    k = len(roots)
    outward = outwards(roots[:, None], p)[:, 0]
    lengths = rng.uniform(*groom.length, k).astype(np.float32)
    lengths += groom.even * np.maximum(head[:, 1] - 0.1, 0.0) * 0.9
    clears = rng.uniform(*groom.clear, k).astype(np.float32)
    stray = rng.normal(0, groom.stray, (k, 3)).astype(np.float32)
    paths = np.zeros((k, POINTS, 3), np.float32)
    comb = groom.comb if groom.region != "knot" else replace_tie(groom.comb)
    grow(roots, outward, lengths, clears, stray, comb, p, paths)
    if groom.wave > 0 or groom.curl > 0:
        paths = curled(paths, groom, p, rng)
    return paths


def replace_tie(comb: Comb) -> Comb:
    """A tail has left its tie."""
    return comb._replace(tie=0.0)


def curled(paths: Floats, groom: Groom, p: Anatomy, rng: np.random.Generator) -> Floats:
    out = outwards(paths, p)
    across = unit(np.cross(unit(np.gradient(paths, axis=1)), out))
    moved = np.empty_like(paths)
    phase = rng.uniform(0, 1, len(paths)).astype(np.float32)
    coil(paths, across, out, groom.wave, groom.wave_length, groom.curl, groom.pitch, phase, moved)
    return moved


def sheets_of(groom: Groom, p: Anatomy, rng: np.random.Generator, material: int = HAIR) -> Sheets:
    paths = paths_of(groom, p, rng)
    width = rng.uniform(*groom.width, len(paths)).astype(np.float32)
    chance = rng.random(len(paths)).astype(np.float32)
    return Sheets(ribbons(paths, width, groom.bulge, outwards(paths, p), groom.point), chance, material)


def short_sides(length: float) -> Groom:
    comb = BASE._replace(side=0.0, up=-1.0, back=0.45, grip=1.0, gravity=0.1, lift=0.12, window=0.0)
    return Groom("sides", 330, (0.7 * length, length), (0.012, 0.035), (0.050, 0.075), comb, stray=0.06, bulge=0.25)


def style(name: str, side: float) -> tuple[Groom, ...]:
    """The groups of a hairstyle; `side` (+1, -1) is where the parting lies."""
    swept = BASE._replace(part=0.24 * side, side=1.0, back=0.45, up=0.1, grip=1.0, gravity=0.05, window=0.0, lift=0.35)
    down = BASE._replace(part=0.14 * side, side=1.0, gravity=0.50, up=-0.5)
    styles: dict[str, tuple[Groom, ...]] = {
        "crop": (
            short_sides(0.17),
            Groom("top", 300, (0.24, 0.34), (0.03, 0.07), (0.045, 0.065),
                  swept._replace(part=0.0, side=0.25, back=-0.5, up=0.2, lift=0.5, cling=0.7),
                  stray=0.16, bulge=0.3, point=1.3),
        ),
        "side part": (
            short_sides(0.22),
            Groom("top", 260, (0.50, 0.75), (0.05, 0.15), (0.060, 0.085), swept._replace(part=0.30 * side),
                  stray=0.05, bulge=0.3, point=1.6),
        ),
        "quiff": (
            short_sides(0.19),
            Groom("top", 330, (0.60, 0.90), (0.08, 0.27), (0.050, 0.075),
                  swept._replace(part=-1.0 * side, side=0.35, back=1.0, up=0.2, lift=0.65, cling=0.8),
                  stray=0.06, bulge=0.3, point=1.6),
        ),
        "bob": (Groom("all", 460, (0.92, 1.02), (0.04, 0.14), (0.085, 0.120), down, stray=0.05, even=0.9),),
        "long straight": (Groom("all", 500, (1.75, 2.00), (0.03, 0.15), (0.085, 0.125), down, stray=0.05, even=0.9),),
        "long wavy": (
            Groom("all", 500, (1.60, 1.90), (0.04, 0.18), (0.085, 0.125), down, wave=0.050, stray=0.05, even=0.9),
        ),
        "curly": (
            Groom("all", 640, (0.30, 0.46), (0.06, 0.20), (0.055, 0.075),
                  BASE._replace(side=0.2, back=-0.1, up=0.0, grip=0.6, gravity=0.10, cling=0.0, lift=1.3, window=0.58),
                  curl=0.060, pitch=0.26, stray=0.35, bulge=0.8),
        ),
        "long curly": (
            Groom("all", 420, (1.15, 1.50), (0.08, 0.24), (0.060, 0.085), down._replace(lift=0.4, window=0.56),
                  curl=0.065, pitch=0.36, stray=0.12, bulge=0.7, even=0.8),
        ),
        "ponytail": (
            tied(0.10 * side, 0.62, -0.80),
            Groom("knot", 80, (1.7, 2.1), (0.06, 0.20), (0.070, 0.095),
                  BASE._replace(tie_x=0.10 * side, tie_y=0.62, tie_z=-0.95, part=-5.0 * side, side=1.0, back=-0.2,
                                up=-0.1, grip=0.45, gravity=0.40, cling=0.0, window=0.62),
                  stray=0.10, wave=0.025, wave_length=0.8),
        ),
        "bun": (tied(0.0, 1.02, -0.30),),
        "twin tails": (
            tied(0.70, 0.10, -0.30, 1.0),
            Groom("knot", 110, (1.25, 1.55), (0.06, 0.22), (0.065, 0.090),
                  BASE._replace(tie_x=0.76, tie_y=0.10, tie_z=-0.26, twin=1.0, part=0.0, side=1.0, back=-0.3, up=0.1,
                                grip=0.16, gravity=0.60, cling=0.0, window=0.62),
                  stray=0.10, wave=0.03, wave_length=0.7),
        ),
    }  # fmt: skip
    return styles[name]


def tied(x: float, y: float, z: float, twin: float = 0.0) -> Groom:
    """Hair drawn back to a tie."""
    comb = BASE._replace(
        tie_x=x,
        tie_y=y,
        tie_z=z,
        tie=2.5,
        twin=twin,
        side=0.0,
        back=0.0,
        up=0.0,
        grip=1.0,
        gravity=0.0,
        window=0.0,
        lift=0.15,
    )
    return Groom("all", 380, (0.85, 1.15), (0.025, 0.065), (0.065, 0.095), comb, stray=0.03)


def bangs(full: bool) -> Groom:
    comb = BASE._replace(
        side=0.10 if full else 0.35, up=-1.0, back=-0.35, grip=1.0, gravity=0.12, window=0.0, lift=0.35
    )
    return Groom("fringe", 95, (0.44, 0.51), (0.05, 0.09), (0.065, 0.090), comb, stray=0.05)


def trimmed(grooms: tuple[Groom, ...], clear: float) -> tuple[Groom, ...]:
    """Hair that has to fit under a hat."""
    return tuple(replace(g, clear=(min(g.clear[0], clear), min(g.clear[1], 2 * clear))) for g in grooms)
