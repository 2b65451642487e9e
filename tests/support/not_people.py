"""Pictures of things that are not people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = ("landscape", "text", "noise", "stripes", "one colour")


def nobody(kind: str, seed: int, height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 235, dtype=np.uint8)
    if kind == "landscape":
        ridge = np.cumsum(rng.normal(0, 3, width)) + height / 2
        y = np.mgrid[0:height, 0:width][0]
        picture[:] = np.where((y > ridge)[..., None], (60, 95, 50), (120, 165, 220))
        grain = cv2.GaussianBlur(rng.normal(0, 90, picture.shape).astype(np.float32), (0, 0), 2)
        picture = (picture + grain).clip(0, 255).astype(np.uint8)
    elif kind == "text":
        for row in range(24, height, 26):
            words = ("".join(chr(rng.integers(97, 123)) for _ in range(rng.integers(2, 9))) for _ in range(9))
            line = " ".join(words)
            cv2.putText(picture, line, (12, row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (20, 20, 20), 1, cv2.LINE_AA)
    elif kind == "noise":
        picture = rng.integers(0, 256, picture.shape, dtype=np.uint8)
    elif kind == "stripes":
        picture[:] = (np.sin(np.mgrid[0:height, 0:width].sum(0) / 7) * 120 + 128)[..., None]
    return picture
