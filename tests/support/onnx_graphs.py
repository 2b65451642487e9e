"""Small ONNX graphs with weights of a known seed: of convolutions, of products; and feeds. Needs onnx."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = Any
CHANNELS, LAYERS = 16, 5
rng = np.random.default_rng


def convolutions(path: Path, first: Array | None = None) -> Path:
    """x -> Conv + Relu, five times; the names are layer0 .. layer4."""
    nodes, tensors, name = [], [], "x"
    for i in range(LAYERS):
        weight = rng(i).normal(0, 1, (CHANNELS, CHANNELS, 3, 3)) / (CHANNELS * 9) ** 0.5 * 1.4
        weight *= np.geomspace(0.3, 3, CHANNELS)[:, None, None, None]  # channels differ: one scale for all is coarse
        weight = first if i == 0 and first is not None else weight
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        tensors.append(numpy_helper.from_array(np.full(CHANNELS, 0.1, np.float32), f"b{i}"))
        nodes.append(helper.make_node("Conv", [name, f"w{i}", f"b{i}"], [f"c{i}"], f"layer{i}", pads=[1, 1, 1, 1]))
        name = "y" if i == LAYERS - 1 else f"r{i}"
        nodes.append(helper.make_node("Relu", [f"c{i}"], [name], f"relu{i}"))
    return saved(path, nodes, tensors, ["1", CHANNELS, "h", "w"])


def products(path: Path, width: int = 64, kind: str = "MatMul", transposed: bool = False) -> Path:
    """x (n, width) -> two matrix products with a Tanh between."""
    weights = [rng(i).normal(0, 1, (width, width)).astype(np.float32) / width**0.5 for i in range(2)]
    tensors = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    more = {"transB": int(transposed)} if kind == "Gemm" else {}
    nodes = [
        helper.make_node(kind, ["x", "w0"], ["p"], "layer0", **more),
        helper.make_node("Tanh", ["p"], ["t"], "tanh"),
        helper.make_node(kind, ["t", "w1"], ["y"], "layer1", **more),
    ]
    return saved(path, nodes, tensors, ["n", width])


def saved(path: Path, nodes: list[Any], tensors: list[Any], shape: list[Any]) -> Path:
    shape = [int(side) if str(side).isdecimal() else side for side in shape]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def feeds(count: int = 8, *shape: int, scale: float = 1.0) -> list[Mapping[str, Array]]:
    size = shape or (1, CHANNELS, 12, 12)
    return [{"x": (rng(100 + i).normal(0, scale, size)).astype(np.float32)} for i in range(count)]
