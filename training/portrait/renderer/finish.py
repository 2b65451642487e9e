"""From light to picture: exposure, and the painterly styles. Display colours in [0, 1] from `develop` on."""

from __future__ import annotations

from math import exp
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter  # type: ignore[import-untyped,unused-ignore]

from training.portrait.renderer.body import BEARD, EYE, FRAME, HAIR, LENS
from training.portrait.renderer.gbuffer import FAR, Floats, GBuffer, floats
from training.portrait.renderer.jit import compiled

N = TypeVar("N", bound=np.generic)
LUMA = np.array([0.30, 0.59, 0.11], np.float32)


@compiled
def develop(linear: Floats, material: npt.NDArray[np.uint8], out: Floats, alpha: Floats) -> None:
    """Film-like exposure (highlights bend instead of clipping); four samples to a pixel; the person's share of it."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            count = 0.0
            for i in range(2 * row, 2 * row + 2):
                for j in range(2 * column, 2 * column + 2):
                    if material[i, j] == 0:
                        continue
                    count += 0.25
                    for c in range(3):
                        light = 1.0 - exp(-1.42 * max(linear[i, j, c], 0.0))
                        out[row, column, c] += 0.25 * light ** (1.0 / 2.2)
            alpha[row, column, 0] = count


def downscale(picture: Floats) -> Floats:
    """(2 h, 2 w) to (h, w)."""
    small: Floats = picture[::2, ::2] + picture[1::2, ::2] + picture[::2, 1::2] + picture[1::2, 1::2]
    return small * np.float32(0.25)


def enlarged(picture: Floats, size_px: int) -> Floats:
    """Bilinear, for soft things only."""
    channels = [Image.fromarray(np.ascontiguousarray(picture[..., c], np.float32)) for c in range(3)]
    large = [np.asarray(c.resize((size_px, size_px), Image.Resampling.BILINEAR)) for c in channels]
    return np.stack(large, -1)


def grey(picture: Floats) -> Floats:
    return picture @ LUMA


def saturate(picture: Floats, amount: float) -> Floats:
    level = grey(picture)[..., None]
    vivid: Floats = np.clip(level + (picture - level) * amount, 0, 1)
    return vivid


def moved(picture: npt.NDArray[N], dy: int, dx: int) -> npt.NDArray[N]:
    """The picture shifted; what comes in at the border repeats it."""
    pad = max(abs(dy), abs(dx))
    wide = np.pad(picture, ((pad, pad), (pad, pad), *((0, 0),) * (picture.ndim - 2)), mode="edge")
    h, w = picture.shape[:2]
    shifted: npt.NDArray[N] = wide[pad - dy : pad - dy + h, pad - dx : pad - dx + w]
    return shifted


def kuwahara(picture: Floats, radius_px: int) -> Floats:
    """The mean of the calmest of four neighbouring squares: flat patches, sharp edges (Kuwahara 1976)."""
    size = radius_px + 1
    mean = uniform_filter(picture, (size, size, 1))
    level = grey(picture)
    variance = uniform_filter(level * level, size) - uniform_filter(level, size) ** 2
    half = size // 2
    best, out = np.full(level.shape, 9.0, np.float32), picture
    for dy in (-half, half):
        for dx in (-half, half):
            v = moved(variance, dy, dx)
            nearer = v < best
            best = np.where(nearer, v, best)
            out = np.where(nearer[..., None], moved(mean, dy, dx), out)
    return out


@compiled
def smear(source: Floats, flow_x: Floats, flow_y: Floats, steps: int, out: Floats) -> None:
    """Line integral convolution (Cabral and Leedom 1993): noise drawn along a flow."""
    size = source.shape[0]
    for row in range(size):
        for column in range(size):
            total = 0.0
            for way in (-1.0, 1.0):
                y, x = float(row), float(column)
                for _ in range(steps):
                    i, j = min(max(int(y), 0), size - 1), min(max(int(x), 0), size - 1)
                    total += source[i, j]
                    x += way * flow_x[i, j]
                    y += way * flow_y[i, j]
            out[row, column] = total / (2 * steps)


def strokes(picture: Floats, rng: np.random.Generator, length_px: int) -> Floats:
    """Brush marks along the edges of the picture: mean 0, deviation 1."""
    level = gaussian_filter(grey(picture), 1.5)
    gy, gx = np.gradient(level)
    xx, yy, xy = (gaussian_filter(v, 5.0) for v in (gx * gx, gy * gy, gx * gy))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    noise = gaussian_filter(rng.normal(size=level.shape), 1.0).astype(np.float32)
    marks = np.zeros(level.shape, np.float32)
    smear(noise, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32), length_px, marks)
    normal: Floats = (marks - marks.mean()) / (marks.std() + 1e-6)
    return normal


def vignette(size_px: int, strength: float) -> Floats:
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32) / size_px - 0.5
    dark: Floats = 1 - strength * np.clip(x * x + y * y - 0.10, 0, 1)
    return dark[..., None]


def bloom(picture: Floats, strength: float) -> Floats:
    small = downscale(downscale(np.maximum(picture - 0.72, 0)))
    wide = small.shape[0] / 40
    glow = enlarged(gaussian_filter(small, (wide, wide, 0)), picture.shape[0])
    bright: Floats = np.clip(picture + strength * glow, 0, 1)
    return bright


def realistic(picture: Floats, rng: np.random.Generator) -> Floats:
    return bloom(picture, 0.35) * vignette(picture.shape[0], 0.40)


def film(picture: Floats, rng: np.random.Generator) -> Floats:
    """Black-and-white film: more contrast, a fine grain, a warm black."""
    level = grey(bloom(picture, 0.35))
    level = level + 0.16 * (level - 0.46) * (1 - np.abs(2 * level - 1))
    grain = gaussian_filter(rng.normal(size=level.shape), 0.9)
    level = np.clip(level + 0.006 * grain / grain.std(), 0, 1)
    return floats(level[..., None] * vignette(level.shape[0], 0.75) * np.array([1.0, 0.995, 0.975]))


def vintage(picture: Floats, rng: np.random.Generator) -> Floats:
    """A faded colour print: lifted blacks, warm lights, green-blue shadows, soft."""
    soft = gaussian_filter(bloom(picture, 0.5), (0.6, 0.6, 0))
    level = grey(soft)[..., None]
    tone = (1 - level) * np.array([-0.010, 0.030, 0.040]) + level * np.array([0.070, 0.015, -0.110])
    faded = saturate(soft, 0.86) + tone
    return floats(np.clip((0.055 + 0.93 * faded) * vignette(picture.shape[0], 0.80), 0, 1))


def oil(picture: Floats, rng: np.random.Generator) -> Floats:
    """Patches of one colour, brush marks along the shapes, a little relief."""
    scale = picture.shape[0] / 512
    flat = kuwahara(kuwahara(picture, max(2, round(4 * scale))), max(2, round(3 * scale)))
    flat = saturate(0.78 * flat + 0.22 * picture, 1.20)
    marks = strokes(flat, rng, max(4, round(9 * scale)))
    relief = np.clip(moved(marks, 1, 0) - moved(marks, -1, 0), -2, 2)
    return floats(np.clip(flat * (1 + 0.011 * marks[..., None]) + 0.008 * relief[..., None], 0, 1))


def watercolour(picture: Floats, rng: np.random.Generator) -> Floats:
    """Light washes with darker rims on white paper, and an uneven white border."""
    size = picture.shape[0]
    scale = size / 512
    flat = gaussian_filter(kuwahara(picture, max(2, round(4 * scale))), (0.6 * scale, 0.6 * scale, 0))
    wash = 1 - (1 - saturate(0.62 * flat + 0.38 * picture, 1.15)) * 0.82
    level = gaussian_filter(grey(flat), 1.0 * scale)
    rim = np.hypot(*np.gradient(level)) * size / 512
    cloud = gaussian_filter(rng.normal(size=(size, size)), 22 * scale)
    cloud /= cloud.std() + 1e-9
    wash = wash * (1 - np.clip(rim * 1.5, 0, 0.28)[..., None]) * (1 + 0.035 * cloud[..., None])
    y, x = np.mgrid[0:size, 0:size] / size
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) + 0.014 * cloud
    inside = np.clip((edge - 0.012) / 0.035, 0, 1)[..., None]
    return floats(np.clip(wash * inside + (1 - inside) * np.array([0.975, 0.965, 0.94]), 0, 1))


def ink(buffer: GBuffer) -> Floats:
    """Outlines (S/2, S/2) where material or depth jumps: drawn animation's lines."""
    z = np.where(buffer.z == FAR, -2.0, buffer.z)
    kind = buffer.material.astype(np.int16)
    quiet = (kind == EYE) | (kind == LENS) | (kind == FRAME)
    lines = np.zeros(z.shape, np.float32)
    for dy, dx in ((0, 2), (2, 0), (0, -2), (-2, 0)):
        other, behind = moved(kind, dy, dx), moved(z, dy, dx)
        strands = (kind == other) & ((kind == HAIR) | (kind == BEARD))
        jump = np.clip((z - behind - np.where(strands, 0.24, 0.09)) * 5, 0, 1)
        change = (other != kind) & ~quiet & (other != EYE) & (other != LENS) & (other != FRAME) & (z > behind)
        lines = np.maximum(lines, np.maximum(jump, 0.85 * change))
    return downscale(gaussian_filter(lines, 0.8))


def anime(picture: Floats, lines: Floats) -> Floats:
    vivid = saturate(picture, 1.15)
    amount = np.clip(lines * 1.15, 0, 1)[..., None] * 0.85
    return floats(vivid * (1 - amount) + amount * vivid * np.array([0.22, 0.16, 0.20]))


def sun_glow(picture: Floats, side: float) -> Floats:
    """The low sun flares into the picture from the key light's side."""
    size = picture.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    glow = np.exp(-((x - 0.5 - 0.46 * side) ** 2 + (y - 0.16) ** 2) / 0.13)[..., None]
    lit: Floats = picture + (1 - picture) * glow * np.array([0.36, 0.23, 0.09], np.float32)
    return lit


PAINTERLY = {"realistic": realistic, "film": film, "vintage": vintage, "oil": oil, "watercolour": watercolour}
