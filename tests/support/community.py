"""Restorers as the community exports them. Needs onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def community(path: Path, shape: tuple[Any, ...] = (1, 3, 64, 64), out: tuple[Any, ...] | None = None) -> Path:
    """An export as the community makes them: other names, weights among the inputs, notes on somebody's machine."""
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5])
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    weight = helper.make_tensor_value_info("scale", TensorProto.FLOAT, [])
    result = helper.make_tensor_value_info("1280", TensorProto.FLOAT, out or shape)
    nodes = [helper.make_node("Mul", ["input", "scale"], ["m"], doc_string="/home/somebody/export.py")]
    nodes.append(helper.make_node("Tanh", ["m"], ["1280"]))
    graph = helper.make_graph(nodes, "g", [given, weight], [result], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path
