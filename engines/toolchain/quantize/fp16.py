"""
From a graph in float32 to one that says itself where it computes in half: TensorRT, from version 11 on, does what the
graph's types say and nothing else.

The rule is autocast's. Matrix products and convolutions are computed in half. What merely moves or joins numbers
follows what it is given. All the rest, norms, softmax, exponents and sums, stays in float32; so do a GPEN's
demodulation, whose constants half cannot hold, and every layer of which half's range was found too narrow: it is
measured on true feeds, as autoencoders and networks trained in bf16 go beyond it. Inputs and outputs stay float32.

Weights that share.py has pointed at a checkpoint's bytes are used as they lie there: no second copy is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel as Level

from engines.bundle.signatures import Array
from engines.errors import EngineError
from engines.toolchain.quantize import opened, output_of

NAME = "model.fp16.onnx"
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
FOLLOWERS = (
    "Add", "Sub", "Mul", "Neg", "Abs", "Max", "Min", "Where", "Clip", "Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh",
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "Expand", "Tile",
    "Pad", "Resize", "DepthToSpace", "SpaceToDepth", "Identity", "MaxPool", "AveragePool", "QuantizeLinear",
)  # fmt: skip
MOVERS = ("Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze")  # what may stand between a weight and its use
OF_DATA = {"Resize": 1}  # how many of the first inputs are data, where others are floats whatever the data is
SMALLEST, LARGEST = 2.0**-14, 65504.0  # of half, in full precision
MARGIN = 4.0  # other feeds may reach further than those that were measured
Feeds = Mapping[str, Array]
PLAIN = Level.ORT_ENABLE_BASIC  # beyond, it makes integer kernels that take no half
FULL, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@dataclass(frozen=True)
class Fp16Report:
    """
    For the report: nodes that compute in half, products that had to stay in float32, and the largest difference: on a
    CPU, where ONNX Runtime leaves out some of the rounding that a GPU does.
    """

    half: int
    too_large: tuple[str, ...]
    difference: float


def halve(source: Path, target: Path, feeds: Sequence[Feeds], say: Callable[[str], None] = print) -> Fp16Report:
    """
    Both in one folder; they may be the same. The difference is the last of the feeds', as a share of the largest output
    (of 1 at least). EngineError: what comes out is not a number.
    """
    wanted = output_of(opened(source, PLAIN), feeds[-1])
    model = onnx.load(source, load_external_data=False)
    halving = Fp16Converter(model, peaks(source, feeds))
    halving.run()
    onnx.save(model, target)
    onnx.checker.check_model(target, full_check=True)
    found = output_of(opened(target, PLAIN), feeds[-1])
    if not np.isfinite(found).all():
        raise EngineError(f"{target.parent.name}: half precision makes no numbers of it", engine="ort")
    difference = float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))
    kept = len(halving.too_large)
    say(f"half precision: {halving.count} nodes, {kept} too large for it; differs by {difference:.1e} at least")
    return Fp16Report(halving.count, tuple(halving.too_large), difference)


def peaks(source: Path, feeds: Sequence[Feeds]) -> dict[str, float]:
    """The largest magnitude of every float value that is computed, over all feeds."""
    model = onnx.load(source, load_external_data=False)
    graph, typed = model.graph, onnx.shape_inference.infer_shapes(model).graph
    floats = {value.name for value in typed.value_info if value.type.tensor_type.elem_type == FULL}
    names = [name for node in graph.node for name in node.output if name in floats]
    for name in names:  # reduced in the graph, so that one value at a time is in memory, not all of them
        graph.node.append(helper.make_node("Abs", [name], [f"{name}.size"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.size"], [f"{name}.peak"], keepdims=0))
    if not names:
        return {}
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f"{name}.peak", FULL, []) for name in names)
    beside = source.with_name("measured.onnx")  # the weights it points at lie there
    try:
        onnx.save(model, beside)
        session = opened(beside, PLAIN)
        measured = [session.run(None, dict(one)) for one in feeds]
    finally:
        beside.unlink(missing_ok=True)
    return {name: max(map(float, each)) for name, each in zip(names, zip(*measured, strict=True), strict=True)}


class Fp16Converter:
    """
    Of one model, which it changes. A value keeps its name in float32; its half is called `name`.half. `there` is what
    the new graph has so far.
    """

    def __init__(self, model: ModelProto, peaks: Mapping[str, float]) -> None:
        self.graph: GraphProto = model.graph
        self.peaks, self.count, self.too_large = peaks, 0, list[str]()
        typed = onnx.shape_inference.infer_shapes(model).graph
        values = [*typed.input, *typed.output, *typed.value_info]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.types.update((name, tensor.data_type) for name, tensor in self.constants.items())
        self.made = {output: node for node in self.graph.node for output in node.output}
        self.there = {*self.constants, *(value.name for value in self.graph.input)}
        self.in_half: set[str] = set()  # what is computed in it, not merely cast to it
        self.nodes: list[NodeProto] = []

    def run(self) -> None:
        """EngineError: there is a graph within the graph."""
        for node in self.graph.node:
            if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
                raise EngineError(f"{node.name} holds a graph, which is not made half", engine="onnx")
            self._add(node)
        for value in self.graph.output:
            self._as(value.name, FULL)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self._used())
        needed = {name for node in self.graph.node for name in node.input}
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name not in needed]:
            self.graph.initializer.remove(tensor)

    def _add(self, node: NodeProto) -> None:
        if self._is_float(node.output[0]) and self._tensor(node.output[0]) is not None:
            return  # a weight, cast or moved: made when it is needed, in the type that it is needed in
        kind = HALF if self._is_half(node) else FULL
        data = self._data(node)
        inputs = [self._as(name, kind if name in data else FULL) for name in node.input]
        outputs = [_half(name) if kind == HALF and self._is_float(name) else name for name in node.output]
        self.nodes.append(_copy(node, inputs, outputs))
        self.there.update(outputs)
        self.in_half.update(node.output if kind == HALF else ())
        self.count += kind == HALF

    def _data(self, node: NodeProto) -> list[str]:
        """Its inputs that are float, and have the type of what it computes in."""
        return [name for name in node.input[: OF_DATA.get(node.op_type)] if self._is_float(name)]

    def _is_float(self, name: str) -> bool:
        return bool(self.types.get(name) == FULL)

    def _is_half(self, node: NodeProto) -> bool:
        data = self._data(node)
        constant = [name for name in data if self._tensor(name) is not None]
        computed = [name for name in data if name not in constant]
        if not all(map(self._fits, constant)):
            return False
        if any(self.peaks.get(name, 0) > LARGEST / MARGIN for name in (*computed, *node.output)):
            self.too_large += [node.name] if node.op_type in PRODUCTS else []
            return False
        if node.op_type == "DequantizeLinear":
            return True
        if node.op_type in PRODUCTS:  # integers times a scale that half cannot hold are no half's either
            return all(name in self.in_half for name in computed if self._is_dequantised(name))
        return node.op_type in FOLLOWERS and bool(computed) and self.in_half.issuperset(computed)

    def _is_dequantised(self, name: str) -> bool:
        return name in self.made and self.made[name].op_type == "DequantizeLinear"

    def _tensor(self, name: str) -> TensorProto | None:
        """The one in the file that this value is, cast or moved."""
        while (node := self.made.get(name)) is not None and node.op_type in MOVERS:
            name = node.input[0]
        return self.constants.get(name)

    def _fits(self, name: str) -> bool:
        tensor = self._tensor(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return True  # a weight: what training left there is of middling size, and it is held against the original
        size = np.abs(numpy_helper.to_array(tensor))
        if size.ndim > 1:
            return bool((size <= LARGEST).all())
        return bool(((size == 0) | ((size >= SMALLEST) & (size <= LARGEST))).all())  # an epsilon, a scale: all of it

    def _as(self, name: str, kind: int) -> str:
        """The value in this type; what is not float is left as it is."""
        if not name or not self._is_float(name):
            return name
        node = self.made.get(name) if self._tensor(name) is not None else None
        if node is not None and node.op_type == "Cast" and self.types.get(node.input[0]) == kind:
            return str(node.input[0])
        wanted = _half(name) if kind == HALF else name
        if wanted not in self.there:
            self._make(node, name, wanted, kind)
            self.there.add(wanted)
        return wanted

    def _make(self, node: NodeProto | None, name: str, wanted: str, kind: int) -> None:
        tensor = self.constants.get(name)
        if tensor is not None and tensor.data_location != TensorProto.EXTERNAL:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            self.graph.initializer.append(numpy_helper.from_array(array, wanted))
        elif node is not None and node.op_type != "Cast":
            inputs = [self._as(node.input[0], kind), *node.input[1:]]
            self.nodes.append(_copy(node, inputs, [wanted], f"{wanted}.moved"))
        else:
            given = node.input[0] if node is not None else name if kind == HALF else _half(name)
            self.nodes.append(helper.make_node("Cast", [given], [wanted], name=f"{wanted}.cast", to=kind))

    def _used(self) -> Iterator[NodeProto]:
        """What the outputs need, in order: casts to float32 of weights that are used in half are no longer."""
        needed = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed.update(node.input)
                kept.append(node)
        yield from reversed(kept)


def _half(name: str) -> str:
    return f"{name}.half"


def _copy(node: NodeProto, inputs: list[str], outputs: list[str], name: str = "") -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    made.name = name or node.name
    del made.input[:], made.output[:]
    made.input.extend(inputs)
    made.output.extend(outputs)
    return made
