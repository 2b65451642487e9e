"""
Light on a G-buffer: one key light with a soft shadow, a fill, a rim and a sky, on skin, eyes, cloth, hair and metal.

Colours are linear; `develop` brings them to the screen. Where light stands is lighting.py's, what colour things have
is the painters'. The forms of the terms have sources, which are named where they stand; their weights and widths have
none: nothing was measured on skin or hair, they are as they are for how the pictures look.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from training.portrait.renderer.body import BEARD, EYE, HAIR, SKIN
from training.portrait.renderer.jit import compiled
from training.portrait.renderer.shapes import rise

Rgb = tuple[float, float, float]


class Lighting(NamedTuple):
    key: Rgb  # unit direction towards the light
    key_colour: Rgb
    spread: float
    fill: Rgb
    fill_colour: Rgb
    rim: Rgb
    rim_colour: Rgb
    sky: Rgb
    ground: Rgb
    cel: float  # 1: two flat tones instead of a gradient


@compiled
def dot(a: Rgb, b: Rgb) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def halfway(a: Rgb, view: Rgb) -> Rgb:
    """Return the unit vector between two directions; 1e-9 keeps opposite ones from dividing by 0."""
    x, y, z = a[0] + view[0], a[1] + view[1], a[2] + view[2]
    s = 1.0 / sqrt(x * x + y * y + z * z + 1e-9)
    return x * s, y * s, z * s


@compiled
def gleam(n: Rgb, light: Rgb, view: Rgb, power: float) -> float:
    """Return the highlight of a rough surface in [0, 1], narrower with higher powers. (Blinn 1977)"""
    facing: float = max(dot(n, halfway(light, view)), 0.0)
    return float(facing**power)


@compiled
def strand_gleam(tangent: Rgb, light: Rgb, view: Rgb, shift: float, n: Rgb, power: float) -> float:
    """
    Return the highlight of hair, bright where the half vector is perpendicular to the strand (Kajiya & Kay 1989);
    `shift` tilts the strand towards the normal `n`, which moves the highlight along it (Scheuermann 2004).
    """
    t = (tangent[0] + shift * n[0], tangent[1] + shift * n[1], tangent[2] + shift * n[2])
    s = 1.0 / sqrt(dot(t, t) + 1e-9)
    along = dot(t, halfway(light, view)) * s
    return float(max(1.0 - along * along, 0.0) ** (0.5 * power))  # sin ** power


@compiled
def diffuse(n: Rgb, light: Rgb, wrap: float) -> float:
    """Return Lambert's cosine; `wrap` > 0 lets light reach round the edge, as a large or soft one does. (Green 2004)"""
    return max((dot(n, light) + wrap) / (1.0 + wrap), 0.0)


@compiled
def soft_light(n: Rgb, albedo: Rgb, ao: float, light: Lighting) -> Rgb:
    """Return what fill and sky add, whether the key light reaches or not."""
    f = diffuse(n, light.fill, 0.4) * ao  # wrapped: a fill is a large, soft light
    up = 0.5 + 0.5 * n[1]  # hemisphere: all sky for what looks up, all ground for what looks down
    r = albedo[0] * (f * light.fill_colour[0] + ao * (light.sky[0] * up + light.ground[0] * (1 - up)))
    g = albedo[1] * (f * light.fill_colour[1] + ao * (light.sky[1] * up + light.ground[1] * (1 - up)))
    b = albedo[2] * (f * light.fill_colour[2] + ao * (light.sky[2] * up + light.ground[2] * (1 - up)))
    return r, g, b


@compiled
def lit(
    material: int, n: Rgb, tangent: Rgb, view: Rgb, albedo: Rgb, gloss: float, ao: float, sun: float, light: Lighting
) -> Rgb:
    """Return the linear colour of one sample; `ao` is 1 in the open, `sun` is 1 where the key light reaches."""
    lambert = dot(n, light.key)
    base = soft_light(n, albedo, ao, light)
    kr = kg = kb = diffuse(n, light.key, 0.0) * sun
    if material == SKIN:
        # Light that enters skin leaves it further on, red furthest: it reaches round edges (wrap 0.32) and, of red
        # alone, a fifth reaches into shadows; half of the red comes that way, a quarter of green
        # and blue. (Green 2004, in "GPU Gems")
        wide = max((lambert + 0.32) / 1.32, 0.0) * (0.20 + 0.80 * sun)
        kr, kg, kb = 0.50 * kr + 0.50 * wide, 0.72 * kr + 0.28 * wide * sun, 0.76 * kr + 0.24 * wide * sun
    elif material in (HAIR, BEARD):
        kr = kg = kb = diffuse(n, light.key, 0.35) * sun  # strands are round: light reaches round them
    r = base[0] + albedo[0] * kr * light.key_colour[0]
    g = base[1] + albedo[1] * kg * light.key_colour[1]
    b = base[2] + albedo[2] * kb * light.key_colour[2]
    fresnel = (1.0 - max(dot(n, view), 0.0)) ** 3.0  # Schlick's approximation has 5: this edge is wider
    rim = rise(0.0, 0.7, dot(n, light.rim)) * (0.12 + 0.88 * fresnel) * (0.3 + 0.7 * ao)  # mostly a line at the edge
    spec, tint = 0.0, 0.0
    if material == SKIN:
        # Two lobes, as skin has: a broad one of the rough surface and a narrow one of the oil on it
        sheen = 0.22 * gleam(n, light.key, view, 14.0) + 0.30 * gleam(n, light.key, view, 50.0)
        spec = gloss * sheen * sun * max(lambert, 0.0)
    elif material in (HAIR, BEARD):
        # Hair has two highlights: a narrow one in the light's colour, and a broad one beside it in the hair's own, from
        # light that went through the strand (Marschner et al. 2003)
        spec = 0.10 * gloss * strand_gleam(tangent, light.key, view, -0.10, n, 60.0) * (0.15 + 0.85 * sun) * ao
        tint = 0.85 * gloss * strand_gleam(tangent, light.key, view, 0.12, n, 22.0) * (0.25 + 0.75 * sun) * ao
        rim *= 0.8
    elif material == EYE:
        # Catchlights are pictures of lamps, not lobes: a disc from 11 to 8 degrees about the half vector, soft-edged
        spec = 0.75 * rise(0.982, 0.991, dot(n, halfway(light.key, view)))
        spec += 0.15 * rise(0.975, 0.99, dot(n, halfway(light.fill, view)))
    else:
        # From cloth (power 10) to polished metal (80); the fill gives half as much, through a lobe of its own
        spec = gloss * (gleam(n, light.key, view, 10.0 + 70.0 * gloss) * sun + 0.5 * gleam(n, light.fill, view, 30.0))
    wr = 0.35 + 0.65 * albedo[0]  # a third of the rim is reflected, the rest coloured; red stands for brightness
    r += rim * light.rim_colour[0] * wr + (spec + tint * albedo[0]) * light.key_colour[0]
    g += rim * light.rim_colour[1] * wr + (spec + tint * albedo[1]) * light.key_colour[1]
    b += rim * light.rim_colour[2] * wr + (spec + tint * albedo[2]) * light.key_colour[2]
    return r, g, b


@compiled
def cel_lit(
    material: int, n: Rgb, tangent: Rgb, view: Rgb, albedo: Rgb, gloss: float, ao: float, sun: float, light: Lighting
) -> Rgb:
    """
    Return the colour of one sample in two tones with a short passage between them, as drawn animation has it. The
    numbers copy no studio: they are as they are for how the pictures look.
    """
    lambert = dot(n, light.key)
    soft = material in (HAIR, BEARD)
    edge = rise(-0.35, 0.65, lambert) if soft else rise(0.02, 0.10, lambert)  # a line 5 degrees wide; hair has none
    edge *= rise(0.35, 0.55, sun)  # soft shadows get an edge too
    tone = 0.62 + 0.38 * edge  # the darker tone
    dim = 0.90 + 0.10 * rise(0.35, 0.60, ao)  # and one hardly darker in creases
    warm = 1.0 + 0.05 * (1.0 - edge) * (material == SKIN)  # shadows of skin are redder, all shadows bluer (1.06)
    r = albedo[0] * tone * dim * warm * (0.62 + 0.55 * light.key_colour[0])
    g = albedo[1] * tone * dim * (0.62 + 0.55 * light.key_colour[1])
    b = albedo[2] * tone * dim * (0.66 + 0.55 * light.key_colour[2]) * (1.0 + 0.06 * (1.0 - edge))
    add = 0.0
    if material == EYE:
        add = 0.9 * rise(0.980, 0.985, dot(n, halfway(light.key, view)))
    elif material == HAIR:
        # The ring of light on drawn hair: the highlight, cut at a threshold
        band = rise(0.80, 0.88, strand_gleam(tangent, light.key, view, 0.05, n, 24.0))
        r, g, b = r + 0.16 * band * (0.25 + r), g + 0.16 * band * (0.25 + g), b + 0.16 * band * (0.25 + b)
    elif gloss > 0.4:
        add = 0.5 * rise(0.90, 0.94, dot(n, halfway(light.key, view))) * (gloss - 0.3)
    fresnel = 1.0 - max(dot(n, view), 0.0)
    # A line along the lit edge, cut at a threshold; faint on hair, which has no clean edge
    rim = rise(0.55, 0.66, fresnel * rise(0.0, 0.3, dot(n, light.rim))) * (0.06 if soft else 0.30)
    return r + add + rim * light.rim_colour[0], g + add + rim * light.rim_colour[1], b + add + rim * light.rim_colour[2]
