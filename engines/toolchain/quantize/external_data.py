"""
From a graph without weights and weights that lie elsewhere to a quantised graph: one matrix after the other is read,
quantised and written. So a network is built that would never fit into memory in float32.

Standard ONNX (opset 21): DequantizeLinear before the weight of each chosen layer (weight_only.py), and, where the
layer's input has a range, QuantizeLinear and DequantizeLinear before that. What a Gather looks up in is kept in 8 bits,
with a scale for each row. Other large weights stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel
from torch import Tensor

from engines.toolchain.quantize import rounding
from engines.toolchain.quantize.activation_ranges import Range
from engines.toolchain.quantize.weight_only import LEVELS, OPSET, quantized_weight
from engines.toolchain.recipe import Treatment

PAGE = 4096  # bytes of a page of memory: where tensors begin, to be mapped
ROWS = 8192  # of a table that are float32 at once: 80 MB of the 2560 columns that Qwen3-4B has


@dataclass(frozen=True)
class Layer:
    """A node with a large weight. `turn` is the Transpose between the two, if there is one."""

    node: NodeProto
    weight: str
    turn: NodeProto | None = None


def layers(model: onnx.ModelProto, ops: Sequence[str]) -> list[Layer]:
    """Return the convolutions and products among the operators `ops` whose weight lies outside the model."""
    external = TensorProto.EXTERNAL
    outside = {tensor.name for tensor in model.graph.initializer if tensor.data_location == external}
    turns = {node.output[0]: node for node in model.graph.node if node.op_type == "Transpose"}
    outer = []
    for node in model.graph.node:
        if node.op_type in ops and node.op_type != "Gather":
            turn = turns.get(node.input[1])
            weight = turn.input[0] if turn else node.input[1]
            if weight in outside:
                outer.append(Layer(node, weight, turn))
    return outer


def write(
    model: onnx.ModelProto,
    weights: Mapping[str, Tensor],
    target: Path,
    how: Treatment,
    ranges: Mapping[str, Range],
) -> None:
    """
    Write `target`, and its weights to `target`.data. `weights` by the names of what lies outside the model; `ranges`
    of layers' inputs, by their weights' names. Changes the model.
    """
    chosen = layers(model, how.ops)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET)
    with target.with_name(f"{target.name}.data").open("wb") as file:
        writer = Writer(model.graph, weights, Store(file, f"{target.name}.data"))
        for layer in chosen:
            writer.quantize(layer, how.bits, how.block, rounding.LEVELS if layer.weight in ranges else 0)
        for node in [node for node in model.graph.node if node.op_type == "Gather" and node.input[0] in weights]:
            if "Gather" in how.ops:
                writer.quantize_table(node)
        writer.store_others()
    _round_inputs(model.graph, chosen, ranges)
    ONNXModel(model).topological_sort()
    onnx.save(model, target)


@dataclass(frozen=True)
class Store:
    """Tensors one after the other in a file beside the model."""

    file: BinaryIO
    name: str

    def add(self, name: str, kind: int, shape: Sequence[int], pieces: Iterator[NDArray[Any]]) -> TensorProto:
        """Append the pieces to the file; return the tensor, empty, with a note of where it lies."""
        self.file.write(b"\0" * (-self.file.tell() % PAGE))
        offset = self.file.tell()
        for piece in pieces:
            self.file.write(numpy_helper.from_array(piece).raw_data)  # four-bit integers in pairs
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self.name), ("offset", offset), ("length", self.file.tell() - offset)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


@dataclass
class Writer:
    """Moves weights from PyTorch to the store, quantised, and lets the graph refer to them."""

    graph: onnx.GraphProto
    weights: Mapping[str, Tensor]
    store: Store
    unpacked: dict[tuple[str, bool], str] = field(default_factory=dict)  # by weight, as it lies or turned

    def quantize(self, layer: Layer, bits: int, block: int, levels: int) -> None:
        """
        Give the layer its weight in integers, of at most `levels` if that is not 0. Layers that share a weight share
        what unpacks it; one that is turned here need not be turned by engines. Convolutions have 8 bits: blocks are for
        matrices.
        """
        key = (layer.weight, layer.turn is not None)
        if key not in self.unpacked:
            array = self.weights[layer.weight].float().numpy()
            array = np.ascontiguousarray(array.T) if layer.turn else array.copy()
            self.unpacked[key] = self._unpack(layer, array, 8 if array.ndim > 2 else bits, block, levels)
        layer.node.input[1] = self.unpacked[key]

    def _unpack(self, layer: Layer, array: NDArray[np.float32], bits: int, block: int, levels: int) -> str:
        name, weight = f"{layer.weight}.narrow", quantized_weight(array, layer.node, bits, block, levels)
        kind = TensorProto.INT8 if bits == 8 else TensorProto.INT4
        integers = self.store.add(f"{name}.integers", kind, weight.integers.shape, iter((weight.integers,)))
        scale = numpy_helper.from_array(weight.scale, f"{name}.scale")
        if len(scale.raw_data) >= PAGE:
            scale = self.store.add(scale.name, TensorProto.FLOAT, weight.scale.shape, iter((weight.scale,)))
        self.graph.initializer.extend((integers, scale))
        self.graph.node.append(weight.unpack(integers.name, scale.name, name))
        return name

    def quantize_table(self, node: NodeProto) -> None:
        """Replace a Gather by rows of integers times their scales: no engine has to unpack the whole table."""
        table, ids, out = self.weights[node.input[0]], node.input[1], node.output[0]
        name = f"{node.input[0]}.narrow"
        largest = table.abs().amax(1, keepdim=True).float().clamp(min=1e-12)  # (rows, 1)
        scale = largest / LEVELS[8]
        pieces = (
            (table[i : i + ROWS].float() / scale[i : i + ROWS]).round().numpy().astype(np.int8)
            for i in range(0, len(table), ROWS)
        )
        self.graph.initializer.append(self.store.add(f"{name}.integers", TensorProto.INT8, table.shape, pieces))
        self.graph.initializer.append(numpy_helper.from_array(scale.numpy(), f"{name}.scale"))
        self.graph.node.remove(node)
        self.graph.node.extend(
            (
                helper.make_node("Gather", [f"{name}.integers", ids], [f"{name}.rows"], name=node.name, axis=0),
                helper.make_node("Gather", [f"{name}.scale", ids], [f"{name}.scales"], name=f"{name}.scales", axis=0),
                helper.make_node("Cast", [f"{name}.rows"], [f"{name}.cast"], name=f"{name}.cast", to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}.cast", f"{name}.scales"], [out], name=f"{name}.unpack"),
            )
        )

    def store_others(self) -> None:
        """Store what is still used of the weights in float32; the rest is dropped."""
        used = {name for node in self.graph.node for name in node.input}
        turned = [node for node in self.graph.node if node.op_type == "Transpose" and node.output[0] not in used]
        for node in turned:
            self.graph.node.remove(node)
        used = {name for node in self.graph.node for name in node.input}
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name in self.weights]:
            self.graph.initializer.remove(tensor)
            if tensor.name in used:
                array = self.weights[tensor.name].float().numpy()
                self.graph.initializer.append(
                    self.store.add(tensor.name, TensorProto.FLOAT, array.shape, iter((array,)))
                )


def _round_inputs(graph: onnx.GraphProto, chosen: Sequence[Layer], ranges: Mapping[str, Range]) -> None:
    """Round the inputs of layers that have a range to 8 bits, once for each array and range."""
    rounded: dict[tuple[str, Range], str] = {}
    for layer in chosen:
        if (span := ranges.get(layer.weight)) is not None:
            source = layer.node.input[0]
            if (source, span) not in rounded:
                rounded[source, span] = f"{source}.rounded{len(rounded)}"
                _round(graph, source, rounded[source, span], span)
            layer.node.input[0] = rounded[source, span]


def _round(graph: onnx.GraphProto, source: str, name: str, span: Range) -> None:
    """
    Add the value `name`, which is `source` in 8 bits: scale = (high - low) / 255, the zero point where 0 is; both ends
    are stretched to hold 0, which padding must hit exactly.
    """
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = np.array(max(high - low, 1e-8) / 255, dtype=np.float32)
    zero = np.array(np.rint(-low / scale).clip(0, 255), dtype=np.uint8)
    constants = [f"{name}.scale", f"{name}.zero"]
    graph.initializer.extend(map(numpy_helper.from_array, (scale, zero), constants))
    graph.node.append(
        helper.make_node("QuantizeLinear", [source, *constants], [f"{name}.integers"], name=f"{name}.quantize")
    )
    graph.node.append(
        helper.make_node("DequantizeLinear", [f"{name}.integers", *constants], [name], name=f"{name}.unpack")
    )
