# ruff: noqa: E402 (imports follow the check that onnx is here)
"""
No product of a quantised graph overflows on a processor that adds pairs of products in 16 bits: by the largest two
weights of a channel, by arithmetic that saturates as such a processor's does, and by OpenVINO held to its instructions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="reads ONNX graphs")
ort = pytest.importorskip("onnxruntime", reason="runs them")
pytest.importorskip("ml_dtypes", reason="quantises")

from onnx import helper, numpy_helper

from engines.bundle import BUILT_IN, PROOF
from engines.images import read
from engines.roles import from_pixels
from engines.toolchain.quantize import quantize
from engines.toolchain.quantize.saturation import LIMIT, unsigned_layers, worst_pair, worst_pairs
from engines.toolchain.recipe import Treatment
from tests.support.onnx_graphs import LAYERS, convolutions, feeds, products

Array = Any
RESTORER = BUILT_IN / "restorer"
SHIPPED = sorted(BUILT_IN.glob("*/*/model.onnx"))


def test_the_two_largest_weights_of_a_channel_count() -> None:
    weight = np.array([[100, 3, 29], [-70, 5, -60], [127, -128, 0]], dtype=np.int8)
    assert worst_pair(weight[:1], 0) == 129
    assert worst_pair(weight[1:2], 0) == 130, "both negative"
    assert worst_pair(weight[2:], 0) == 128, "of two signs each makes up for the other"
    assert worst_pair(weight, 1) == 227, "along the other axis the channels are columns"
    assert worst_pair(np.array([[127]], dtype=np.int8), 0) == 127, "one alone meets none"


def layer_inputs(model: Any, feed: dict[str, Array]) -> Iterator[tuple[Any, Array, Array]]:
    """Yield the layers that multiply u8 by s8: node, what goes in as u8, and the integers of the weight."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted = [(node, name, makers[node.input[0]].input[0]) for node, name in unsigned_layers(model)]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    for name in dict.fromkeys(name for *_, name in wanted):
        shown.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(None, feed), strict=True))
    for node, weight, source in wanted:
        yield node, values[source], numpy_helper.to_array(constants[weight])


def rows(node: Any, x: Array, weight: Array) -> tuple[Array, Array]:
    """Return a layer's input as rows (n, K) of u8, at some of a convolution's places, and its weight (K, outputs)."""
    if node.op_type != "Conv":
        return x.reshape(-1, x.shape[-1]), weight
    settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    assert settings.get("group", 1) == 1
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))  # its value matters little: any u8 will do
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (2, 3))
    step = max(1, windows.shape[2] * windows.shape[3] // 400)
    some = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, *windows.shape[1:2], *weight.shape[2:])[::step]
    return some, weight


def saturating(x: Array, weight: Array) -> Array:
    """Sum as vpmaddubsw does: u8 * s8, neighbours added in 16 bits that saturate. x (n, K), weight (K, outputs)."""
    if x.shape[1] % 2:
        x, weight = np.pad(x, ((0, 0), (0, 1))), np.pad(weight, ((0, 1), (0, 0)))
    total = np.zeros((len(x), weight.shape[1]), dtype=np.int64)
    wide, factors = x.astype(np.int32), weight.astype(np.int32)
    for i in range(0, x.shape[1], 2):
        pair = wide[:, i, None] * factors[i] + wide[:, i + 1, None] * factors[i + 1]
        total += pair.clip(-32768, 32767)
    return total


def differences(model: Any, feed: dict[str, Array]) -> dict[str, int]:
    """How far each layer is from exact sums, at most, in the two orders that engines lay out channels and cells in."""
    found = {}
    for node, x, weight in layer_inputs(model, feed):
        taken, weight = rows(node, x, weight)
        worst = 0
        for order in ((0, 1, 2), (1, 2, 0)) if weight.ndim == 4 else (None,):
            if order is None:
                a, b = taken, weight
            else:
                a = taken.transpose(0, *(axis + 1 for axis in order)).reshape(len(taken), -1)
                b = weight.transpose(0, *(axis + 1 for axis in order)).reshape(len(weight), -1).T
            exact = a.astype(np.int64) @ b.astype(np.int64)
            worst = max(worst, int(np.abs(saturating(a, b) - exact).max()))
        found[node.name] = worst
    return found


@pytest.mark.parametrize("kind", ["Conv", "MatMul"])
def test_nothing_overflows_in_what_is_quantised(tmp_path: Path, kind: str) -> None:
    source = convolutions(tmp_path / "in.onnx") if kind == "Conv" else products(tmp_path / "in.onnx")
    given = feeds() if kind == "Conv" else feeds(8, 6, 64)
    outcome = quantize(source, tmp_path / "out.onnx", Treatment("static", (kind,)), given, lambda text: None)
    model = onnx.load(tmp_path / "out.onnx")
    pairs = worst_pairs(model)
    assert len(pairs) == outcome.layers and max(pairs.values()) == outcome.worst_pair
    assert 96 < outcome.worst_pair <= LIMIT, "no more, and no less than what is there is used"
    assert set(differences(model, dict(given[0])).values()) == {0}


def test_integers_up_to_127_do_overflow(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    quantize(
        convolutions(tmp_path / "in.onnx"),
        tmp_path / "out.onnx",
        Treatment("static", ("Conv",)),
        feeds(),
        lambda text: None,
    )
    model = onnx.load(tmp_path / "out.onnx")
    for _, name in list(unsigned_layers(model)):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        wide = (numpy_helper.to_array(tensor).astype(np.int16) * 127 // 64).clip(-127, 127).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(wide, name))
    assert max(worst_pairs(model).values()) > LIMIT
    loud = {"x": feeds()[0]["x"] * 3}
    found = differences(model, loud)
    assert len(found) == LAYERS and max(found.values()) > 1000


def test_dynamic_products_do_not_overflow_either(tmp_path: Path) -> None:
    source = products(tmp_path / "in.onnx")
    outcome = quantize(
        source, tmp_path / "out.onnx", Treatment("dynamic", ("MatMul",)), feeds(4, 6, 64), lambda text: None
    )
    assert 0 < outcome.worst_pair <= LIMIT
    assert len(worst_pairs(onnx.load(tmp_path / "out.onnx"))) == 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_what_is_shipped_does_not_overflow(path: Path) -> None:
    pairs = worst_pairs(onnx.load(path, load_external_data=False))
    assert all(pair <= LIMIT for pair in pairs.values())
    assert bool(pairs) == path.parent.name.endswith("-int8")


def face(name: str) -> Array:
    return from_pixels(read(RESTORER / PROOF / name))


def test_the_restorer_that_is_shipped_sums_exactly_on_a_face() -> None:
    model = onnx.load(RESTORER / "restorer-int8" / "model.onnx")
    found = differences(model, {"face": face("2-face.png")})
    assert len(found) > 30 and set(found.values()) == {0}


DRAW = """
import sys
import numpy as np, openvino
core = openvino.Core()
model = core.compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
(result,) = model({"face": np.load(sys.argv[2])}).values()
np.save(sys.argv[3], result)
"""


def test_openvino_restores_alike_without_instructions_for_8_bits(tmp_path: Path) -> None:
    """Where there are none, both are the same. With the integers up to 127 of before it was 39 dB against 44."""
    pytest.importorskip("openvino", reason="compiles the graph")
    np.save(tmp_path / "face.npy", face("2-face.png"))
    results = []
    for isa in ("AVX2", ""):
        out = tmp_path / f"{isa or 'all'}.npy"
        env = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa} if isa else dict(os.environ)
        graph = RESTORER / "restorer-int8" / "model.onnx"
        command = [sys.executable, "-c", DRAW, str(graph), str(tmp_path / "face.npy"), str(out)]
        subprocess.run(command, env=env, check=True, timeout=120)
        results.append(np.load(out))
    held, free = results
    error = float(np.square(held - free).mean())
    assert 10 * np.log10(4 / max(error, 1e-12)) > 60
