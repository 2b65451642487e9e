"""Backdrops by name, out of focus, in display colours [0, 1]. Drawn small and enlarged: nothing in them is sharp."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped,unused-ignore]

from training.portrait.renderer.finish import enlarged
from training.portrait.renderer.gbuffer import Floats, floats

SMALL = 128  # px
PLAIN = {
    "grey": ("a9abb0", "5c5f66"), "white": ("f8f7f5", "d9d8d6"), "dark": ("3a3b42", "101116"),
    "blue": ("7fb0e0", "2f5a9a"), "pink": ("f8ccd6", "d991a8"), "yellow": ("f6dc8c", "dba83f"),
}  # fmt: skip


def rgb(code: str, factor: float = 1.0) -> Floats:
    return np.array([int(code[i : i + 2], 16) / 255 * factor for i in (0, 2, 4)], np.float32)


def rows_and_columns() -> tuple[Floats, Floats]:
    """Picture coordinates in [0, 1], y downwards, ready to broadcast over colours."""
    y, x = np.mgrid[0:SMALL, 0:SMALL].astype(np.float32) / (SMALL - 1)
    return y[..., None], x[..., None]


def blend(a: Floats, b: Floats, t: npt.NDArray[np.floating]) -> Floats:
    return floats(a + (b - a) * np.clip(t, 0, 1))


def blurred(picture: Floats, width_px: float) -> Floats:
    soft: Floats = gaussian_filter(picture, (width_px, width_px, 0))
    return soft


def spots(
    picture: Floats,
    rng: np.random.Generator,
    colours: tuple[str, ...],
    count: int,
    size: tuple[float, float],
    strength: float,
) -> Floats:
    """Discs of light, as a lens draws points that are out of focus."""
    y, x = rows_and_columns()
    for _ in range(count):
        cx, cy, radius = rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(*size)
        disc = np.clip((radius - np.hypot(x - cx, y - cy)) * SMALL / 2.5, 0, 1)
        picture = blend(picture, rgb(str(rng.choice(colours))), disc * rng.uniform(0.3, 1.0) * strength)
    return picture


def plain(name: str, rng: np.random.Generator) -> Floats:
    y, x = rows_and_columns()
    inner, outer = rgb(PLAIN[name][0]), rgb(PLAIN[name][1])
    centre = rng.uniform(0.35, 0.65)
    return blend(inner, outer, np.hypot(x - centre, (y - 0.40) * 0.9) / 0.80)


def forest(rng: np.random.Generator) -> Floats:
    y, x = rows_and_columns()
    picture = blend(rgb("a8c878"), rgb("2c4a2a"), 0.25 + 0.85 * y)
    for _ in range(6):
        cx, wide = rng.uniform(0, 1), rng.uniform(0.02, 0.05)
        picture = blend(picture, rgb("33402a"), 0.55 * np.exp(-(((x - cx) / wide) ** 2)))
    picture = blurred(picture, 3)
    return spots(picture, rng, ("d8f0a0", "a8d070", "f4f6c0", "7fae5a"), 22, (0.02, 0.07), 0.50)


def sunset(rng: np.random.Generator) -> Floats:
    y, x = rows_and_columns()
    picture = blend(rgb("5a5f9a"), rgb("f29a5c"), y * 1.6)
    picture = blend(picture, rgb("f7cf7a"), (y - 0.40) * 2.4)
    sun = rng.uniform(0.12, 0.88)
    glow = np.exp(-((x - sun) ** 2 + (y - 0.56) ** 2) / 0.030)
    picture = blend(picture, rgb("fff0c0"), glow * 0.95)
    hills = 0.72 + 0.03 * np.sin(9 * x + rng.uniform(0, 6)) + 0.02 * np.sin(23 * x)
    picture = blend(picture, rgb("6a4058"), (y - hills) * 14)
    return blurred(picture, 1.5)


def night_city(rng: np.random.Generator) -> Floats:
    y, x = rows_and_columns()
    picture = blend(rgb("12162c"), rgb("2a2446"), y)
    for _ in range(9):
        left, wide, top = rng.uniform(-0.1, 1), rng.uniform(0.06, 0.16), rng.uniform(0.15, 0.6)
        inside = ((x > left) & (x < left + wide) & (y > top)).astype(np.float32)
        picture = blend(picture, rgb("1c2440", rng.uniform(0.7, 1.3)), inside * 0.8)
    picture = blurred(picture, 2.5)
    return spots(picture, rng, ("ff9a4a", "4ac8ff", "ff5ab0", "ffe08a", "8a7aff"), 34, (0.015, 0.055), 0.75)


def beach(rng: np.random.Generator) -> Floats:
    y, _x = rows_and_columns()
    horizon = 0.50 + rng.uniform(-0.03, 0.03)
    picture = blend(rgb("7fbfee"), rgb("d8eefa"), y / horizon)
    picture = blend(picture, rgb("2f8fb8"), (y - horizon) * 60)
    picture = blend(picture, rgb("6ac4cc"), (y - horizon) * 5)
    picture = blend(picture, rgb("ecd9ae"), (y - horizon - 0.20) * 14)
    picture = blurred(picture, 2.2)
    return spots(picture, rng, ("ffffff",), 5, (0.05, 0.10), 0.25)


def interior(rng: np.random.Generator) -> Floats:
    y, x = rows_and_columns()
    picture = blend(rgb("c79a6a"), rgb("6a4630"), y)
    shelf = rng.uniform(0.05, 0.2)
    for k in range(3):
        picture = blend(picture, rgb("4c3222"), 0.8 * np.exp(-(((y - shelf - 0.24 * k) / 0.012) ** 2)))
    for _ in range(16):
        cx, row = rng.uniform(0, 1), shelf + 0.24 * rng.integers(0, 3)
        book = (np.abs(x - cx) < 0.018) & (y < row) & (y > row - rng.uniform(0.10, 0.17))
        picture = blend(picture, rgb(str(rng.choice(("8a3a34", "3a5a6a", "b08a4a", "5a6a4a", "d8c8a8")))), book * 0.9)
    lamp = rng.choice((0.10, 0.90))
    picture = blend(picture, rgb("ffe2a8"), 0.9 * np.exp(-((x - lamp) ** 2 + (y - 0.30) ** 2) / 0.035))
    return blurred(picture, 2.6)


def blossom(rng: np.random.Generator) -> Floats:
    y, _x = rows_and_columns()
    picture = blend(rgb("cfe4f4"), rgb("f4dfe6"), y)
    picture = spots(picture, rng, ("f4b6c8", "f9d3dc", "ee9db6"), 70, (0.02, 0.06), 0.55)
    picture = blurred(picture, 1.2)
    return spots(picture, rng, ("fff0f4", "f7c3d2"), 16, (0.02, 0.05), 0.6)


SCENES = {
    "forest": forest, "sunset": sunset, "night city": night_city, "beach": beach, "interior": interior,
    "blossom": blossom,
}  # fmt: skip
TINTS = {
    "golden": (1.10, 0.96, 0.78), "warm": (1.06, 0.97, 0.86), "cool": (0.88, 0.98, 1.08), "neon": (0.58, 0.52, 0.66),
    "side": (0.66, 0.66, 0.67), "back": (0.72, 0.72, 0.74),
}  # fmt: skip


def backdrop(name: str, light: str, size_px: int, rng: np.random.Generator) -> Floats:
    """(S, S, 3) in [0, 1], tinted a little by the light."""
    small = SCENES[name](rng) if name in SCENES else plain(name, rng)
    small = np.clip(small * np.array(TINTS.get(light, (1.0, 1.0, 1.0)), np.float32), 0, 1)
    return enlarged(small, size_px)
