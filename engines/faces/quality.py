"""
How good is this photo, and what would do it good? Measures blur and noise; knows no network and no page.

Blur is told by the finest detail against the next coarser one, and only of an aligned face: other things are smooth by
nature. On 24 sharp portraits the ratio was 1.03..1.41; shrunk to a 128 px face 0.69..0.78; blurred 0.52..0.58; severely
0.45..0.51. Noise follows Immerkaer, "Fast noise variance estimation", 1996.
"""

from __future__ import annotations

import cv2
import numpy as np

from engines.errors import Fact
from engines.faces import Picture

CLEAR, BLURRED = 0.95, 0.5  # detail ratios
NOISY = 1.9  # white noise has about 3: such fine detail is no detail
CLEAN_SIGMA, NOISY_SIGMA = 2.0, 14.0  # standard deviation of noise, of 255 levels
ROUNDING = 0.2  # variance of what rounding to levels leaves, doubled: the finest "detail" of the worst blur
GRAINY = 5.0  # from here on, fine detail may be noise
FADED = 0.1  # what is less is the light of the day
LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
INNER = slice(5 / 32, 27 / 32)  # of an aligned crop


def detail(face: Picture) -> float:
    """Finest detail against the next coarser, of an aligned crop (N, N, 3)."""
    side = face.shape[0]
    inner = slice(round(INNER.start * side), round(INNER.stop * side))
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)[inner, inner]
    soft, softer = cv2.GaussianBlur(grey, (0, 0), 1), cv2.GaussianBlur(grey, (0, 0), 2)
    finest = max(float(np.square(grey - soft).mean()) - ROUNDING, 0.0)
    return float(np.sqrt(finest / max(float(np.square(soft - softer).mean()), 1e-6)))


def noise_sigma(picture: Picture) -> float:
    """Standard deviation of the noise in levels of 255: of the calmer half of the picture, as edges are no noise."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rough = np.abs(cv2.filter2D(grey, -1, LAPLACE)) / 6
    return float(np.median(rough)) / 0.6745


def is_sharp(face: Picture) -> bool:
    """Nothing is to be gained: it has its fine detail, and that is not noise."""
    return CLEAR <= detail(face) <= NOISY and noise_sigma(face) < GRAINY


def blur(face: Picture) -> float:
    """0 as sharp as its pixels allow, 1 severe."""
    return float(np.clip((CLEAR - detail(face)) / (CLEAR - BLURRED), 0, 1))


def noise(picture: Picture) -> float:
    """0 none, 1 severe."""
    return float(np.clip((noise_sigma(picture) - CLEAN_SIGMA) / (NOISY_SIGMA - CLEAN_SIGMA), 0, 1))


def suggestion(blurs: list[float], noisy: float, faded: float) -> dict[str, Fact]:
    """Fields of Enhance, from gentle to firm as the photo needs it. `faded` is retouch.fading_of's, 0..1."""
    worst = max(blurs, default=0.0)
    strength = round(40 + 35 * worst) if blurs else 0
    return {
        "strength": strength,
        "mode": "strong" if worst > 0.8 else "natural",
        "denoise": round(50 * noisy),
        "sharpen": 0 if noisy > 0.2 else round(25 * worst),
        "fading": round(100 * faded) if faded > FADED else 0,
    }
