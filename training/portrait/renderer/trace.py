"""
Sphere tracing of the solid person into a G-buffer: a coarse pass over blocks, then every sample from where its block
ended.

Knows rays and distances; what the distance means is body.py's.
"""

from __future__ import annotations

from math import sqrt

from training.portrait.renderer.body import CLOTH, Anatomy, person, to_head, to_torso
from training.portrait.renderer.gbuffer import DISTANCE, Camera, GBuffer
from training.portrait.renderer.jit import compiled

BLOCK_PX = 8
NEAREST, FARTHEST = 8.2, 12.2  # along the ray
MOST_STEPS = 50


@compiled
def ray(row: float, column: float, cam: Camera) -> tuple[float, float, float]:
    """Direction through a sample; the camera stands at (cam.x, cam.y, DISTANCE)."""
    half = 0.5 * cam.size_px
    x = (column + 0.5 - half) * cam.units_per_px
    y = (half - row - 0.5) * cam.units_per_px
    z = cam.focus_z - DISTANCE
    length = 1.0 / sqrt(x * x + y * y + z * z)
    return x * length, y * length, z * length


@compiled
def march(dx: float, dy: float, dz: float, t: float, end: float, stop: float, cam: Camera, p: Anatomy) -> float:
    """Distance along the ray where the surface is nearer than `stop`; `end` or more when there is none before it."""
    for _ in range(MOST_STEPS):
        d, _material = person(cam.x + dx * t, cam.y + dy * t, DISTANCE + dz * t, p)
        if d < stop:
            return t
        t += d * 0.93
        if t > end:
            return t
    return t


@compiled
def store(buffer: GBuffer, row: int, column: int, x: float, y: float, z: float, p: Anatomy) -> None:
    """Normal (tetrahedron rule), material and local coordinates of a surface point."""
    e = 0.004
    a, _ = person(x + e, y - e, z - e, p)
    b, _ = person(x - e, y - e, z + e, p)
    c, _ = person(x - e, y + e, z - e, p)
    d, material = person(x + e, y + e, z + e, p)
    nx, ny, nz = a - b - c + d, -a - b + c + d, -a + b - c + d
    length = 1.0 / (sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
    buffer.z[row, column] = z
    buffer.material[row, column] = material
    buffer.normal[row, column, 0] = nx * length
    buffer.normal[row, column, 1] = ny * length
    buffer.normal[row, column, 2] = nz * length
    lx, ly, lz = to_head(x, y, z, p)
    if material == CLOTH:
        lx, lz = to_torso(x, z, p)
        ly = y
    buffer.coord[row, column, 0] = lx
    buffer.coord[row, column, 1] = ly
    buffer.coord[row, column, 2] = lz


@compiled
def trace(buffer: GBuffer, cam: Camera, p: Anatomy) -> None:
    """Fill in the person where nothing nearer has been drawn."""
    blocks = cam.size_px // BLOCK_PX
    wide = BLOCK_PX * cam.units_per_px * 0.75
    for i in range(blocks):
        for j in range(blocks):
            dx, dy, dz = ray(i * BLOCK_PX + BLOCK_PX * 0.5 - 0.5, j * BLOCK_PX + BLOCK_PX * 0.5 - 0.5, cam)
            start = march(dx, dy, dz, NEAREST, FARTHEST, wide * 1.3, cam, p)
            if start < FARTHEST:
                trace_block(buffer, i * BLOCK_PX, j * BLOCK_PX, start - wide, cam, p)


@compiled
def trace_block(buffer: GBuffer, top: int, left: int, start: float, cam: Camera, p: Anatomy) -> None:
    for row in range(top, top + BLOCK_PX):
        for column in range(left, left + BLOCK_PX):
            dx, dy, dz = ray(row, column, cam)
            end = min(FARTHEST, (buffer.z[row, column] - DISTANCE) / dz)
            t = march(dx, dy, dz, start, end, 0.0018, cam, p) if start < end else end
            if t < end:
                store(buffer, row, column, cam.x + dx * t, cam.y + dy * t, DISTANCE + dz * t, p)
