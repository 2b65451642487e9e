"""
From a float32 graph to a quantised one, by onnxruntime.quantization: standard QuantizeLinear and DequantizeLinear
nodes, which ONNX Runtime and OpenVINO both turn into integer kernels; and TensorRT, if activations are signed with
zero in the middle, and biases in float.

What is quantised is found by measuring. Ranges of the activations are taken by several methods and the one that comes
nearest to float32 on held-out feeds is kept. If that is not near enough, every layer is quantised alone, and those that
hurt most stay in float until the bar is met.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import GraphOptimizationLevel as Level
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.bundle.signatures import Array
from engines.toolchain.quantize.weight_only import quantize_weights
from engines.toolchain.recipe import Ranges, Treatment

Feeds = Mapping[str, Array]
METHODS: Mapping[Ranges, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
HISTOGRAM_FEEDS = 8  # methods that keep whole histograms are slow; more changes little
SHARE_LEFT_OUT = 0.5  # of the layers: if that does not help, no bar will be met


@dataclass(frozen=True)
class Outcome:
    """For the report. Decibels are the output's against float32, over its own range, on held-out feeds."""

    quantized: int
    layers: int
    ranges: str = ""
    compared_db: Mapping[str, float] = field(default_factory=dict)
    reached_db: float = 0.0
    in_float: tuple[str, ...] = ()
    in_float_db: Mapping[str, float] = field(
        default_factory=dict
    )  # what each of them reaches when it alone is quantised


def quantize(
    source: Path, target: Path, how: Treatment, feeds: Sequence[Feeds], say: Callable[[str], None] = print
) -> Outcome:
    """
    Quantise the graph in `source`, which holds its weights inside, and write `target`. The last quarter of the feeds
    (one at least) is held out.
    """
    held_out = max(1, len(feeds) // 4)
    calibration, checks = feeds[:-held_out] or feeds, feeds[-held_out:]
    with tempfile.TemporaryDirectory() as folder:
        model = _prepared(source, Path(folder))
        layers = [node.name for node in model.graph.node if node.op_type in how.ops and _has_weights(model, node)]
        wanted = [output_of(opened(source), fed) for fed in checks]
        work = Work(model, how, layers, list(calibration), list(checks), wanted, Path(folder), say)
        outcome, result = work.best()
        onnx.save(result, target)
    return outcome


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
        for name in self.how.ranges:
            ranges[name] = self._calibrated(name)
            compared[name] = self._reached(ranges[name], [])
            self.say(f"ranges by {name}: {compared[name]:.1f} dB")
        return ranges, compared

    def _calibrated(self, name: Ranges) -> TensorsData:
        path = self.folder / "float.onnx"
        onnx.save(self.model, path)
        calibrator = create_calibrator(
            path, list(self.how.ops), str(self.folder / "augmented.onnx"), calibrate_method=METHODS[name]
        )
        stride = 1 if name == "minmax" else max(1, len(self.calibration) // HISTOGRAM_FEEDS)
        for fed in self.calibration[::stride]:  # singly: it keeps all activations of what it is given at once
            calibrator.collect_data(_Reader(iter([dict(fed)])))
        ranges: TensorsData = calibrator.compute_data()
        return ranges

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
        if self.how.quantize == "weights":
            chosen = set(self.layers) - set(in_float)
            return quantize_weights(model, chosen, self.how.bits, self.how.block)
        common: dict[str, Any] = {
            "nodes_to_quantize": [layer for layer in self.layers if layer not in in_float],
            "nodes_to_exclude": in_float,
            "op_types_to_quantize": list(self.how.ops),
        }
        if self.how.quantize == "dynamic":
            quantizer = ONNXQuantizer(
                model, True, False, QuantizationMode.IntegerOps, False, QuantType.QInt8, QuantType.QUInt8, None,
                extra_options={"MatMulConstBOnly": True}, **common,
            )  # fmt: skip
        else:
            symmetric = bool(self.how.tensorrt)
            options = {"MatMulConstBOnly": True, "ActivationSymmetric": symmetric, "QuantizeBias": not symmetric}
            activations = QuantType.QInt8 if symmetric else QuantType.QUInt8
            quantizer = QDQQuantizer(
                model, True, False, QuantType.QInt8, activations, ranges, extra_options=options, **common
            )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
        return result


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
        self.feeds = feeds

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def _prepared(source: Path, folder: Path) -> onnx.ModelProto:
    """Return the graph with constants folded, shapes inferred and every node named."""
    path = folder / "prepared.onnx"
    quant_pre_process(source, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    del model.graph.value_info[:]  # names of folded nodes come again for other things
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    return onnx.shape_inference.infer_shapes(model)


def _has_weights(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    constants = {tensor.name for tensor in model.graph.initializer}
    return len(node.input) > 1 and node.input[1] in constants


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
