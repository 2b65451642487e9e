"""
GroupNorm for autoencoders' graphs, without the usual reshape to (B, groups, -1): that ties its input to one layout in
memory. OpenVINO convolves with channels last, and turned every norm's input about and back, which took 42 % of the
built-in decoder's time in float32.

Mean and root mean square are taken of each channel, where it lies, and those of a group are made of these few numbers.
The mean goes first: in bf16 the difference of two large sums of squares would say little.
"""

from __future__ import annotations

from typing import Any

from onnxscript import opset20 as op


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """Translate aten::group_norm of x (B, C, ...), whose C is known, with a weight and a bias (C,)."""
    channels, rank = x.shape[1], len(x.shape)
    inner = op.Constant(value_ints=list(range(2, rank)))
    of_groups = op.Constant(value_ints=[0, num_groups, -1])
    of_channels = op.Constant(value_ints=[0, channels] + [1] * (rank - 2))
    inner_of_weights = op.Constant(value_ints=list(range(1, rank - 1)))
    spread = op.Constant(value_ints=[1, 1, channels // num_groups])

    def of_its_group(each: Any) -> Any:
        """Return for each channel (B, C, 1, ...) the mean over its group."""
        mean = op.ReduceMean(op.Reshape(each, of_groups), op.Constant(value_ints=[2]), keepdims=1)
        return op.Reshape(op.Expand(mean, spread), of_channels)

    count = op.ReduceProd(op.Shape(x, start=2, end=rank), keepdims=0)
    centred = op.Sub(x, of_its_group(op.ReduceMean(x, inner, keepdims=1)))
    # Divided before it is squared: in f16 a sum of squares over a picture is out of range.
    rms = op.Div(op.ReduceL2(centred, inner, keepdims=1), op.Sqrt(op.CastLike(count, x)))
    deviation = op.Sqrt(op.Add(of_its_group(op.Mul(rms, rms)), op.Constant(value_float=eps)))
    scale = op.Div(op.Unsqueeze(weight, inner_of_weights), deviation)
    return op.Add(op.Mul(centred, scale), op.Unsqueeze(bias, inner_of_weights))
