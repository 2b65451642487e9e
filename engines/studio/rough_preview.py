"""
A look at latents that costs next to nothing: of each cell of theirs one colour, a weighted sum of its channels. The
weights are those with which a picture that the tiny decoder made of other latents is hit best; no model brings them
along.

A linear map of latents has long served as the cheapest preview of Stable Diffusion (k. "latent RGB factors"); there the
factors are constants of one model.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engines.bundle.signatures import Array
from engines.images import Pixels


@dataclass(frozen=True)
class RoughDecoder:
    """`weights`: (C + 1, 3), from a cell's channels and 1 to its colour in levels."""

    weights: Array

    @classmethod
    def fitted(cls, latents: Array, pixels: Pixels) -> RoughDecoder:
        """Fit to latents (1, C, h, w) and the picture (H, W, 3) that they are of: least squares over the cells."""
        height, width = latents.shape[2:]
        cells = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3)
        weights, *_ = np.linalg.lstsq(_columns(latents), cells.astype(np.float32), rcond=None)
        return cls(weights)

    def decode(self, latents: Array, width: int, height: int) -> Pixels:
        """Return a blurred picture (height, width, 3) of latents (1, C, h, w)."""
        cells = (_columns(latents) @ self.weights).clip(0, 255).astype(np.uint8)
        small = cells.reshape(*latents.shape[2:], 3)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _columns(latents: Array) -> Array:
    """(h * w, C + 1)"""
    cells = latents[0].reshape(latents.shape[1], -1).T.astype(np.float32)
    return np.concatenate((cells, np.ones((len(cells), 1), np.float32)), axis=1)
