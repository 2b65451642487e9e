"""
Distance functions of simple solids, smooth unions, and value noise: scalar code for numba.

Knows nothing of people. Formulas after Inigo Quilez, "distance functions" and "smooth minimum" (iquilezles.org).
"""

from __future__ import annotations

from math import exp, floor, sin, sqrt

from training.portrait.renderer.jit import compiled


@compiled
def ellipsoid(x: float, y: float, z: float, a: float, b: float, c: float) -> float:
    """Approximate distance to the ellipsoid with half axes a, b, c around the origin."""
    k0 = sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    k1 = sqrt((x / (a * a)) ** 2 + (y / (b * b)) ** 2 + (z / (c * c)) ** 2) + 1e-9
    return k0 * (k0 - 1.0) / k1


@compiled
def ball(x: float, y: float, z: float, radius: float) -> float:
    return sqrt(x * x + y * y + z * z) - radius


@compiled
def capsule(
    x: float, y: float, z: float, ax: float, ay: float, az: float, bx: float, by: float, bz: float, ra: float, rb: float
) -> float:
    """A rod from a to b whose radius goes from ra to rb."""
    px, py, pz, dx, dy, dz = x - ax, y - ay, z - az, bx - ax, by - ay, bz - az
    h = min(max((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0.0), 1.0)
    return sqrt((px - dx * h) ** 2 + (py - dy * h) ** 2 + (pz - dz * h) ** 2) - (ra + (rb - ra) * h)


@compiled
def join(a: float, b: float, k: float) -> float:
    """Smooth union: the seam is rounded over a width of about k."""
    h = max(k - abs(a - b), 0.0) / k
    return min(a, b) - h * h * k * 0.25


@compiled
def cut(a: float, b: float, k: float) -> float:
    """Solid a without solid b, the edge rounded over a width of about k."""
    h = max(k - abs(a + b), 0.0) / k
    return max(a, -b) + h * h * k * 0.25


@compiled
def rise(low: float, high: float, x: float) -> float:
    """Smooth step: 0 at low, 1 at high; low may be the larger one."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled
def bump(x: float, width: float) -> float:
    """A Gaussian hill of height 1."""
    return exp(-((x / width) ** 2))


@compiled
def hashed(n: float) -> float:
    """A fixed pseudo-random number in [0, 1) for a cell number."""
    n = sin(n * 12.9898 + 4.1) * 43758.5453
    return n - floor(n)


@compiled
def dots(x: float, y: float) -> float:
    """Round dots of random size, at most one in a unit cell: 1 in their middle."""
    ix, iy = floor(x), floor(y)
    cell = ix + 131.0 * iy
    if hashed(cell + 11.1) < 0.45:
        return 0.0
    cx, cy = 0.2 + 0.6 * hashed(cell), 0.2 + 0.6 * hashed(cell + 7.7)
    size = 0.10 + 0.14 * hashed(cell + 3.3)
    dx, dy = (x - ix - cx) / size, (y - iy - cy) / size
    return exp(-(dx * dx + dy * dy))


@compiled
def noise(x: float, y: float) -> float:
    """Value noise in [0, 1], smooth, one wave a unit."""
    ix, iy = floor(x), floor(y)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    a, b = hashed(ix + 57.0 * iy), hashed(ix + 1 + 57.0 * iy)
    c, d = hashed(ix + 57.0 * (iy + 1)), hashed(ix + 1 + 57.0 * (iy + 1))
    return a + (b - a) * fx + (c - a) * fy + (a - b - c + d) * fx * fy
