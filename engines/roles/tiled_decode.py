"""
A large picture decoded piece by piece: pieces overlap, and in the overlap one goes over into the other in a straight
line. What a decoder makes of a piece depends a little on the rest of the picture, so this is for pictures whose whole
would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]  # float32
SIDE, OVERLAP = 64, 16  # latent cells
SIDES = SIDE, SIDE // 2  # of pieces, and of those where even they would not fit


def decode(run: Callable[[Floats], Floats], latents: Floats, stride: int, side: int = SIDE) -> Floats:
    """Decode (1, C, h, w) to (1, 3, h * stride, w * stride), as `run` does, but at most side x side cells at a time."""
    rows, columns = latents.shape[2:]
    total = np.zeros((1, 3, rows * stride, columns * stride), np.float32)
    weight = np.zeros((rows * stride, columns * stride), np.float32)
    for down, height in _pieces(rows, side):
        for right, width in _pieces(columns, side):
            piece = run(np.ascontiguousarray(latents[:, :, down : down + height, right : right + width]))
            slope = np.outer(_slope(down, height, rows, stride), _slope(right, width, columns, stride))
            place = np.s_[down * stride : (down + height) * stride, right * stride : (right + width) * stride]
            total[0][(slice(None), *place)] += piece[0] * slope
            weight[place] += slope
    picture: Floats = total / weight
    return picture


def _pieces(length: int, side: int) -> Iterator[tuple[int, int]]:
    """Yield begin and length of each piece; the last one is moved back, so that all are equally long."""
    if length <= side:
        return iter([(0, length)])
    return ((min(begin, length - side), side) for begin in range(0, length - OVERLAP, side - OVERLAP))


def _slope(begin: int, length: int, whole: int, stride: int) -> Floats:
    """Return a piece's weights along one side: up from an edge inside the picture, and down to one."""
    ramp = (np.arange(length * stride, dtype=np.float32) + np.float32(0.5)) / np.float32(OVERLAP * stride)
    up = ramp if begin > 0 else np.ones_like(ramp)
    down = ramp[::-1] if begin + length < whole else np.ones_like(ramp)
    slope: Floats = np.minimum(np.minimum(up, down), np.float32(1))
    return slope
