"""Weights in integers: what a layer makes of its inputs changes least, and no integer is beyond the levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines.toolchain.quantize.rounding import LEVELS, rounded

Array = Any


def layer(inputs: int = 200, outputs: int = 24) -> tuple[Array, Array]:
    """A weight (outputs, inputs), and rows of inputs that go together, as neighbouring pixels do."""
    rng = np.random.default_rng(0)
    few = rng.normal(0, 1, (4000, inputs // 8))
    rows = few @ rng.normal(0, 1, (inputs // 8, inputs)) + 0.1 * rng.normal(0, 1, (4000, inputs))
    return rng.normal(0, 1, (outputs, inputs)).astype(np.float32), rows.astype(np.float32)


def output_db(rows: Array, weight: Array, near: Array) -> float:
    wanted, result = rows @ weight.T, rows @ near.T
    return float(10 * np.log10(np.square(wanted).mean() / np.square(result - wanted).mean()))


def test_inputs_that_go_together_make_up_for_each_other() -> None:
    weight, rows = layer()
    fitted, unseen = rows[:3000], rows[3000:]
    nearest = output_db(unseen, weight, rounded(weight, 0, None).floats)
    gptq = output_db(unseen, weight, rounded(weight, 0, fitted.T @ fitted).floats)
    assert 30 < nearest < 45 and gptq > nearest + 6


def test_it_is_what_gptq_computes_by_the_inverse() -> None:
    """Algorithm 1 of the paper, one input at a time, written down as it stands there."""
    weight, rows = layer(inputs=300)  # more than two blocks
    moments = (rows.T @ rows).astype(np.float64)
    result = rounded(weight, 0, moments)
    damped = moments + np.eye(300) * (0.01 * np.diag(moments).mean() + 1e-9)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, integers = weight.astype(np.float64), np.empty(weight.shape)
    for i in range(300):
        integers[:, i] = np.rint(left[:, i] / result.scale).clip(-LEVELS, LEVELS)
        error = (left[:, i] - integers[:, i] * result.scale) / upper[i, i]
        left[:, i:] -= np.outer(error, upper[i, i:])
    assert (result.integers != integers).mean() < 1e-3  # but where a half is rounded by the last bit


def test_more_levels_are_nearer() -> None:
    weight, rows = layer()
    moments = rows.T @ rows
    coarse, fine = (output_db(rows, weight, rounded(weight, 0, moments, levels).floats) for levels in (16, 64))
    assert fine > coarse + 9  # 12 dB for two bits, a little less as scales clip


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_integers_and_a_scale_for_each_channel_of_any_axis(axis: int) -> None:
    weight = np.random.default_rng(1).normal(0, 1, (6, 5, 3, 4)).astype(np.float32)
    result = rounded(weight, axis, None)
    assert result.integers.shape == weight.shape and result.integers.dtype == np.int8
    assert result.scale.shape == (weight.shape[axis],) and result.scale.dtype == np.float32
    assert len(set(result.scale)) == weight.shape[axis]
    largest = np.abs(result.integers.astype(int)).max(tuple(i for i in range(4) if i != axis))
    assert (largest <= LEVELS).all() and (largest > LEVELS // 2).all()
    assert np.abs(result.floats - weight).max() < 0.2


def test_the_order_of_moments_is_that_of_the_other_axes() -> None:
    """An input that is a thousand times the others is rounded best, wherever its axis stands."""
    weight, rows = layer(40, 8)
    rows[:, 7] *= 1000
    for axis, turned in ((0, weight), (1, np.ascontiguousarray(weight.T))):
        result = rounded(turned, axis, rows.T @ rows).floats
        result = result if axis == 0 else result.T
        assert output_db(rows, weight, result) > 40


def test_a_blur_is_exact() -> None:
    """1 3 3 1 squared: 9 is the largest, and 63 a multiple of it."""
    blur = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
    result = rounded(np.stack([blur, 2 * blur])[:, None], 0, None)
    np.testing.assert_allclose(result.floats[0, 0], blur, rtol=1e-6)
    np.testing.assert_allclose(result.floats[1, 0], 2 * blur, rtol=1e-6)


def test_channels_of_zeros_and_inputs_that_never_move() -> None:
    weight, rows = layer(30, 4)
    weight[2], rows[:, 5] = 0, 0
    result = rounded(weight, 0, rows.T @ rows)
    assert np.isfinite(result.scale).all() and not result.integers[2].any()
    assert output_db(rows, weight, result.floats) > 25
