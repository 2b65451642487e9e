# ruff: noqa: E402 (imports follow the check that onnx is here)
"""What is seen of a graph's layers is what goes through them: ranges, and moments in the order of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="reads ONNX graphs")
ort = pytest.importorskip("onnxruntime", reason="runs them")

from onnx import TensorProto, helper, numpy_helper

from engines.toolchain.quantize import layer_inputs
from engines.toolchain.quantize.layer_inputs import observe
from tests.support.onnx_graphs import CHANNELS, LAYERS, convolutions, feeds, products

Array = Any


def graph_of(node: Any, weight: Array, shape: list[int], out: list[int | None]) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("y", out))]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 2, 0, 1]},
    {"strides": [2, 1], "pads": [1, 1, 1, 1]},
    {"dilations": [2, 3]},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_moments_say_how_large_a_convolutions_output_is(tmp_path: Path, settings: dict[str, Any]) -> None:
    """w^T (sum of x x^T) w is the sum of the output's squares: of a bent order, stride or padding it would not be."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (5, 4, 3, 2)).astype(np.float32)
    model = graph_of(
        helper.make_node("Conv", ["x", "w"], ["y"], "layer", **settings), weight, [1, 4, 12, 11], [None] * 4
    )
    feed = {"x": rng.normal(0, 1, (1, 4, 12, 11)).astype(np.float32)}
    observed = observe(model, ["layer"], [feed], ["minmax"], tmp_path / "shown.onnx")
    (output,) = ort.InferenceSession(model.SerializeToString()).run(None, feed)
    flat = weight.reshape(5, -1)
    squares = np.einsum("ok,kl,ol->o", flat, observed.moments["layer"], flat)
    np.testing.assert_allclose(squares, np.square(output).sum((0, 2, 3)), rtol=1e-4)
    assert observed.ranges["minmax"]["y"] == pytest.approx((output.min(), output.max()))
    assert observed.ranges["minmax"]["x"] == pytest.approx((feed["x"].min(), feed["x"].max()))


@pytest.mark.parametrize(("kind", "transposed"), [("MatMul", 0), ("Gemm", 0), ("Gemm", 1)])
def test_moments_of_products(tmp_path: Path, kind: str, transposed: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (6, 9)).astype(np.float32)
    more = {"transB": transposed} if kind == "Gemm" else {}
    width = 9 if transposed else 6
    model = graph_of(helper.make_node(kind, ["x", "w"], ["y"], "layer", **more), weight, [7, width], [None] * 2)
    feed = {"x": rng.normal(0, 1, (7, width)).astype(np.float32)}
    observed = observe(model, ["layer"], [feed], ["minmax"], tmp_path / "shown.onnx")
    np.testing.assert_allclose(observed.moments["layer"], feed["x"].T @ feed["x"], rtol=1e-5)


def test_a_grouped_convolution_has_ranges_and_no_moments(tmp_path: Path) -> None:
    weight = np.ones((4, 1, 3, 3), dtype=np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "layer", group=4)
    feed = {"x": np.ones((1, 4, 5, 5), dtype=np.float32)}
    observed = observe(graph_of(node, weight, [1, 4, 5, 5], [None] * 4), ["layer"], [feed], ["minmax"], tmp_path / "s")
    assert observed.moments == {} and observed.ranges["minmax"]["y"] == (9, 9)


def test_ranges_hold_all_feeds_and_all_layers(tmp_path: Path) -> None:
    model = onnx.load(convolutions(tmp_path / "in.onnx"))
    given = [*feeds(2), *feeds(1, scale=30)]
    layers = [f"layer{i}" for i in range(LAYERS)]
    observed = observe(model, layers, given, ["minmax", "percentile"], tmp_path / "shown.onnx")
    assert set(observed.moments) == set(layers) and observed.moments["layer0"].shape == (CHANNELS * 9,) * 2
    assert len(observed.ranges["minmax"]) == 2 * LAYERS, "what goes in, and what comes out"
    low, high = observed.ranges["minmax"]["x"]
    assert low == min(feed["x"].min() for feed in given) and high == max(feed["x"].max() for feed in given)
    assert all(
        observed.ranges["percentile"][name][1] < high for name, (_, high) in observed.ranges["minmax"].items()
    ), "the very largest is left out"


def test_of_large_layers_some_places_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a photo of 512 px would be copied nine times for each of its convolutions."""
    monkeypatch.setattr(layer_inputs, "ROWS", 100)
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (5, 3, 3, 3)).astype(np.float32)
    model = graph_of(helper.make_node("Conv", ["x", "w"], ["y"], "layer"), weight, [1, 3, 64, 64], [None] * 4)
    given = [{"x": rng.normal(0, 1, (1, 3, 64, 64)).astype(np.float32)} for _ in range(2)]
    observed = observe(model, ["layer"], given, ["minmax"], tmp_path / "shown.onnx")
    assert 80 < np.diag(observed.moments["layer"]).mean() < 120, "a hundred rows of variance 1"


def test_products_of_several_axes(tmp_path: Path) -> None:
    model = onnx.load(products(tmp_path / "in.onnx", 16))
    observed = observe(model, ["layer0", "layer1"], feeds(2, 6, 16), ["minmax"], tmp_path / "shown.onnx")
    assert observed.moments["layer1"].shape == (16, 16)
