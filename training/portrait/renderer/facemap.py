"""
Where things lie on the face: lids, lashes, brows, lips, nostrils and lines as functions of head coordinates.

Everything is symmetric: `a` is the distance from the middle line. Values are soft masks in [0, 1] or heights in
units. Used twice: for the fine relief (relief.py) and for colour (skinpaint.py).
"""

from __future__ import annotations

from math import exp, sin, sqrt

from training.portrait.renderer.body import Anatomy
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import bump, noise, rise

EYE_X = 0.30


@compiled
def lid_lines(a: float, p: Anatomy) -> tuple[float, float, float]:
    """Position u across the eye (-1 inner, 1 outer corner), height of the upper and of the lower lid's edge."""
    u = (a - EYE_X) / (0.160 * p.eye_scale)
    v = min(abs(u), 1.0)
    middle = p.eye_cant * u
    upper = 0.092 * p.eye_scale * p.eye_open * (1.0 - v**2.4) ** 0.80 * (1.0 - 0.12 * u)
    lower = 0.058 * p.eye_scale * (1.0 - 0.28 * max(p.smile, 0.0)) * (1.0 - v**2.2) ** 0.85 * (1.0 + 0.20 * u)
    return u, middle + upper, middle - lower


@compiled
def aperture(a: float, y: float, p: Anatomy) -> float:
    """Negative inside the open eye, about the distance to the lids outside."""
    u, upper, lower = lid_lines(a, p)
    over = max(y - upper, lower - y)
    beside = (abs(u) - 1.0) * 0.16 * p.eye_scale
    if beside > 0.0:
        away = y - p.eye_cant * u
        return sqrt(beside * beside + away * away)
    return over * (0.55 + 0.45 * (1.0 - u * u))


@compiled
def lash_mask(a: float, y: float, p: Anatomy) -> float:
    """The dark line on the upper lid's edge, thicker outwards, ending in a small wing."""
    u, upper, lower = lid_lines(a, p)
    if u < -1.05 or u > 1.5:
        return 0.0
    thick = (0.010 + 0.013 * p.lash) * p.eye_scale * (0.55 + 0.45 * rise(-1.0, 0.5, u))
    wing = upper + (0.020 + 0.075 * p.lash) * max(u - 0.72, 0.0) * p.eye_scale
    thick *= 1.0 - rise(1.0, 1.16 + 0.20 * p.lash, u)
    line = rise(thick + 0.006, thick - 0.004, abs(y - wing - 0.3 * thick)) if thick > 0.001 else 0.0
    under = 0.38 * rise(0.010, 0.003, abs(y - lower)) * rise(-0.7, 0.2, u) * rise(1.06, 0.92, u)
    return min(1.0, max(line, under))


@compiled
def crease_mask(a: float, y: float, p: Anatomy) -> float:
    """The fold above the upper lid."""
    u, upper, _lower = lid_lines(a, p)
    if abs(u) > 1.25:
        return 0.0
    fold = upper + (0.038 + 0.012 * (1.0 - u * u)) * p.eye_scale
    return bump(y - fold, 0.010) * rise(-1.15, -0.4, u) * rise(1.25, 0.75, u)


@compiled
def brow_mask(a: float, y: float, p: Anatomy) -> float:
    """Brow hairs: a tapered arc of short strokes."""
    t = (a - 0.115) / 0.415
    if t < -0.05 or t > 1.03:
        return 0.0
    arc = 0.208 + p.brow_y + p.brow_tilt * (0.5 - t) + 0.062 * p.brow_arch * sin(2.25 * min(max(t, 0.0), 1.0) ** 1.25)
    arc -= 0.055 * max(t - 0.62, 0.0) ** 1.2 * 2.0
    thick = 0.034 * p.brow_weight * (0.80 + 0.40 * t) * rise(1.10, 0.40, t)
    if thick < 0.002:
        return 0.0
    off = (y - arc) / thick
    core = rise(1.30, 0.40, abs(off)) * rise(-0.05, 0.12, t)
    strokes = 0.84 + 0.16 * rise(0.25, 0.75, noise(t * 46.0 - off * (1.6 - 1.4 * t), 3.0 + off * 0.5))
    return min(1.0, core * strokes)


@compiled
def mouth_lines(x: float, p: Anatomy) -> tuple[float, float, float, float, float]:
    """Across u (-1..1), and the heights of: upper lip's top, its lower edge, lower lip's upper edge, its bottom."""
    half = 0.205 * p.mouth_width * (1.0 + 0.16 * max(p.smile, 0.0))
    u = x / half
    v = min(abs(u), 1.0)
    round_ = 1.0 - v * v
    line = p.mouth_y + p.smile * 0.050 * (v * v - 0.35) - 0.006 * bump(u, 0.22)
    cupid = 1.0 - 0.22 * bump(u, 0.15) + 0.08 * bump(v - 0.24, 0.14)
    top = line + 0.058 * p.lip * (1.0 - 0.18 * p.smile) * round_**0.85 * cupid + 0.3 * p.mouth_open * round_
    inner_top = line + 0.25 * p.mouth_open * round_
    inner_low = line - 0.85 * p.mouth_open * round_**0.75
    low = inner_low - 0.076 * p.lip * (1.0 - 0.15 * p.smile) * round_**0.62
    return u, top, inner_top, inner_low, low


@compiled
def lip_mask(x: float, y: float, p: Anatomy) -> float:
    u, top, _inner_top, _inner_low, low = mouth_lines(x, p)
    if abs(u) >= 1.0:
        return 0.0
    soft = 0.010
    return rise(top + soft * 0.5, top - soft, y) * rise(low - soft, low + soft, y) * rise(1.0, 0.93, abs(u))


@compiled
def mouth_seam(x: float, y: float, p: Anatomy) -> float:
    """The dark line between closed lips, a little beyond the corners."""
    u, _top, inner_top, inner_low, _low = mouth_lines(x, p)
    beyond = rise(1.07, 0.90, abs(u))
    return bump(y - 0.5 * (inner_top + inner_low), 0.0085) * beyond


@compiled
def inside_mouth(x: float, y: float, p: Anatomy) -> float:
    """1 where the open mouth shows teeth or darkness."""
    u, _top, inner_top, inner_low, _low = mouth_lines(x, p)
    if p.mouth_open < 0.012 or abs(u) >= 1.0:
        return 0.0
    return rise(inner_top + 0.004, inner_top - 0.004, y) * rise(inner_low - 0.004, inner_low + 0.004, y)


@compiled
def nostril_mask(a: float, y: float, p: Anatomy) -> float:
    base = -0.335 * p.nose_length - 0.066 * p.nose_size
    dx = (a - 0.050 * p.nose_width) / (0.030 * p.nose_size)
    dy = (y - base - 0.20 * (a - 0.05)) / 0.0135
    return exp(-(dx * dx + dy * dy))


@compiled
def wrinkles(a: float, y: float, p: Anatomy) -> float:
    """Lines of age and of a smile, as depth in [0, 1]."""
    fold_x = 0.165 + 0.28 * (-0.36 - y)
    fold = bump(a - fold_x, 0.020) * rise(-0.30, -0.40, y) * rise(-0.66, -0.50, y)
    depth = fold * (0.22 * max(p.smile, 0.0) + 0.75 * p.age)
    if p.age > 0.0:
        lines = bump(y - 0.46 - 0.015 * sin(a * 9.0), 0.012) * rise(0.45, 0.25, a)
        lines += bump(y - 0.55 - 0.015 * sin(a * 8.0 + 1.0), 0.012) * rise(0.40, 0.20, a)
        bag = bump(y + 0.115 - 0.9 * (a - EYE_X) ** 2, 0.014) * rise(0.15, 0.08, abs(a - EYE_X))
        crow = bump(y - 0.02 - 0.35 * (a - 0.5), 0.009) + bump(y + 0.02 + 0.30 * (a - 0.5), 0.009)
        crow *= rise(0.47, 0.50, a) * rise(0.60, 0.55, a)
        depth += p.age * (0.55 * lines + 0.60 * bag + 0.55 * crow)
    return depth
