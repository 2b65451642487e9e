"""
How a lock of hair grows: it leaves the scalp, follows the comb, gives in to gravity, and slides over head and
shoulders.

Knows the head's and the torso's surface; hairstyles are grooms.py's.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import NamedTuple

import numpy as np

from training.portrait.renderer.body import PIVOT_Y, PIVOT_Z, Anatomy, skull, to_head, to_torso, torso
from training.portrait.renderer.gbuffer import Floats, floats
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import rise
from training.portrait.renderer.sheets import unit

POINTS = 24  # along a lock


class Comb(NamedTuple):
    """Where hair wants to go, in head coordinates."""

    part: float  # x of the parting; hair leaves it to both sides
    back: float  # > 0 combs backwards, < 0 forwards
    up: float  # > 0 lifts, < 0 lets fall
    side: float  # strength of the sideways part
    tie_x: float  # a point where all hair meets (ponytail, bun)
    tie_y: float
    tie_z: float
    tie: float  # 0 ignores the tie
    twin: float  # 1: the tie is doubled, left and right
    grip: float  # share of the length that obeys the comb; then gravity
    gravity: float  # 0..1, how fast hair turns down
    window: float  # half width of the space that stays free before the face; 0 lets hair fall over it
    cling: float  # 1 hugs the head, 0 stands off
    lift: float  # how steeply hair leaves the scalp


@compiled
def wish(x: float, y: float, z: float, comb: Comb) -> tuple[float, float, float]:
    """The comb's direction at a point in head coordinates."""
    side = comb.side * min(max((x - comb.part) * 6.0, -1.0), 1.0) * rise(-0.75, -0.15, z)
    dx, dy, dz = side, comb.up, -comb.back
    if comb.tie > 0.0:
        aim = comb.tie_x
        if comb.twin > 0.0 and x < 0.0:
            aim = -aim
        dx += comb.tie * (aim - x)
        dy += comb.tie * (comb.tie_y - y)
        dz += comb.tie * (comb.tie_z - z)
    nx, ny, nz = x / 0.51, (y - 0.25) / 0.54, (z + 0.10) / 0.67
    s = 1.0 / (nx * nx + ny * ny + nz * nz + 1e-9)
    outwards_share = (dx * nx + dy * ny + dz * nz) * s * comb.cling
    dx, dy, dz = dx - outwards_share * nx, dy - outwards_share * ny, dz - outwards_share * nz
    s = 1.0 / ((dx * dx + dy * dy + dz * dz) ** 0.5 + 0.05)
    return dx * s, dy * s, dz * s


@compiled
def shell(x: float, y: float, z: float, clear: float, p: Anatomy) -> float:
    """Distance to what hair cannot enter, in world coordinates."""
    hx, hy, hz = to_head(x, y, z, p)
    d = skull(hx, hy, hz, p) - clear
    if y < -0.8:
        tx, tz = to_torso(x, z, p)
        d = min(d, torso(tx, y, tz, p) - 0.10 - 0.3 * clear)
    return d


@compiled
def pushed(x: float, y: float, z: float, clear: float, cling: float, p: Anatomy) -> tuple[float, float, float]:
    """The nearest allowed point; with `cling`, hair that stands off comes nearer, too."""
    for _ in range(2):
        d = shell(x, y, z, clear, p)
        move = d if d < 0.0 else cling * d
        if -1e-4 < move < 0.002:
            break
        e = 0.01
        gx = shell(x + e, y, z, clear, p) - d
        gy = shell(x, y + e, z, clear, p) - d
        gz = shell(x, y, z + e, clear, p) - d
        s = -move / ((gx * gx + gy * gy + gz * gz) ** 0.5 + 1e-9)
        x, y, z = x + gx * s, y + gy * s, z + gz * s
    return x, y, z


@compiled
def windowed(x: float, y: float, z: float, half: float, p: Anatomy) -> tuple[float, float, float]:
    """Hair before the face is drawn aside like a curtain."""
    hx, hy, hz = to_head(x, y, z, p)
    if hz < 0.05 or hy > 0.62 or hy < -1.5:
        return x, y, z
    free = half * (1.0 - 0.6 * max(hy - 0.1, 0.0) / 0.5) * min((hz - 0.05) / 0.2, 1.0)
    if abs(hx) >= free:
        return x, y, z
    move = (free - abs(hx)) * (1.0 if hx > 0.0 else -1.0) * 0.9
    t = p.turn
    return x + t[0] * move, y + t[3] * move, z + t[6] * move


@compiled
def grow(
    roots: Floats, outward: Floats, lengths: Floats, clears: Floats, stray: Floats, comb: Comb, p: Anatomy, out: Floats
) -> None:
    """Paths (k, POINTS, 3) in world coordinates from roots and outward normals (k, 3), lengths and clearances (k,)."""
    t = p.turn
    for g in range(roots.shape[0]):
        x, y, z = roots[g, 0], roots[g, 1], roots[g, 2]
        step = lengths[g] / (POINTS - 1)
        hx, hy, hz = to_head(x, y, z, p)
        wx, wy, wz = wish(hx, hy, hz, comb)
        dx = t[0] * wx + t[1] * wy + t[2] * wz + comb.lift * outward[g, 0] + stray[g, 0]
        dy = t[3] * wx + t[4] * wy + t[5] * wz + comb.lift * outward[g, 1] + stray[g, 1]
        dz = t[6] * wx + t[7] * wy + t[8] * wz + comb.lift * outward[g, 2] + stray[g, 2]
        out[g, 0, 0], out[g, 0, 1], out[g, 0, 2] = x, y, z
        for i in range(1, POINTS):
            hx, hy, hz = to_head(x, y, z, p)
            wx, wy, wz = wish(hx, hy, hz, comb)
            held = 1.0 if i < comb.grip * POINTS else 0.0
            pull = 0.22 * held
            fall = comb.gravity * (0.25 + 0.75 * i / POINTS) * (1.0 - 0.75 * held)
            dx += pull * (t[0] * wx + t[1] * wy + t[2] * wz)
            dy += pull * (t[3] * wx + t[4] * wy + t[5] * wz) - fall
            dz += pull * (t[6] * wx + t[7] * wy + t[8] * wz)
            s = 1.0 / ((dx * dx + dy * dy + dz * dz) ** 0.5 + 1e-9)
            dx, dy, dz = dx * s, dy * s, dz * s
            clear = clears[g] * min(1.0, (i + 1.0) / 5.0)
            cling = comb.cling * 0.30 * rise(-0.62, -0.20, hy)
            nx, ny, nz = pushed(x + dx * step, y + dy * step, z + dz * step, clear, cling, p)
            if comb.window > 0.0:
                nx, ny, nz = windowed(nx, ny, nz, comb.window + 0.6 * clears[g], p)
                nx, ny, nz = pushed(nx, ny, nz, clear, 0.0, p)
            keep, turn = 0.45, 0.55 / step
            dx, dy, dz = keep * dx + turn * (nx - x), keep * dy + turn * (ny - y), keep * dz + turn * (nz - z)
            x, y, z = nx, ny, nz
            out[g, i, 0], out[g, i, 1], out[g, i, 2] = x, y, z


def outwards(paths: Floats, p: Anatomy) -> Floats:
    """Directions away from the middle of the head, for paths (k, n, 3); at shoulder height away from the spine."""
    turn = np.array(p.turn, np.float32).reshape(3, 3)
    centre = turn @ np.array([0.0, 0.05 - PIVOT_Y, -0.10 - PIVOT_Z]) + np.array([0.0, PIVOT_Y, PIVOT_Z])
    axis = np.broadcast_to(centre.astype(np.float32), paths.shape).copy()
    axis[..., 1] = np.minimum(axis[..., 1], paths[..., 1] + 0.10)
    return unit(paths - axis)


def ribbons(paths: Floats, width: Floats, bulge: float, out: Floats, point: float = 3.0) -> Floats:
    """Grids (k, n, 5, 3): tapered locks, backs to the head, rounded across; a small `point` gives long tips."""
    tangent = unit(np.gradient(paths, axis=1))
    across = unit(np.cross(tangent, out))
    normal = np.cross(across, tangent)
    t = np.linspace(0, 1, paths.shape[1], dtype=np.float32)
    taper = np.minimum(1.0, 0.55 + 2.5 * t) * (0.2 + 0.8 * (1 - t**point))
    taper[-1] *= 0.35
    wide = width[:, None] * taper[None]
    s = np.linspace(-1, 1, 5, dtype=np.float32)[None, None, :, None]
    arch = bulge * (1 - s * s) * wide[..., None, None] * normal[:, :, None]
    return floats(paths[:, :, None] + s * wide[..., None, None] * across[:, :, None] + arch)


@compiled
def coil(
    paths: Floats,
    across: Floats,
    out: Floats,
    wave: float,
    length: float,
    curl: float,
    pitch: float,
    phase: Floats,
    moved: Floats,
) -> None:
    """Waves (in step with their neighbours) and curls (each by itself), growing from the root on."""
    k, n, _ = paths.shape
    for g in range(k):
        run = 0.0
        moved[g, 0] = paths[g, 0]
        for i in range(1, n):
            step = 0.0
            for c in range(3):
                step += (paths[g, i, c] - paths[g, i - 1, c]) ** 2
            run += step**0.5
            grown = min(1.0, i / 6.0)
            swing = wave * grown * sin(2 * pi * paths[g, i, 1] / length + 0.8 * phase[g])
            angle = 2 * pi * (run / pitch + phase[g])
            for c in range(3):
                around = cos(angle) * across[g, i, c] + sin(angle) * out[g, i, c]
                sway = swing * (0.8 * across[g, i, c] + 0.3 * out[g, i, c])
                moved[g, i, c] = paths[g, i, c] + sway + curl * grown * around
