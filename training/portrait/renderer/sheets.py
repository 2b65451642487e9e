"""
Curved sheets (grids of points) drawn into the G-buffer: locks of hair, tubes, brims, collars and rims are all sheets.

Knows triangles and the camera; not what a sheet stands for.
"""

from __future__ import annotations

from math import ceil, floor
from typing import NamedTuple

import numpy as np

from training.portrait.renderer.gbuffer import DISTANCE, Camera, Floats, GBuffer
from training.portrait.renderer.jit import compiled


class Sheets(NamedTuple):
    """k grids of n by m points. Rows run along the strand or curve, columns across it."""

    points: Floats  # (k, n, m, 3) world
    chance: Floats  # (k,) a random number that the painters use
    material: int


def unit(vectors: Floats) -> Floats:
    length: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(length, 1e-9)).astype(np.float32)


def tube(curve: Floats, radius: Floats | float, sides: int = 10, flat: float = 1.0) -> Floats:
    """Grid (n, sides + 1, 3) around a curve (n, 3); `flat` squeezes it along its second normal."""
    tangent = unit(np.gradient(curve, axis=0))
    helper = np.where(np.abs(tangent[:, 1:2]) < 0.9, np.array([[0.0, 1.0, 0.0]]), np.array([[1.0, 0.0, 0.0]]))
    first = unit(np.cross(tangent, helper))
    second = np.cross(first, tangent)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.cos(angle)[None, :, None] * first[:, None] + flat * np.sin(angle)[None, :, None] * second[:, None]
    thick = np.broadcast_to(np.asarray(radius, np.float32), curve.shape[:1])
    return (curve[:, None] + ring * thick[:, None, None]).astype(np.float32)


def single(points: Floats, material: int, chance: float = 0.5) -> Sheets:
    return Sheets(np.ascontiguousarray(points[None], np.float32), np.full(1, chance, np.float32), material)


@compiled
def slopes(points: Floats, normals: Floats, tangents: Floats) -> None:
    """Normals and row directions of every grid point from its neighbours."""
    k, n, m, _ = points.shape
    for g in range(k):
        for i in range(n):
            for j in range(m):
                a, b = points[g, max(i - 1, 0), j], points[g, min(i + 1, n - 1), j]
                c, d = points[g, i, max(j - 1, 0)], points[g, i, min(j + 1, m - 1)]
                tx, ty, tz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
                ux, uy, uz = d[0] - c[0], d[1] - c[1], d[2] - c[2]
                nx, ny, nz = ty * uz - tz * uy, tz * ux - tx * uz, tx * uy - ty * ux
                s = 1.0 / ((nx * nx + ny * ny + nz * nz) ** 0.5 + 1e-12)
                normals[g, i, j, 0], normals[g, i, j, 1], normals[g, i, j, 2] = nx * s, ny * s, nz * s
                s = 1.0 / ((tx * tx + ty * ty + tz * tz) ** 0.5 + 1e-12)
                tangents[g, i, j, 0], tangents[g, i, j, 1], tangents[g, i, j, 2] = tx * s, ty * s, tz * s


@compiled
def project(points: Floats, cam: Camera, screen: Floats) -> None:
    """World to (column, row, z)."""
    k, n, m, _ = points.shape
    half = 0.5 * cam.size_px - 0.5
    for g in range(k):
        for i in range(n):
            for j in range(m):
                z = points[g, i, j, 2]
                scale = (DISTANCE - cam.focus_z) / ((DISTANCE - z) * cam.units_per_px)
                screen[g, i, j, 0] = half + (points[g, i, j, 0] - cam.x) * scale
                screen[g, i, j, 1] = half - (points[g, i, j, 1] - cam.y) * scale
                screen[g, i, j, 2] = z


@compiled
def triangle(
    buffer: GBuffer,
    s: Floats,
    nrm: Floats,
    tan: Floats,
    ids: tuple[int, int, int, int, int, int],
    chance: float,
    material: int,
) -> None:
    """Fill one triangle, given by its corners' (row, column) in the grid, where it is nearer than what is there."""
    i0, j0, i1, j1, i2, j2 = ids
    ax, ay, bx, by, cx, cy = s[i0, j0, 0], s[i0, j0, 1], s[i1, j1, 0], s[i1, j1, 1], s[i2, j2, 0], s[i2, j2, 1]
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if abs(area) < 1e-7:
        return
    size, n, m = buffer.z.shape[0], s.shape[0], s.shape[1]
    top, bottom = max(ceil(min(ay, by, cy)), 0), min(floor(max(ay, by, cy)), size - 1)
    left, right = max(ceil(min(ax, bx, cx)), 0), min(floor(max(ax, bx, cx)), size - 1)
    for row in range(top, bottom + 1):
        for column in range(left, right + 1):
            u = ((bx - column) * (cy - row) - (cx - column) * (by - row)) / area
            v = ((cx - column) * (ay - row) - (ax - column) * (cy - row)) / area
            w = 1.0 - u - v
            if u < -1e-4 or v < -1e-4 or w < -1e-4:
                continue
            z = u * s[i0, j0, 2] + v * s[i1, j1, 2] + w * s[i2, j2, 2]
            if z <= buffer.z[row, column]:
                continue
            nx = u * nrm[i0, j0, 0] + v * nrm[i1, j1, 0] + w * nrm[i2, j2, 0]
            ny = u * nrm[i0, j0, 1] + v * nrm[i1, j1, 1] + w * nrm[i2, j2, 1]
            nz = u * nrm[i0, j0, 2] + v * nrm[i1, j1, 2] + w * nrm[i2, j2, 2]
            face = 1.0 / ((nx * nx + ny * ny + nz * nz) ** 0.5 + 1e-12)
            if nz < 0.0:
                face = -face
            buffer.z[row, column] = z
            buffer.material[row, column] = material
            buffer.normal[row, column, 0] = nx * face
            buffer.normal[row, column, 1] = ny * face
            buffer.normal[row, column, 2] = nz * face
            buffer.coord[row, column, 0] = (u * i0 + v * i1 + w * i2) / (n - 1)
            buffer.coord[row, column, 1] = 2.0 * (u * j0 + v * j1 + w * j2) / (m - 1) - 1.0
            buffer.coord[row, column, 2] = chance
            for c in range(3):
                buffer.tangent[row, column, c] = u * tan[i0, j0, c] + v * tan[i1, j1, c] + w * tan[i2, j2, c]


@compiled
def fill(buffer: GBuffer, screen: Floats, normals: Floats, tangents: Floats, chance: Floats, material: int) -> None:
    k, n, m, _ = screen.shape
    for g in range(k):
        for i in range(n - 1):
            for j in range(m - 1):
                a = (i, j, i + 1, j, i, j + 1)
                b = (i + 1, j, i + 1, j + 1, i, j + 1)
                triangle(buffer, screen[g], normals[g], tangents[g], a, chance[g], material)
                triangle(buffer, screen[g], normals[g], tangents[g], b, chance[g], material)


def draw(buffer: GBuffer, sheets: Sheets, cam: Camera) -> None:
    points = np.ascontiguousarray(sheets.points, np.float32)
    normals, tangents, screen = np.empty_like(points), np.empty_like(points), np.empty_like(points)
    slopes(points, normals, tangents)
    project(points, cam, screen)
    fill(buffer, screen, normals, tangents, sheets.chance, sheets.material)
