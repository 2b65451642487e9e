"""
From a graph in float32 to one that says itself where it computes in fp16: TensorRT, from version 11 on, does what the
graph's types say and nothing else.

The rule is autocast's. Matrix products and convolutions are computed in fp16. What merely moves or joins numbers
follows what it is given. All the rest, norms, softmax, exponents and sums, stays in float32; so do a GPEN's
demodulation, whose constants fp16 cannot hold, and every layer that goes beyond fp16's range: it is measured on true
feeds, as autoencoders and networks trained in bf16 do. Inputs and outputs stay float32.

Weights that shared_weights.py has pointed at a checkpoint's bytes are used as they lie there: no second copy is
written.

Not onnxruntime.transformers.float16, tried in 1.31 on built-in graphs (one feed of noise, ONNX Runtime on a CPU): the
denoiser comes to 79.8 dB with 22.2 MB of its own (here 86.3 dB and 0.4 MB, weights shared); its decoder does not load.
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
# What autocast casts to fp16, of the operators that these networks have: GPUs multiply faster then, and add in float32.
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
# Not worth a cast, and they add no long sums: in fp16 where what they are fed is.
FOLLOWERS = (
    "Add", "Sub", "Mul", "Neg", "Abs", "Max", "Min", "Where", "Clip", "Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh",
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "Expand", "Tile",
    "Pad", "Resize", "DepthToSpace", "SpaceToDepth", "Identity", "MaxPool", "AveragePool", "QuantizeLinear",
)  # fmt: skip
MOVERS = ("Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze")  # what may stand between a weight and its use
OF_DATA = {"Resize": 1}  # how many of the first inputs are data, where others are floats whatever the data is
SMALLEST, LARGEST = 2.0**-14, 65504.0  # IEEE 754 binary16: the smallest normal number, and the largest
MARGIN = 4.0  # other feeds may reach further than those that were measured: two bits were taken as enough, not measured
Feeds = Mapping[str, Array]
PLAIN = Level.ORT_ENABLE_BASIC  # beyond, it makes integer kernels that take no fp16
FP32, FP16 = TensorProto.FLOAT, TensorProto.FLOAT16


@dataclass(frozen=True)
class Fp16Report:
    """
    For report.json, whose keys these names are: how many nodes compute in half precision, which products had to stay in
    float32, and the largest difference: on a CPU, where ONNX Runtime leaves out some of the rounding that a GPU does.
    """

    half: int
    too_large: tuple[str, ...]
    difference: float


def to_fp16(source: Path, target: Path, feeds: Sequence[Feeds], say: Callable[[str], None] = print) -> Fp16Report:
    """
    Write the graph in `source` to `target`, computing in fp16 where it can. Both lie in one folder; they may be the
    same. The difference is the last of the feeds', as a share of the largest output
    (of 1 at least). EngineError: what comes out is not a number.
    """
    wanted = output_of(opened(source, PLAIN), feeds[-1])
    model = onnx.load(source, load_external_data=False)
    converter = Fp16Converter(model, peaks(source, feeds))
    converter.run()
    onnx.save(model, target)
    onnx.checker.check_model(target, full_check=True)
    result = output_of(opened(target, PLAIN), feeds[-1])
    if not np.isfinite(result).all():
        raise EngineError(f"{target.parent.name}: half precision makes no numbers of it", engine="ort")
    difference = float(np.abs(result - wanted).max() / max(1.0, np.abs(wanted).max()))
    counts = f"{converter.count} nodes, {len(converter.too_large)} too large for it"
    say(f"half precision: {counts}; differs by {difference:.1e} at least")
    return Fp16Report(converter.count, tuple(converter.too_large), difference)


def peaks(source: Path, feeds: Sequence[Feeds]) -> dict[str, float]:
    """Return the largest magnitude of every float value that the graph computes, by name, over all feeds."""
    model = onnx.load(source, load_external_data=False)
    graph, typed = model.graph, onnx.shape_inference.infer_shapes(model).graph
    floats = {value.name for value in typed.value_info if value.type.tensor_type.elem_type == FP32}
    names = [name for node in graph.node for name in node.output if name in floats]
    for name in names:  # reduced in the graph, so that one value at a time is in memory, not all of them
        graph.node.append(helper.make_node("Abs", [name], [f"{name}.size"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.size"], [f"{name}.peak"], keepdims=0))
    if not names:
        return {}
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f"{name}.peak", FP32, []) for name in names)
    beside = source.with_name("measured.onnx")  # the weights it points at lie there
    try:
        onnx.save(model, beside)
        session = opened(beside, PLAIN)
        measured = [session.run(None, dict(fed)) for fed in feeds]
    finally:
        beside.unlink(missing_ok=True)
    return {name: max(map(float, each)) for name, each in zip(names, zip(*measured, strict=True), strict=True)}


class Fp16Converter:
    """
    Converts one model, which it changes. A value keeps its name in float32; in fp16 it is called `name`.half.
    `available` is what the new graph has so far.
    """

    def __init__(self, model: ModelProto, peaks: Mapping[str, float]) -> None:
        self.graph: GraphProto = model.graph
        self.peaks, self.count, self.too_large = peaks, 0, list[str]()
        typed = onnx.shape_inference.infer_shapes(model).graph
        values = [*typed.input, *typed.output, *typed.value_info]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.types.update((name, tensor.data_type) for name, tensor in self.constants.items())
        self.producers = {output: node for node in self.graph.node for output in node.output}
        self.available = {*self.constants, *(value.name for value in self.graph.input)}
        self.in_fp16: set[str] = set()  # what is computed in it, not merely cast to it
        self.nodes: list[NodeProto] = []

    def run(self) -> None:
        """Convert the model. EngineError: there is a graph within the graph."""
        for node in self.graph.node:
            if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
                raise EngineError(f"{node.name} holds a graph, which is not made half", engine="onnx")
            self._add(node)
        for value in self.graph.output:
            self._as(value.name, FP32)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self._used())
        needed = {name for node in self.graph.node for name in node.input}
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name not in needed]:
            self.graph.initializer.remove(tensor)

    def _add(self, node: NodeProto) -> None:
        if self._is_float(node.output[0]) and self._tensor(node.output[0]) is not None:
            return  # a weight, cast or moved: made when it is needed, in the type that it is needed in
        kind = FP16 if self._fits_fp16(node) else FP32
        data = self._data(node)
        inputs = [self._as(name, kind if name in data else FP32) for name in node.input]
        outputs = [_in_fp16(name) if kind == FP16 and self._is_float(name) else name for name in node.output]
        self.nodes.append(_copy(node, inputs, outputs))
        self.available.update(outputs)
        self.in_fp16.update(node.output if kind == FP16 else ())
        self.count += kind == FP16

    def _data(self, node: NodeProto) -> list[str]:
        """Return the node's inputs that are float, and have the type of what it computes in."""
        return [name for name in node.input[: OF_DATA.get(node.op_type)] if self._is_float(name)]

    def _is_float(self, name: str) -> bool:
        return bool(self.types.get(name) == FP32)

    def _fits_fp16(self, node: NodeProto) -> bool:
        """Tell whether the node is computed in fp16; note a product that would be, but for its range."""
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
        if node.op_type in PRODUCTS:  # integers times a scale that fp16 cannot hold do not fit it either
            return all(name in self.in_fp16 for name in computed if self._is_dequantised(name))
        return node.op_type in FOLLOWERS and bool(computed) and self.in_fp16.issuperset(computed)

    def _is_dequantised(self, name: str) -> bool:
        return name in self.producers and self.producers[name].op_type == "DequantizeLinear"

    def _tensor(self, name: str) -> TensorProto | None:
        """Return the tensor in the file that this value is, cast or moved; None for what is computed."""
        while (node := self.producers.get(name)) is not None and node.op_type in MOVERS:
            name = node.input[0]
        return self.constants.get(name)

    def _fits(self, name: str) -> bool:
        """Tell whether fp16 holds this constant: of vectors and single numbers, small ones too."""
        tensor = self._tensor(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return True  # a weight: what training left there is of middling size, and it is held against the original
        size = np.abs(numpy_helper.to_array(tensor))
        if size.ndim > 1:
            return bool((size <= LARGEST).all())
        return bool(((size == 0) | ((size >= SMALLEST) & (size <= LARGEST))).all())  # an epsilon, a scale: all of it

    def _as(self, name: str, kind: int) -> str:
        """Return the name of the value in this type, made if need be; what is not float is left as it is."""
        if not name or not self._is_float(name):
            return name
        node = self.producers.get(name) if self._tensor(name) is not None else None
        if node is not None and node.op_type == "Cast" and self.types.get(node.input[0]) == kind:
            return str(node.input[0])
        wanted = _in_fp16(name) if kind == FP16 else name
        if wanted not in self.available:
            self._make(node, name, wanted, kind)
            self.available.add(wanted)
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
            given = node.input[0] if node is not None else name if kind == FP16 else _in_fp16(name)
            self.nodes.append(helper.make_node("Cast", [given], [wanted], name=f"{wanted}.cast", to=kind))

    def _used(self) -> Iterator[NodeProto]:
        """Yield the nodes that the outputs need, in order: casts of weights to float32 that nothing reads are gone."""
        needed = {value.name for value in self.graph.output}
        used = []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed.update(node.input)
                used.append(node)
        yield from reversed(used)


def _in_fp16(name: str) -> str:
    return f"{name}.half"


def _copy(node: NodeProto, inputs: list[str], outputs: list[str], name: str = "") -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = name or node.name
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.extend(outputs)
    return copy
