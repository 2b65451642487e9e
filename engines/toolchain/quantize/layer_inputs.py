"""
What goes into the layers of an ONNX graph while it runs on feeds, and what comes out: ranges to quantise activations
by, and second moments, which say what a rounded weight does to a layer's output. Taken in one pass for all layers, one
feed after the other, as the activations of a single one may take gigabytes.

Knows convolutions, matrix products and Gemm; not what is made of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from engines.bundle.signatures import Array
from engines.toolchain.recipe import Ranges

Feeds = Mapping[str, Array]
Range = tuple[float, float]
Floats = NDArray[np.float32]
SAMPLE = 1 << 20  # numbers that percentiles are taken of: of a whole activation they would be slow to sort
TAIL = 1e-5  # of them, on each side: as onnxruntime's, with which real faces came to 46.2 dB, by extremes to 45.0
ROWS = 8192  # of a layer's input in all, or twice its width: fewer would say little of how its inputs go together


@dataclass
class LayerInputs:
    """
    `ranges`: the lowest and the highest value of each activation by method. "minmax": the extremes of all feeds;
    "percentile": the widest of the feeds' ranges, each without its TAILs. `moments`: by layer, the sum of x x^T over
    rows x of its input, (K, K), in the order of its weight's inputs; none for layers that are no products of it
    (grouped convolutions).
    """

    ranges: dict[Ranges, dict[str, Range]] = field(default_factory=dict)
    moments: dict[str, Floats] = field(default_factory=dict)


def observe(
    model: onnx.ModelProto, layers: Sequence[str], feeds: Sequence[Feeds], methods: Sequence[Ranges], scratch: Path
) -> LayerInputs:
    """Run the graph on the feeds and look at these layers, named as their nodes. `scratch`: a file to write to."""
    nodes = [node for node in model.graph.node if node.name in set(layers)]
    watched = list(dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0])))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {node.name: numpy_helper.to_array(weights[node.input[1]]).shape for node in nodes}
    session, rng = _session_showing(model, watched, scratch), np.random.default_rng(0)
    names = [output.name for output in session.get_outputs()]
    observed = LayerInputs({method: {} for method in methods})
    for feed in feeds:
        values = {**dict(zip(names, session.run(None, dict(feed)), strict=True)), **feed}
        for name in watched:
            _widen(observed, name, values[name])
        for node in nodes:
            rows = _rows(node, shapes[node.name], values[node.input[0]], len(feeds), rng)
            if rows is not None and node.name in observed.moments:
                observed.moments[node.name] += rows.T @ rows
            elif rows is not None:
                observed.moments[node.name] = rows.T @ rows
    return observed


def _session_showing(model: onnx.ModelProto, watched: Sequence[str], path: Path) -> onnxruntime.InferenceSession:
    """Open the graph with these values as outputs, too; unoptimised, as fused nodes have no values between them."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    kind = model.graph.input[0].type.tensor_type.elem_type
    shown.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in watched if name not in there)
    onnx.save(shown, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _widen(observed: LayerInputs, name: str, values: Array) -> None:
    for method, ranges in observed.ranges.items():
        low, high = MEASURES[method](values)
        before = ranges.get(name, (low, high))
        ranges[name] = min(low, before[0]), max(high, before[1])


def _extremes(values: Array) -> Range:
    return float(values.min()), float(values.max())


def _percentiles(values: Array) -> Range:
    sample = values.ravel()[:: max(1, values.size // SAMPLE)]
    tail = min(math.ceil(len(sample) * TAIL), (len(sample) - 1) // 2)
    ordered = np.partition(sample, (tail, len(sample) - 1 - tail))
    return float(ordered[tail]), float(ordered[len(sample) - 1 - tail])


MEASURES = {"minmax": _extremes, "percentile": _percentiles}


def _rows(
    node: onnx.NodeProto, shape: tuple[int, ...], values: Array, feeds: int, rng: np.random.Generator
) -> Floats | None:
    """Return some rows (n, K) of what is multiplied by a weight of this shape; None for what is no such product."""
    width = math.prod(shape[1:]) if node.op_type == "Conv" else shape[-1 if _transposed(node) else 0]
    count = math.ceil(max(ROWS, 2 * width) / feeds)
    if node.op_type == "Conv":
        return _patches(node, shape, values, count, rng)
    if node.op_type in ("MatMul", "Gemm") and len(shape) == 2:
        rows = values.reshape(-1, values.shape[-1])
        return np.asarray(rows[rng.permutation(len(rows))[:count]], dtype=np.float32)
    return None


def _transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _patches(
    node: onnx.NodeProto, shape: tuple[int, ...], values: Array, count: int, rng: np.random.Generator
) -> Floats | None:
    """Return what `count` places of a convolution's output are made of, (count, C * kh * kw)."""
    settings: dict[str, Any] = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if settings.get("group", 1) != 1 or len(shape) != 4 or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    strides, dilations = settings.get("strides", [1, 1]), settings.get("dilations", [1, 1])
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spans = [dilation * (side - 1) for dilation, side in zip(dilations, shape[2:], strict=True)]
    rows, columns = ((padded.shape[2 + i] - spans[i] - 1) // strides[i] + 1 for i in (0, 1))
    places = rng.permutation(len(values) * rows * columns)[:count]
    picture, row, column = np.unravel_index(places, (len(values), rows, columns))
    patches = np.empty((len(places), shape[1], *shape[2:]), dtype=np.float32)
    for i, j in _cells(shape[2], shape[3]):
        y, x = row * strides[0] + i * dilations[0], column * strides[1] + j * dilations[1]
        patches[:, :, i, j] = padded[picture, :, y, x]
    return patches.reshape(len(places), -1)


def _cells(height: int, width: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(height) for j in range(width))
