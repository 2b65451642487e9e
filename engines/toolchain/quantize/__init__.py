"""
From a float32 graph to a quantised one, by onnxruntime.quantization: standard QuantizeLinear and DequantizeLinear
nodes, which ONNX Runtime and OpenVINO both turn into integer kernels; and TensorRT, if activations are signed with
zero in the middle, and biases in float.

Weights are rounded so that a layer's output changes least (rounding.py), to integers with which no processor's sums
overflow (saturation.py). Ranges of the activations are taken by several methods and the one that comes nearest to
float32 on held-out feeds is kept. If that is not near enough, every layer is quantised alone, and those that hurt most
stay in float until the bar is met.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime import GraphOptimizationLevel as Level
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.bundle.signatures import Array
from engines.errors import EngineError
from engines.toolchain.quantize import layer_inputs, rounding, saturation
from engines.toolchain.quantize.layer_inputs import Feeds
from engines.toolchain.quantize.rounding import RoundedWeight
from engines.toolchain.quantize.weight_only import axes, quantize_weights
from engines.toolchain.recipe import Treatment

# Products for each number that a layer makes, and channels of what it makes: with fewer than these it takes its time to
# read and write, and in integers it would hurt and gain nothing. On the built-in restorer 26 of 63 layers: 49.3 dB
# instead of 45.8, and no slower.
ENOUGH_INPUTS = 32
ENOUGH_OUTPUTS = 5
SIGNED_LEVELS = 127  # for TensorRT, whose sums of s8 * s8 are exact
SHARE_LEFT_OUT = 0.5  # of the layers: if that does not help, no bar will be met


@dataclass(frozen=True)
class Outcome:
    """
    For the report. Decibels are the output's against float32, over its own range, on held-out feeds. `worst_pair`: the
    largest sum of two weights that a processor may add in 16 bits, of saturation.LIMIT; 0 where there are none.
    """

    quantized: int
    layers: int
    ranges: str = ""
    compared_db: Mapping[str, float] = field(default_factory=dict)
    reached_db: float = 0.0
    in_float: tuple[str, ...] = ()
    in_float_db: Mapping[str, float] = field(
        default_factory=dict
    )  # what each of them reaches when it alone is quantised
    worst_pair: int = 0


def quantize(
    source: Path, target: Path, how: Treatment, feeds: Sequence[Feeds], say: Callable[[str], None] = print
) -> Outcome:
    """
    Quantise the graph in `source`, which holds its weights inside, and write `target`. The last quarter of the feeds
    (one at least) is held out. EngineError: on some processors the result would be another one.
    """
    held_out = max(1, len(feeds) // 4)
    calibration, checks = feeds[:-held_out] or feeds, feeds[-held_out:]
    with tempfile.TemporaryDirectory() as folder:
        model = _prepared(source, Path(folder))
        shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        weighted = [node for node in model.graph.node if node.op_type in how.ops and node.input[1] in shapes]
        layers = [node.name for node in weighted if _is_worth_it(node, shapes[node.input[1]], how)]
        wanted = [output_of(opened(source), fed) for fed in checks]
        work = Work(model, how, layers, list(calibration), list(checks), wanted, Path(folder), say)
        outcome, result = work.best()
    pairs = saturation.worst_pairs(result)
    if beyond := [name for name, pair in pairs.items() if pair > saturation.LIMIT]:
        raise EngineError(f"sums of {', '.join(beyond)} overflow on some processors", engine="ort")
    onnx.save(result, target)
    return replace(outcome, worst_pair=max(pairs.values(), default=0))


@dataclass(frozen=True)
class Work:
    model: onnx.ModelProto
    how: Treatment
    layers: list[str]
    calibration: list[Feeds]
    checks: list[Feeds]
    wanted: list[Array]
    folder: Path
    say: Callable[[str], None]

    def best(self) -> tuple[Outcome, onnx.ModelProto]:
        ranges, compared = self._ranges()
        name = max(compared, key=lambda key: compared[key])
        chosen, reached = ranges[name], compared[name]
        in_float: list[str] = []
        alone: dict[str, float] = {}
        if reached < self.how.bar_db and self.how.quantize != "dynamic":
            in_float, alone = self._sensitive(chosen)
            reached = self._reached(chosen, in_float)
        quantized = len(self.layers) - len(in_float)
        self.say(f"{quantized} of {len(self.layers)} layers, {name or self.how.quantize}: {reached:.1f} dB")
        in_float_db = {layer: round(alone[layer], 1) for layer in in_float}
        shown = {key: round(value, 1) for key, value in compared.items()}
        outcome = Outcome(quantized, len(self.layers), name, shown, round(reached, 1), tuple(in_float), in_float_db)
        return outcome, self._quantized(chosen, in_float)

    def _ranges(self) -> tuple[dict[str, TensorsData | None], dict[str, float]]:
        """Return the ranges by every method, and how many decibels each reaches."""
        if self.how.quantize != "static":
            return {"": None}, {"": self._reached(None, [])}
        ranges: dict[str, TensorsData | None] = {}
        compared: dict[str, float] = {}
        for name, spans in self._observed.ranges.items():
            numbers = {key: tuple(np.array(end, dtype=np.float32) for end in span) for key, span in spans.items()}
            ranges[name] = TensorsData(CalibrationMethod.MinMax, numbers)
            compared[name] = self._reached(ranges[name], [])
            self.say(f"ranges by {name}: {compared[name]:.1f} dB")
        return ranges, compared

    @cached_property
    def _observed(self) -> layer_inputs.LayerInputs:
        path = self.folder / "observed.onnx"
        observed = layer_inputs.observe(self.model, self.layers, self.calibration, self.how.ranges, path)
        self.say(f"looked at {len(self.layers)} layers")
        return observed

    @cached_property
    def _rounded(self) -> dict[str, RoundedWeight]:
        """Return the weights in integers, by layer."""
        constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        levels = SIGNED_LEVELS if self.how.tensorrt else rounding.LEVELS
        result = {}
        for node in (node for node in self.model.graph.node if node.name in set(self.layers)):
            weight = numpy_helper.to_array(constants[node.input[1]])
            moments = self._observed.moments.pop(node.name, None)  # of a large network gigabytes in all
            result[node.name] = rounding.rounded(weight, axes(node, weight.ndim)[0], moments, levels)
        self.say(f"rounded {len(result)} weights")
        return result

    def _sensitive(self, ranges: TensorsData | None) -> tuple[list[str], dict[str, float]]:
        """Return the layers to leave in float, worst first, and what each reaches in dB when it alone is quantised."""
        alone = {}
        for i, layer in enumerate(self.layers, start=1):
            others = [other for other in self.layers if other != layer]
            alone[layer] = self._reached(ranges, others, fewer=True)
            if i % 10 == 0:
                self.say(f"sensitivity of layer {i} of {len(self.layers)}")
        worst = sorted(self.layers, key=lambda layer: alone[layer])
        most = int(len(worst) * SHARE_LEFT_OUT)
        count = 1
        while count < most and self._reached(ranges, worst[:count]) < self.how.bar_db:
            count = min(most, count * 2)
        return worst[:count], alone

    def _reached(self, ranges: TensorsData | None, in_float: list[str], fewer: bool = False) -> float:
        path = self.folder / "trial.onnx"
        onnx.save(self._quantized(ranges, in_float), path)
        session = opened(path)
        checks = list(zip(self.checks, self.wanted, strict=True))[: 1 if fewer else None]
        return min(output_db(output_of(session, fed), want) for fed, want in checks)

    def _quantized(self, ranges: TensorsData | None, in_float: list[str]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        chosen = [layer for layer in self.layers if layer not in in_float]
        if not chosen:  # to a quantizer no names mean all
            return model
        if self.how.quantize == "weights":
            return quantize_weights(model, chosen, self.how.bits, self.how.block)
        common: dict[str, Any] = {
            "nodes_to_quantize": chosen,
            "nodes_to_exclude": in_float,
            "op_types_to_quantize": list(self.how.ops),
        }
        if self.how.quantize == "dynamic":
            quantizer = ONNXQuantizer(
                model, True, True, QuantizationMode.IntegerOps, False, QuantType.QInt8, QuantType.QUInt8, None,
                extra_options={"MatMulConstBOnly": True}, **common,
            )  # fmt: skip
        else:
            symmetric = bool(self.how.tensorrt)
            options = {
                "MatMulConstBOnly": True,
                "ActivationSymmetric": symmetric,
                "QuantizeBias": not symmetric,
                "TensorQuantOverrides": self._put_rounded(model, in_float),
            }
            activations = QuantType.QInt8 if symmetric else QuantType.QUInt8
            quantizer = QDQQuantizer(
                model, True, False, QuantType.QInt8, activations, ranges, extra_options=options, **common
            )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
        return result

    def _put_rounded(self, model: onnx.ModelProto, in_float: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Give each layer but these the weight that its integers stand for, and return their scales by its name."""
        scales = {}
        for node in model.graph.node:
            if node.name in self.layers and node.name not in in_float:
                weight, name = self._rounded[node.name], f"rounded.{node.name}"
                model.graph.initializer.append(numpy_helper.from_array(weight.floats, name))
                node.input[1] = name
                zero = {"axis": weight.axis, "zero_point": np.array(0, np.int8), "quant_type": QuantType.QInt8}
                scales[name] = [{"scale": scale, **zero} for scale in weight.scale]
        used = {name for node in model.graph.node for name in node.input}
        for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
            model.graph.initializer.remove(tensor)
        return scales


def _prepared(source: Path, folder: Path) -> onnx.ModelProto:
    """Return the graph with constants folded, shapes inferred and every node named."""
    path = folder / "prepared.onnx"
    quant_pre_process(source, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    del model.graph.value_info[:]  # names of folded nodes come again for other things
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    return onnx.shape_inference.infer_shapes(model)


def _is_worth_it(node: onnx.NodeProto, shape: tuple[int, ...], how: Treatment) -> bool:
    """Tell whether a layer, where activations are quantised too, does more than to read and write them."""
    outputs = shape[axes(node, len(shape))[0]]
    return how.quantize != "static" or (math.prod(shape) // outputs >= ENOUGH_INPUTS and outputs >= ENOUGH_OUTPUTS)


def opened(path: Path, level: Level = Level.ORT_ENABLE_ALL) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def output_of(session: onnxruntime.InferenceSession, feeds: Feeds) -> Array:
    (result,) = session.run(None, dict(feeds))
    array: Array = result
    return array


def output_db(result: Array, wanted: Array) -> float:
    """Return the signal to noise in dB over the range of what is wanted; -inf for what is not a number."""
    error = float(np.square(result.astype(np.float64) - wanted).mean())
    if not np.isfinite(error):
        return float("-inf")
    return 10 * float(np.log10(float(np.ptp(wanted)) ** 2 / max(error, 1e-20)))
