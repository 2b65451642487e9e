"""How alike two pictures are: PSNR and SSIM. uint8 RGB (H, W, 3) of one size; numpy and OpenCV only."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
SAME_DB = 99.0


def psnr_db(a: Picture, b: Picture) -> float:
    """Return the peak signal-to-noise ratio over all channels, in dB; SAME_DB for equal pictures."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return SAME_DB if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(a: Picture, b: Picture) -> float:
    """
    Return the structural similarity of two pictures' luma, -1..1. (Wang et al., "Image quality assessment: from error
    visibility to structural similarity", 2004)
    """
    x, y = luma(a), luma(b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(((2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * structure).mean())


def luma(picture: Picture) -> NDArray[np.float64]:
    return np.asarray(picture.astype(np.float64) @ LUMA)


def _window(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Blur with the 11 x 11 Gaussian window of SSIM; valid part only."""
    return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5])
