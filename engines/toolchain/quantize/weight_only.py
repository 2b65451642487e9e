"""
Weights in 8 or 4 bits with float arithmetic: each weight of the chosen layers becomes integers and a DequantizeLinear.

Standard ONNX (opset 21 has int4 and blocks); ONNX Runtime fuses it with the matrix product, OpenVINO unpacks the
weights as it multiplies. Rounding is symmetric: w = q * scale, scale = largest magnitude / largest integer.

Not onnxruntime's MatMulNBitsQuantizer, tried in 1.31 on the built-in denoiser (4 bits, blocks of 32, one feed of noise
at 512 px): for MatMul alone it is as good (32.9 dB, 17.2 MB; here 32.8 dB, 17.0 MB), but it takes no Gemm (here all
layers: 31.3 dB, 7.0 MB), and its standard form (QDQ) does not load.
Not nncf.compress_weights, tried in 3.4 on the same denoiser: it raises on a Cast of a stored weight and, those folded,
on constants it has lost ("no tensor with the name"); it refuses blocks of 32 where a layer is 682 wide, as a sixth of
the weights are; and it brings 248 MB of packages.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 21
LEVELS = {8: 127, 4: 7}  # the largest integer by bits: without -128 and -8, so that the range has zero in its middle
KINDS: dict[int, Any] = {8: np.int8, 4: ml_dtypes.int4}
Floats = NDArray[np.float32]


def quantize_weights(model: onnx.ModelProto, layers: Collection[str], bits: int, block: int) -> onnx.ModelProto:
    """
    Replace the weights of these layers, named as their nodes, by integers that are dequantised; changes `model` and
    returns it. 8 bits: a scale for each output channel; 4 bits: one for each `block` inputs of a channel.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET)
    nodes = []
    for node in graph.node:
        name = node.input[1] if node.name in layers else ""
        if name in weights:
            nodes.append(_quantize(graph, weights.pop(name), node, bits, block))
    for unpack in nodes:
        graph.node.insert(0, unpack)
    return model


def _quantize(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, node: onnx.NodeProto, bits: int, block: int
) -> onnx.NodeProto:
    """Replace the weight `tensor` by integers and scales; return the node that gives its name their product."""
    array, name = numpy_helper.to_array(tensor).astype(np.float32), tensor.name
    weight = quantized_weight(array, node, bits, block)
    graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(weight.integers, f"{name}.integers"))
    graph.initializer.append(numpy_helper.from_array(weight.scale, f"{name}.scale"))
    return weight.unpack(f"{name}.integers", f"{name}.scale", name)


@dataclass(frozen=True)
class QuantizedWeight:
    """
    Integers of a weight's shape and their scale, which goes along `axis`; with blocks, `axis` is the one they divide.
    """

    integers: NDArray[Any]
    scale: Floats
    axis: int
    block: int

    def unpack(self, integers: str, scale: str, name: str) -> onnx.NodeProto:
        """Return the DequantizeLinear from the initializers of these names to the value `name`."""
        settings = {"axis": self.axis, **({"block_size": self.block} if self.block else {})}
        return helper.make_node("DequantizeLinear", [integers, scale], [name], name=f"{name}.unpack", **settings)


def quantized_weight(array: Floats, node: onnx.NodeProto, bits: int, block: int, levels: int = 0) -> QuantizedWeight:
    """
    Return the weight of `node` in integers of at most `levels`, 0: as the bits allow; `array` is overwritten. Blocks
    are for matrices in 4 bits whose inputs the block divides; all others have one scale for each output channel.
    """
    levels = levels or LEVELS[bits]
    output_axis, input_axis = axes(node, array.ndim)
    blocked = bits == 4 and array.ndim == 2 and array.shape[input_axis] % block == 0
    axis = input_axis if blocked else output_axis
    scale = _scale(array, axis, block if blocked else 0, levels)
    spread = (
        np.repeat(scale, block, axis) if blocked else scale.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    )
    np.rint(np.divide(array, spread, out=array), out=array)
    integers = array.clip(-levels, levels, out=array).astype(KINDS[bits])
    return QuantizedWeight(integers, scale, axis, block if blocked else 0)


def axes(node: onnx.NodeProto, rank: int) -> tuple[int, int]:
    """Return which axes of a weight hold its output channels and its input channels."""
    if node.op_type in ("Conv", "ConvInteger"):
        return 0, 1
    if node.op_type == "ConvTranspose":
        return 1, 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return (rank - 2, rank - 1) if transposed else (rank - 1, rank - 2)


def _scale(array: Floats, axis: int, block: int, levels: int) -> Floats:
    """Return the scales: (n,) by channel; by block, the array's shape with `axis` divided by the block."""
    magnitude = np.abs(array)
    if block:
        shape = (*array.shape[:axis], array.shape[axis] // block, block, *array.shape[axis + 1 :])
        largest = magnitude.reshape(shape).max(axis + 1)
    else:
        largest = magnitude.max(tuple(i for i in range(array.ndim) if i != axis))
    return np.asarray(np.maximum(largest, 1e-12) / levels, dtype=np.float32)  # zeros alone divide by no 0
