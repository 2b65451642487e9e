"""
Whether a quantised graph means the same on every processor. Without instructions for products of 8 bits (AVX2 without
VNNI; SSE4), engines multiply u8 activations by s8 weights and add neighbouring pairs in 16 bits: what is more than
32,767 becomes 32,767 (vpmaddubsw; Intel's Intrinsics Guide, _mm256_maddubs_epi16). Which weights are neighbours is the
engine's matter, so any two of one output channel are held against the limit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from engines.toolchain.quantize.weight_only import axes

LIMIT = 128  # for two weights of one sign: 255 * 128 = 32,640
IN_INTEGERS = ("ConvInteger", "MatMulInteger")


def worst_pair(integers: NDArray[np.int8], axis: int) -> int:
    """Return the largest sum, as a magnitude, of two weights of one sign in one output channel along `axis`."""
    rows = np.moveaxis(integers, axis, 0).reshape(integers.shape[axis], -1).astype(np.int64)
    ordered = np.sort(np.pad(rows, ((0, 0), (0, 1))), axis=1)  # a single weight meets none
    above, below = ordered[:, -2:].clip(min=0).sum(1), ordered[:, :2].clip(max=0).sum(1)
    return int(max(above.max(), -below.min()))


def worst_pairs(model: onnx.ModelProto) -> dict[str, int]:
    """
    Return the worst pair of each layer, by its node's name, whose integer weights meet unsigned activations. Weights
    that are unpacked for float arithmetic, or meet signed activations, are none of these. Weights lie in the model.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {}
    for node, name in unsigned_layers(model):
        integers = numpy_helper.to_array(constants[name])
        pairs[node.name] = worst_pair(integers, axes(node, integers.ndim)[0])
    return pairs


def unsigned_layers(model: onnx.ModelProto) -> Iterator[tuple[NodeProto, str]]:
    """Yield the layers that multiply u8 by s8, each with the name of its integers among the initializers."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}

    def unpacks(name: str, kind: int) -> bool:
        """Whether a value is unpacked from integers of this kind, by the type of its zero point."""
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return False
        if kind == onnx.TensorProto.INT8:
            return maker.input[0] in constants and constants[maker.input[0]].data_type == kind
        return len(maker.input) > 2 and constants[maker.input[2]].data_type == kind

    for node in model.graph.node:
        if node.op_type in IN_INTEGERS:
            yield node, node.input[1]
        elif len(node.input) > 1 and unpacks(node.input[0], onnx.TensorProto.UINT8):
            if unpacks(node.input[1], onnx.TensorProto.INT8):
                yield node, makers[node.input[1]].input[0]
