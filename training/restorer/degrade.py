"""
How a good face becomes a bad one: at random for training, and in three fixed levels for the bars.

Knows pixels only: uint8 RGB faces (N, N, 3) in and out, and numpy generators, so the same seed gives the same
picture. Does not know landmarks, files or torch.

The random chain is GPEN's (blur, downsample, noise, JPEG, some grey; Yang et al. 2021, section 4.1) with ranges for
256 px, plus what happens to prints: fading, a yellow cast, grain, scratches and dust.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (N, N, 3) RGB
Floats = NDArray[np.float32]
Random = np.random.Generator

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
OLD_SHARE = 0.15  # of the training pictures: scanned prints
GREY_SHARE = 0.15  # of the other ones
CLEAN_SHARE = 0.06  # not degraded at all: a good picture has to stay one
LIGHT_SHARE = 0.12  # hardly degraded, at full size
SHRINKERS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
GROWERS = (cv2.INTER_CUBIC, cv2.INTER_CUBIC, cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Level:
    blur_sigma_px: float
    shrink: float
    noise: float  # standard deviation, of 255
    jpeg_quality: int


LEVELS: dict[str, Level] = {
    "mild": Level(blur_sigma_px=1.2, shrink=2.5, noise=6, jpeg_quality=65),
    "middle": Level(blur_sigma_px=1.6, shrink=4, noise=8, jpeg_quality=55),
    "severe": Level(blur_sigma_px=2.8, shrink=7, noise=14, jpeg_quality=35),
}


def shares() -> dict[str, float]:
    return {"old": OLD_SHARE, "grey": GREY_SHARE, "clean": CLEAN_SHARE, "light": LIGHT_SHARE}


def to_picture(values: Floats) -> Picture:
    return np.asarray(np.rint(values).clip(0, 255), dtype=np.uint8)


def grey(face: Picture) -> Picture:
    luma: Floats = face.astype(np.float32) @ LUMA
    return np.repeat(to_picture(luma)[:, :, None], 3, axis=2)


def resize(face: Picture, side_px: int, interpolation: int) -> Picture:
    return np.asarray(cv2.resize(face, (side_px, side_px), interpolation=interpolation), dtype=np.uint8)


def add_noise(face: Picture, sigma: float, rng: Random, coloured: bool = True) -> Picture:
    shape = face.shape if coloured else (*face.shape[:2], 1)
    return to_picture(face + sigma * rng.standard_normal(shape, dtype=np.float32))


def jpeg(face: Picture, quality: int) -> Picture:
    """Through a JPEG file and back (4:2:0 chroma, as cameras and phones write it)."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float) -> Floats:
    """A rotated Gaussian, cut at three sigma, with sum one. (2r + 1, 2r + 1)"""
    radius = max(1, math.ceil(3 * max(sigma_x, sigma_y)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = np.exp(-0.5 * (np.square(along / sigma_x) + np.square(across / sigma_y)))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def random_blur(face: Picture, rng: Random) -> Picture:
    """Half isotropic, half anisotropic (a little motion); sigma up to 4.5 px, small ones more often."""
    sigma = 0.2 + 4.3 * float(rng.random()) ** 1.7
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), dtype=np.uint8)
    kernel = gaussian_kernel(sigma, sigma * float(rng.uniform(0.3, 1)), float(rng.uniform(0, math.pi)))
    return np.asarray(cv2.filter2D(face, -1, kernel, borderType=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def random_digital(face: Picture, rng: Random) -> Picture:
    """Blur, shrink, noise, JPEG, and back to size: the life of a picture sent from phone to phone."""
    side = face.shape[0]
    bad = random_blur(face, rng) if rng.random() < 0.85 else face
    shrink = math.exp(rng.uniform(0, math.log(8)))
    bad = resize(bad, max(24, round(side / shrink)), int(rng.choice(SHRINKERS)))
    if rng.random() < 0.85:
        bad = add_noise(bad, float(rng.uniform(0, 18)), rng, coloured=bool(rng.random() < 0.7))
    if rng.random() < 0.85:
        bad = jpeg(bad, int(rng.integers(30, 96)))
    return resize(bad, side, int(rng.choice(GROWERS)))


def random_light(face: Picture, rng: Random) -> Picture:
    """A good picture as it comes: a trace of blur or noise, a decent JPEG. Teaches to leave it alone."""
    bad = face
    if rng.random() < 0.5:
        bad = np.asarray(cv2.GaussianBlur(bad, (0, 0), float(rng.uniform(0.2, 0.8))), dtype=np.uint8)
    if rng.random() < 0.5:
        bad = add_noise(bad, float(rng.uniform(0, 5)), rng)
    return jpeg(bad, int(rng.integers(75, 100)))


def fade(face: Picture, rng: Random) -> Picture:
    """Blacks lift, whites dull, the paper yellows."""
    black, white = rng.uniform(0, 60), rng.uniform(190, 255)
    green = rng.uniform(0.88, 1)
    paper = np.array([1.0, green, green * rng.uniform(0.75, 1)], dtype=np.float32)
    return to_picture(np.asarray((black + face * ((white - black) / 255)) * paper, dtype=np.float32))


def scratch(face: Picture, rng: Random) -> Picture:
    """Bent thin lines and dust, mostly white, some black, not all of them opaque."""
    side = face.shape[0]
    damaged = face.astype(np.float32)
    for _ in range(int(rng.integers(1, 7))):
        steps = rng.normal(0, side / 40, (12, 2)).cumsum(0) + rng.normal(0, side / 14, 2) * np.arange(12)[:, None]
        points = np.rint((rng.uniform(0, side, 2) + steps) * 8).astype(np.int32)
        mask = np.zeros((side, side), dtype=np.uint8)
        cv2.polylines(mask, [points], False, 255, int(rng.integers(1, 3)), cv2.LINE_AA, 3)
        paint(damaged, mask, rng)
    for _ in range(int(rng.integers(0, 16))):
        mask = np.zeros((side, side), dtype=np.uint8)
        x, y = (int(v) for v in rng.integers(0, side * 8, 2))
        cv2.circle(mask, (x, y), int(rng.integers(3, 18)), 255, -1, cv2.LINE_AA, 3)
        paint(damaged, mask, rng)
    return to_picture(damaged)


def paint(damaged: Floats, mask: Picture, rng: Random) -> None:
    share = mask[:, :, None] * np.float32(rng.uniform(0.35, 1) / 255)
    tone = np.float32(rng.uniform(200, 255) if rng.random() < 0.75 else rng.uniform(0, 60))
    damaged += (tone - damaged) * share


def random_print(face: Picture, rng: Random) -> Picture:
    """An old print, scanned: soft lens, grain, fading, scratches, then a scan that is sometimes small."""
    side = face.shape[0]
    bad = np.asarray(cv2.GaussianBlur(face, (0, 0), float(rng.uniform(0.4, 2.2))), dtype=np.uint8)
    bad = add_noise(bad, float(rng.uniform(2, 16)), rng, coloured=False)
    bad = fade(bad, rng) if rng.random() < 0.7 else bad
    bad = scratch(bad, rng) if rng.random() < 0.8 else bad
    bad = resize(bad, round(side / math.exp(rng.uniform(0, math.log(3)))), cv2.INTER_AREA)
    return resize(jpeg(bad, int(rng.integers(50, 98))), side, cv2.INTER_CUBIC)


def random_pair(face: Picture, rng: Random) -> tuple[Picture, Picture]:
    """A (degraded, truth) pair. A grey picture's truth is grey: colour is not invented."""
    kind = float(rng.random())
    if kind < OLD_SHARE:
        truth = grey(face) if rng.random() < 0.75 else face
        return random_print(truth, rng), truth
    truth = grey(face) if rng.random() < GREY_SHARE else face
    if kind < OLD_SHARE + CLEAN_SHARE:
        return truth, truth
    if kind < OLD_SHARE + CLEAN_SHARE + LIGHT_SHARE:
        return random_light(truth, rng), truth
    bad = random_digital(truth, rng)
    return (grey(bad) if truth is not face else bad), truth


def fixed(face: Picture, level: Level, seed: int) -> Picture:
    """The degradation of the bars, the same for ever: blur, area shrink, colour noise, JPEG, bicubic back to size."""
    side, rng = face.shape[0], np.random.default_rng(seed)
    bad = np.asarray(cv2.GaussianBlur(face, (0, 0), level.blur_sigma_px), dtype=np.uint8)
    bad = resize(bad, round(side / level.shrink), cv2.INTER_AREA)
    bad = jpeg(add_noise(bad, level.noise, rng), level.jpeg_quality)
    return resize(bad, side, cv2.INTER_CUBIC)
