"""
From a layer's weight to integers and a scale for each output channel, so that the layer's *output* changes least.

Rounding each weight to the nearest integer forgets that inputs go together: what rounding one of them up adds, the
next ones can take away. GPTQ (Frantar et al. 2022, arXiv:2210.17323, section 3) rounds one input after the other and
lets those that are still to come make up for the error, by the second moments of the layer's input. It is computed here
without the inverse of the moments, by which the paper explains it (LDLQ, Chee et al. 2023, arXiv:2307.13304, theorem 6:
the same integers, for a seventh of the work). On the built-in restorer's weights in seven bits: 57 dB, to the nearest
45.

Integers end at 64 and not at 127: where a processor has no instructions for products of 8 bits (AVX2 without VNNI),
engines add pairs of them, u8 * s8, in 16 bits that saturate (vpmaddubsw). See saturation.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 64  # 255 * (64 + 64) = 32,640 <= 32,767: no pair of products saturates
DAMPING = 0.01  # of the mean variance, added to each input's: GPTQ's own
BLOCK = 128  # inputs for which the errors before them are summed at once: the same sums, in products of matrices
CLIPPING = (0.85, 0.9, 0.95)  # of the scale that reaches the largest weight
SHORT = 0.75  # of the levels, which the largest weight may fall short of: another scale may fit all the others
Floats = NDArray[Any]


@dataclass(frozen=True)
class RoundedWeight:
    """
    `integers` of the weight's shape, and `scale`, float32, one for each channel along `axis`: their product is near the
    weight.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int

    @property
    def floats(self) -> NDArray[np.float32]:
        """Return the weight that the integers stand for."""
        shape = [-1 if i == self.axis else 1 for i in range(self.integers.ndim)]
        return self.integers.astype(np.float32) * self.scale.reshape(shape)


def rounded(weight: Floats, axis: int, moments: Floats | None, levels: int = LEVELS) -> RoundedWeight:
    """
    Round a weight whose output channels lie along `axis`. `moments` (K, K): the sum of x x^T over its inputs, in the
    order of the other axes; None: each weight is rounded to the nearest.
    """
    turned = np.moveaxis(weight, axis, 0)
    matrix = turned.reshape(len(turned), -1).astype(np.float64)
    variance = np.ones(matrix.shape[1]) if moments is None else np.diag(moments).astype(np.float64)
    scale = _scale(matrix, variance, levels)
    if moments is None:
        integers = np.rint(matrix / scale[:, None]).clip(-levels, levels)
    else:
        integers = _gptq(matrix, _feedback(moments), scale, levels)
    shaped = np.moveaxis(integers.reshape(turned.shape), 0, axis)
    return RoundedWeight(np.ascontiguousarray(shaped, dtype=np.int8), scale.astype(np.float32), axis)


def _scale(matrix: Floats, variance: Floats, levels: int) -> Floats:
    """Return the scale of each row, of a few, with which rounding to the nearest changes its output least."""
    widest = np.maximum(np.abs(matrix).max(1), 1e-12) / levels
    best, least = widest, np.full(len(matrix), np.inf)
    shorter = (levels / level for level in range(levels, int(SHORT * levels), -1))  # a blur's 1, 3, 9 want 63, not 64
    for share in (*CLIPPING, *shorter):
        scale = widest * share
        steps = np.rint(matrix / scale[:, None]).clip(-levels, levels)
        error = np.square(steps * scale[:, None] - matrix) @ variance
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return np.asarray(best, dtype=np.float32).astype(np.float64)  # as it will be stored


def _feedback(moments: Floats) -> Floats:
    """
    Return what an input's error is worth to a later one: the strictly upper triangle of U, where U D U^T = the moments
    with each input's variance a little larger, D diagonal. It is Cholesky's from the last input to the first.
    """
    turned = moments[::-1, ::-1].astype(np.float64)
    turned[np.diag_indices_from(turned)] += DAMPING * np.diag(turned).mean() + 1e-9
    factor = np.linalg.cholesky(turned)[::-1, ::-1]
    factor /= np.diag(factor)
    return np.asarray(factor, dtype=np.float64)


def _gptq(matrix: Floats, feedback: Floats, scale: Floats, levels: int) -> Floats:
    """Return the integers of a matrix (rows, K)."""
    integers, errors = np.empty_like(matrix), np.empty_like(matrix)
    for begin in range(0, matrix.shape[1], BLOCK):
        end = min(begin + BLOCK, matrix.shape[1])
        block = matrix[:, begin:end] + errors[:, :begin] @ feedback[:begin, begin:end]
        for i in range(begin, end):
            wanted = block[:, i - begin] + errors[:, begin:i] @ feedback[begin:i, i]
            integers[:, i] = np.rint(wanted / scale).clip(-levels, levels)
            errors[:, i] = matrix[:, i] - integers[:, i] * scale
    return integers
