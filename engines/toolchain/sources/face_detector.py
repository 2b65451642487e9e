"""
Takes in a face detector that somebody else exported, CenterFace or YuNet: its heads are joined into one list of
candidates in RGB pixels, which is our signature. What the numbers mean is engines/faces/detection.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.signatures import SIGNATURES
from engines.errors import BundleError
from engines.toolchain.sources.onnx_import import checked

YUNET_HEADS = tuple(f"{head}_{stride}" for stride in (8, 16, 32) for head in ("cls", "obj", "bbox", "kps"))
CENTERFACE_CHANNELS = [1, 2, 2, 10]  # heat, size, offset, landmarks
LOOKS_AT_PX = {"centerface": 1600, "yunet": 640}  # YuNet's official export is fixed to this square


@dataclass(frozen=True)
class DetectorKind:
    family: str
    longest_px: int


def recognise(path: Path) -> DetectorKind:
    """Tell which detector the file is. BundleError: it is neither."""
    return _kind(path, _graph(path).graph)


def _graph(path: Path) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as exc:
        raise BundleError(f"{path.name} cannot be read: {exc}", bundle=path.name) from exc


def _kind(path: Path, graph: onnx.GraphProto) -> DetectorKind:
    constants = {tensor.name for tensor in graph.initializer}
    if len([value for value in graph.input if value.name not in constants]) != 1:
        raise BundleError(f"{path.name} does not take one picture", bundle=path.name)
    shapes = [value.type.tensor_type.shape.dim for value in graph.output]
    channels = [dims[1].dim_value for dims in shapes if len(dims) == 4]
    if {value.name for value in graph.output} == set(YUNET_HEADS):
        return DetectorKind("yunet", LOOKS_AT_PX["yunet"])
    if channels == CENTERFACE_CHANNELS and len(graph.output) == len(channels):
        return DetectorKind("centerface", LOOKS_AT_PX["centerface"])
    raise BundleError(f"{path.name} is neither CenterFace nor YuNet", bundle=path.name)


def adopt(source: Path, target: Path) -> None:
    """
    Write the detector under our signature. BundleError: it is neither, or what engines/toolchain/sources/onnx_import.py
    refuses.
    """
    model = _graph(source)
    graph, kind = model.graph, _kind(source, model.graph)
    _only_used_constants(graph)
    _take_pictures(graph, kind)
    heads = _yunet_heads(graph) if kind.family == "yunet" else _centerface_heads(graph)
    graph.node.append(helper.make_node("Concat", heads, ["candidates"], name="all_candidates", axis=1))
    del graph.output[:], graph.value_info[:]
    graph.output.append(helper.make_tensor_value_info("candidates", TensorProto.FLOAT, [1, "n", "K"]))
    for item in (model, graph, *graph.node):
        item.ClearField("doc_string")
    onnx.save(checked(model, source), target)


def _only_used_constants(graph: onnx.GraphProto) -> None:
    """Drop constants that nothing reads, and weights from the inputs: old exporters leave both."""
    used = {name for node in graph.node for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer}]
    for field, values in ((graph.initializer, constants), (graph.input, inputs)):
        del field[:]
        field.extend(values)


def _take_pictures(graph: onnx.GraphProto, kind: DetectorKind) -> None:
    """Give the input our name and RGB; its sides may vary where the network lets them."""
    (wanted,) = SIGNATURES["face_detector"].inputs
    given = graph.input[0].name
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = wanted if name == given else name
    sides: list[int | str] = [kind.longest_px] * 2 if kind.family == "yunet" else ["H", "W"]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(wanted, TensorProto.FLOAT, [1, 3, *sides]))
    if kind.family == "yunet":  # learned from OpenCV's BGR
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], dtype=np.int64), "bgr"))
        for node in graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = "picture_bgr" if name == wanted else name
        graph.node.insert(0, helper.make_node("Gather", [wanted, "bgr"], ["picture_bgr"], name="to_bgr", axis=1))


def _centerface_heads(graph: onnx.GraphProto) -> list[str]:
    """Join the maps as rows; return their name. (1, 15, h, w) -> (1, h * w, 15)"""
    names = [value.name for value in graph.output]
    graph.initializer.append(numpy_helper.from_array(np.array([1, 15, -1], dtype=np.int64), "flat"))
    graph.node.extend(
        [
            helper.make_node("Concat", names, ["maps"], name="maps", axis=1),
            helper.make_node("Reshape", ["maps", "flat"], ["columns"], name="columns"),
            helper.make_node("Transpose", ["columns"], ["rows"], name="rows", perm=[0, 2, 1]),
        ]
    )
    return ["rows"]


def _yunet_heads(graph: onnx.GraphProto) -> list[str]:
    """
    Join the four heads of each stride; return the names of the rows. (1, n, 1), (1, n, 1), (1, n, 4), (1, n, 10) ->
    (1, n, 16)
    """
    heads = []
    for stride in (8, 16, 32):
        names = [f"{head}_{stride}" for head in ("cls", "obj", "bbox", "kps")]
        graph.node.append(helper.make_node("Concat", names, [f"rows_{stride}"], name=f"rows_{stride}", axis=2))
        heads.append(f"rows_{stride}")
    return heads
