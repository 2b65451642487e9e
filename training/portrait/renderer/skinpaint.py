"""
Colour of skin, lips, brows, lashes and eyes, as linear RGB, with how glossy each point is. Light is not known here.
"""

from __future__ import annotations

from math import atan2, exp, sqrt
from typing import NamedTuple

from training.portrait.renderer.body import Anatomy
from training.portrait.renderer.facemap import (
    EYE_X,
    aperture,
    brow_mask,
    crease_mask,
    inside_mouth,
    lash_mask,
    lid_lines,
    lip_mask,
    mouth_lines,
    mouth_seam,
    nostril_mask,
    wrinkles,
)
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import bump, dots, hashed, noise, rise

Rgb = tuple[float, float, float]


class Complexion(NamedTuple):
    skin: Rgb
    lips: Rgb
    hair: Rgb
    brow: Rgb
    iris: Rgb
    blush: float
    freckles: float
    makeup: float
    stubble: float
    scalp: float  # 1 paints the scalp in the colour of the hair


@compiled
def mix(a: Rgb, b: Rgb, t: float) -> Rgb:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


@compiled
def times(a: Rgb, r: float, g: float, b: float) -> Rgb:
    return a[0] * r, a[1] * g, a[2] * b


@compiled
def flesh(x: float, y: float, c: Complexion) -> Rgb:
    """Skin with its red zones: cheeks, nose, under the eyes; freckles."""
    a = abs(x)
    q = c.blush * (bump(a - 0.40, 0.19) * bump(y + 0.27, 0.15) + 0.45 * bump(a, 0.10) * bump(y + 0.33, 0.08))
    q += 0.25 * bump(a - EYE_X, 0.16) * bump(y + 0.10, 0.05)
    rgb = times(c.skin, 1.0 - 0.03 * q, 1.0 - 0.26 * q, 1.0 - 0.20 * q)
    if c.freckles > 0.0 and abs(y + 0.22) < 0.22:
        f = dots(x * 24.0 + 3.0 * y, y * 24.0) * c.freckles * bump(y + 0.22, 0.13) * rise(0.62, 0.40, a)
        rgb = times(rgb, 1.0 - 0.30 * f, 1.0 - 0.48 * f, 1.0 - 0.55 * f)
    return rgb


@compiled
def scalp_mask(x: float, y: float, z: float) -> float:
    """1 on the hairy part of the head."""
    a = abs(x)
    line = 0.60 - 0.75 * a * a - 0.25 * rise(0.45, 0.62, a)
    behind = max(rise(-0.10, -0.20, z), rise(0.14, 0.02, z) * rise(0.06, 0.16, y)) * rise(-0.62, -0.45, y)
    return max(rise(line - 0.04, line + 0.06, y), behind) * rise(0.745, 0.725, a - 0.2 * max(y - 0.12, 0.0))


@compiled
def face_colour(x: float, y: float, z: float, p: Anatomy, c: Complexion) -> tuple[Rgb, float]:
    """Colour and gloss of a skin point in head coordinates."""
    a = abs(x)
    rgb, gloss = flesh(x, y, c), 0.30
    if c.scalp > 0.0:
        rgb = mix(rgb, times(c.hair, 0.55, 0.55, 0.55), c.scalp * scalp_mask(x, y, z))
    if z < 0.20:
        return rgb, gloss
    wrinkle = wrinkles(a, y, p)
    rgb = times(rgb, 1.0 - 0.16 * wrinkle, 1.0 - 0.26 * wrinkle, 1.0 - 0.26 * wrinkle)
    if c.stubble > 0.0 and y < -0.30:
        grain = 0.75 + 0.25 * noise(x * 70, y * 70)
        jaw = max(rise(-0.52, -0.70, y), rise(0.22, 0.36, a) * rise(-0.34 + 0.2 * (a - 0.4), -0.52, y))
        moustache = bump(y - p.mouth_y - 0.115, 0.045) * rise(0.24, 0.14, a)
        amount = 0.45 * c.stubble * grain * max(jaw * rise(0.20, 0.45, z), moustache)
        rgb = mix(rgb, times(c.brow, 1.1, 1.1, 1.1), amount)
    if y > -0.2:
        return eye_region(a, y, rgb, gloss, p, c)
    return mouth_region(x, y, rgb, gloss, p, c)


@compiled
def eye_region(a: float, y: float, rgb: Rgb, gloss: float, p: Anatomy, c: Complexion) -> tuple[Rgb, float]:
    """Lid, crease, make-up, brow and lashes over the skin."""
    near = aperture(a, y, p)
    if near < 0.22:
        _u, upper, _lower = lid_lines(a, p)
        lid = rise(0.10, 0.0, near) * (y > upper)
        rgb = times(rgb, 1.0 - 0.10 * lid, 1.0 - 0.18 * lid, 1.0 - 0.16 * lid)
        shadow = c.makeup * rise(0.14, 0.01, near) * (y > upper - 0.02)
        rgb = mix(rgb, times(rgb, 0.55, 0.38, 0.42), 0.6 * shadow)
        crease = crease_mask(a, y, p)
        rgb = times(rgb, 1.0 - 0.36 * crease, 1.0 - 0.46 * crease, 1.0 - 0.46 * crease)
    brow = brow_mask(a, y, p)
    rgb = mix(rgb, c.brow, 0.90 * brow)
    lash = lash_mask(a, y, p) if near < 0.15 else 0.0
    rgb = mix(rgb, (0.012, 0.008, 0.007), 0.95 * lash)
    return rgb, gloss * (1.0 - max(lash, brow))


@compiled
def mouth_region(x: float, y: float, rgb: Rgb, gloss: float, p: Anatomy, c: Complexion) -> tuple[Rgb, float]:
    a = abs(x)
    rgb = mix(rgb, times(c.skin, 0.22, 0.10, 0.08), 0.80 * nostril_mask(a, y, p))
    lip = lip_mask(x, y, p)
    if lip > 0.0:
        u, _top, inner_top, _inner_low, _low = mouth_lines(x, p)
        shade = 0.84 if y > inner_top else 1.0
        shade *= 0.93 + 0.07 * bump(u, 0.6)
        rgb = mix(rgb, times(c.lips, shade, shade, shade), lip * 0.92)
        gloss += (0.35 + 0.5 * c.makeup) * lip
    open_ = inside_mouth(x, y, p)
    if open_ > 0.0:
        return mix(rgb, teeth(x, y, p), open_), 0.25
    seam = mouth_seam(x, y, p)
    rgb = mix(rgb, times(c.lips, 0.22, 0.12, 0.12), 0.85 * seam)
    return rgb, gloss


@compiled
def teeth(x: float, y: float, p: Anatomy) -> Rgb:
    """An even white row, falling into shadow towards the corners and below."""
    u, _top, inner_top, inner_low, _low = mouth_lines(x, p)
    span = inner_top - inner_low + 1e-4
    row = rise(inner_top - 0.84 * span, inner_top - 0.70 * span, y)
    light = 1.0 - 0.50 * abs(u) ** 3.0
    gap = abs(x) * 17.0
    light *= 1.0 - 0.10 * rise(0.42, 0.50, abs(gap - float(round(gap))))
    light *= 1.0 - 0.30 * rise(inner_top - 0.012, inner_top, y)
    white = 0.78 * light * row
    return white + 0.10 * (1 - row), white * 0.96 + 0.025 * (1 - row), white * 0.91 + 0.025 * (1 - row)


@compiled
def eye_colour(x: float, y: float, p: Anatomy, c: Complexion) -> Rgb:
    """Sclera, iris with its ring and fibres, pupil, and the shadow of the upper lid."""
    side = 1.0 if x > 0.0 else -1.0
    a = abs(x)
    scale = p.eye_scale
    dx = x - side * (EYE_X - 0.006) - 0.10 * p.gaze_x
    dy = y - 0.012 * scale - 0.08 * p.gaze_y
    r = sqrt(dx * dx + dy * dy) / (0.084 * scale)
    _u, upper, lower = lid_lines(a, p)
    red = bump(a - EYE_X + 0.15 * scale, 0.05)
    rgb = (0.80 - 0.06 * red, 0.77 - 0.22 * red, 0.75 - 0.20 * red)
    if r < 1.12:
        fibre = 0.86 + 0.28 * hashed(float(round(atan2(dy, dx) * 13.0)))
        glow = 0.62 + 0.85 * bump(dy / (0.084 * scale) + 0.52, 0.55) * rise(0.30, 0.70, r)
        ring = rise(1.02, 0.80, r)
        level = fibre * glow * (0.22 + 0.78 * ring)
        iris = times(c.iris, level, level, level)
        iris = mix(iris, (0.006, 0.005, 0.005), rise(0.47, 0.40, r))
        rgb = mix(rgb, iris, rise(1.06, 0.96, r))
    dark = 0.62 * rise(0.050 * scale, 0.0, upper - y) + 0.20 * rise(0.03, 0.0, y - lower)
    dark += 0.30 * exp(-(((0.16 * scale - abs(a - EYE_X)) / 0.03) ** 2))
    return times(rgb, 1.0 - dark, 1.0 - dark, 1.0 - 0.95 * dark)
