"""
How good is this photo, and what would do it good? Measures blur and noise; knows no network and no page.

Blur is measured by the finest detail against the next coarser one, and only of an aligned face: other things are smooth
by nature. On 24 sharp portraits the ratio was 1.03..1.41; shrunk to a 128 px face 0.69..0.78; blurred 0.52..0.58;
severely 0.45..0.51. Noise follows Immerkaer, "Fast noise variance estimation", 1996.
"""

from __future__ import annotations

import cv2
import numpy as np

from engines.errors import Fact
from engines.faces import Picture

# Detail ratios. CLEAR lies between sharp portraits and those that were shrunk, BLURRED at the severely blurred (above).
CLEAR, BLURRED = 0.95, 0.5
NOISY = 1.9  # ratio: above any sharp portrait; white noise has 4.5, and such fine detail is no detail
# Variance in levels, taken off the finest detail: what rounding to levels left of smooth pictures was 0.09..0.16, which
# would pass for detail where there is none at all.
ROUNDING = 0.2
# Standard deviations of noise, of 255 levels. Set by hand: no record is kept of photos that they were tried on.
CLEAN_SIGMA, NOISY_SIGMA = 2.0, 14.0  # where noise begins to count, and where it is the worst
GRAINY = 5.0  # from here on, the fine detail of a face may be noise
FADED = 0.1  # of fading_of, set by hand: less may be the light of that day
LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)  # the difference of two Laplacians
LAPLACE_GAIN = 6  # of white noise's deviation: the root of the sum of its squares
MEDIAN_TO_SIGMA = 0.6745  # the median of |x| for a standard normal x
INNER = slice(5 / 32, 27 / 32)  # of an aligned crop: the face, without the background in its corners


def detail(face: Picture) -> float:
    """Return the finest detail against the next coarser, of an aligned crop (N, N, 3): a ratio of deviations."""
    side = face.shape[0]
    inner = slice(round(INNER.start * side), round(INNER.stop * side))
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)[inner, inner]
    soft, softer = cv2.GaussianBlur(grey, (0, 0), 1), cv2.GaussianBlur(grey, (0, 0), 2)
    finest = max(float(np.square(grey - soft).mean()) - ROUNDING, 0.0)
    return float(np.sqrt(finest / max(float(np.square(soft - softer).mean()), 1e-6)))


def noise_sigma(picture: Picture) -> float:
    """
    Return the standard deviation of the noise in luma, in levels of 255. Immerkaer takes the mean; the median looks at
    the calmer half of the picture, as edges are no noise.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rough = np.abs(cv2.filter2D(grey, -1, LAPLACE)) / LAPLACE_GAIN
    return float(np.median(rough)) / MEDIAN_TO_SIGMA


def is_sharp(face: Picture) -> bool:
    """Whether nothing is to be gained for a face: it has its fine detail, and that is not noise."""
    return CLEAR <= detail(face) <= NOISY and noise_sigma(face) < GRAINY


def blur(face: Picture) -> float:
    """Return how blurred a face is: 0 as sharp as its pixels allow, 1 severe."""
    return float(np.clip((CLEAR - detail(face)) / (CLEAR - BLURRED), 0, 1))


def noise(picture: Picture) -> float:
    """Return how noisy a picture is: 0 not at all, 1 severe."""
    return float(np.clip((noise_sigma(picture) - CLEAN_SIGMA) / (NOISY_SIGMA - CLEAN_SIGMA), 0, 1))


def suggestion(blurs: list[float], noisy: float, faded: float) -> dict[str, Fact]:
    """
    Return fields of Enhance, from gentle to firm as the photo needs it. `blurs` are of its faces, `faded` is
    retouch.fading_of's; all 0..1.

    The numbers were set by hand. A strength stays below 80, from where the page warns; noise would be sharpened too, so
    a noisy photo is not sharpened.
    """
    worst = max(blurs, default=0.0)
    strength = round(40 + 35 * worst) if blurs else 0
    return {
        "strength": strength,
        "mode": "strong" if worst > 0.8 else "natural",
        "denoise": round(50 * noisy),
        "sharpen": 0 if noisy > 0.2 else round(25 * worst),
        "fading": round(100 * faded) if faded > FADED else 0,
    }
