# ruff: noqa: E402 (imports follow the check that onnx is here)
"""Graphs that say where they compute in half: there and nowhere else, near to float32, and without overflow."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="changes ONNX graphs")
pytest.importorskip("onnxruntime", reason="measures with it")
pytest.importorskip("ml_dtypes", reason="types of the toolchain")

from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engines.bundle import Bundle
from engines.errors import EngineError
from engines.toolchain.quantize import fp16 as module
from engines.toolchain.quantize import quantize
from engines.toolchain.quantize.fp16 import Fp16Report, peaks, to_fp16
from engines.toolchain.recipe import Treatment
from tests.support.onnx_graphs import convolutions, feeds
from tests.support.role_feeds import feeds_of

Array = Any
FULL, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def graph(path: Path, nodes: list[Any], weights: Mapping[str, Array], shape: list[Any]) -> Path:
    """x -> y"""
    values = [helper.make_tensor_value_info(name, FULL, shape) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def quiet(text: str) -> None: ...


def halved(source: Path, *given: Mapping[str, Array]) -> tuple[Path, Fp16Report]:
    target = source.with_name("half.onnx")
    return target, to_fp16(source, target, list(given), quiet)


def kinds(path: Path) -> dict[str, tuple[str, int]]:
    """What each node is, and the type of what it gives."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    values = [*model.graph.value_info, *model.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {node.name: (node.op_type, types[node.output[0]]) for node in model.graph.node}


def difference(source: Path, target: Path, given: Mapping[str, Array]) -> float:
    """By ONNX's own reference, which leaves out no rounding."""
    (wanted,), (found,) = (ReferenceEvaluator(onnx.load(path)).run(None, dict(given)) for path in (source, target))
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


rng = np.random.default_rng


def block(path: Path, epsilon: float = 1e-6) -> Path:
    """x (n, 8): a product, a norm over it, another product, and a residual."""
    weights = {name: rng(i).normal(0, 0.5, (8, 8)).astype(np.float32) for i, name in enumerate(("w0", "w1"))}
    constants = {"epsilon": np.float32(epsilon), "axes": np.array([1]), "two": np.float32(2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["p"], "first"),
        helper.make_node("Relu", ["p"], ["r"], "relu"),
        helper.make_node("Mul", ["r", "r"], ["s"], "square"),
        helper.make_node("ReduceMean", ["s", "axes"], ["m"], "mean"),
        helper.make_node("Add", ["m", "epsilon"], ["e"], "add_epsilon"),
        helper.make_node("Sqrt", ["e"], ["q"], "sqrt"),
        helper.make_node("Div", ["r", "q"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w1"], ["o"], "second"),
        helper.make_node("Mul", ["o", "two"], ["d"], "double"),
        helper.make_node("Add", ["d", "n"], ["y"], "residual"),
    ]
    return graph(path, nodes, {**weights, **constants}, ["n", 8])


X = {"x": rng(7).normal(0, 1, (5, 8)).astype(np.float32)}


def test_products_are_half_norms_are_not_and_the_rest_follows(tmp_path: Path) -> None:
    source = block(tmp_path / "in.onnx")
    path, told = halved(source, X)
    found = {name: kind for name, (_, kind) in kinds(path).items()}
    half = {name for name, kind in found.items() if kind == HALF and not name.endswith(".cast")}
    assert half == {"first", "relu", "square", "second", "double"} and told.half == len(half)
    assert {"mean", "add_epsilon", "sqrt", "norm", "residual"} <= {name for name, kind in found.items() if kind == FULL}
    assert 1e-5 < difference(source, path, X) < 5e-3, "it rounds, and no more than half does"


def test_what_goes_in_and_comes_out_stays_float32(tmp_path: Path) -> None:
    path, _ = halved(convolutions(tmp_path / "in.onnx"), *feeds(1))
    for value in (*onnx.load(path).graph.input, *onnx.load(path).graph.output):
        assert value.type.tensor_type.elem_type == FULL


def test_a_chain_is_cast_once_at_each_end_and_weighs_half(tmp_path: Path) -> None:
    source = convolutions(tmp_path / "in.onnx")
    path, _ = halved(source, *feeds(1))
    assert [kind for kind, _ in kinds(path).values()].count("Cast") == 2
    assert path.stat().st_size < 0.6 * source.stat().st_size


def test_a_layer_beyond_halfs_range_stays_in_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a decoder's, whose convolutions reach 70000. The graph does not tell: it is measured."""
    weights = {"loud": rng(0).normal(0, 1.2e4, (8, 8)), "quiet": rng(1).normal(0, 1, (8, 8)), "calm": np.array(1e-4)}
    nodes = [
        helper.make_node("MatMul", ["x", "quiet"], ["a"], "before"),
        helper.make_node("MatMul", ["a", "loud"], ["b"], "beyond"),
        helper.make_node("Mul", ["b", "calm"], ["c"], "calm"),
        helper.make_node("MatMul", ["c", "quiet"], ["y"], "after"),
    ]
    floats = {name: array.astype(np.float32) for name, array in weights.items()}
    source = graph(tmp_path / "in.onnx", nodes, floats, ["n", 8])
    assert peaks(source, [X])["b"] > 65504
    path, told = halved(source, X)
    found = kinds(path)
    assert told.too_large == ("beyond",)
    assert [found[name][1] for name in ("before", "beyond", "calm", "after")] == [HALF, FULL, FULL, HALF]
    assert difference(source, path, X) < 5e-3
    monkeypatch.setattr(module, "peaks", lambda source, given: {})  # unmeasured, it is infinity
    path, told = halved(source, X)
    with pytest.warns(RuntimeWarning, match="overflow|invalid"):
        assert not np.isfinite(difference(source, path, X))


def test_the_built_in_decoder_is_such_a_one(builtin: Path, tmp_path: Path) -> None:
    """Four of its convolutions."""
    shutil.copytree(builtin / "portrait" / "decoder", tmp_path / "decoder")
    latents = {"latents": rng(0).uniform(-1, 1, (1, 16, 32, 32)).astype(np.float32)}
    _, told = halved(tmp_path / "decoder" / "model.onnx", latents)
    assert len(told.too_large) == 4 and told.half > 40 and told.difference < 5e-3


def test_what_comes_to_no_numbers_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "decoder").mkdir()
    source = block(tmp_path / "decoder" / "in.onnx")
    with pytest.raises(EngineError, match="decoder: half precision makes no numbers of it"):
        halved(source, {"x": np.full((5, 8), 3e38, np.float32)})


def test_peaks_are_the_largest_magnitudes_over_all_feeds(tmp_path: Path) -> None:
    source = block(tmp_path / "in.onnx")
    small, large = {"x": X["x"] * 0.1}, {"x": -X["x"]}
    found = peaks(source, [small, large])
    weight = numpy_helper.to_array(onnx.load(source).graph.initializer[0])
    assert found["p"] == pytest.approx(np.abs(X["x"] @ weight).max(), rel=1e-5)
    assert not (tmp_path / "measured.onnx").exists()


def test_what_half_cannot_hold_keeps_its_node_in_float(tmp_path: Path) -> None:
    """A demodulation's 1e-8 would be nothing, a mask's -3e38 minus infinity."""
    constants = {"tiny": np.float32(1e-8), "mask": np.float32(-3.4e38), "one": np.float32(1), "w": np.eye(8, dtype="f")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
        helper.make_node("Add", ["p", "tiny"], ["a"], "tiny"),
        helper.make_node("Max", ["p", "mask"], ["b"], "mask"),
        helper.make_node("Add", ["p", "one"], ["c"], "one"),
        helper.make_node("Sum", ["a", "b", "c"], ["y"], "sum"),
    ]
    path, _ = halved(graph(tmp_path / "in.onnx", nodes, constants, ["n", 8]), X)
    found = kinds(path)
    assert [found[name][1] for name in ("product", "tiny", "mask", "one")] == [HALF, FULL, FULL, HALF]


def test_the_scales_of_a_resize_are_no_data(tmp_path: Path) -> None:
    constants = {"w": rng(0).normal(size=(2, 2, 1, 1)).astype("f"), "scales": np.array([1, 1, 2, 2], "f")}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["p"], "conv"),
        helper.make_node("Resize", ["p", "", "scales"], ["r"], "resize", mode="nearest"),
        helper.make_node("Conv", ["r", "w"], ["y"], "again"),
    ]
    source = graph(tmp_path / "in.onnx", nodes, constants, [1, 2, "h", "w"])
    path, _ = halved(source, {"x": rng(1).normal(size=(1, 2, 3, 4)).astype("f")})
    assert kinds(path)["resize"] == ("Resize", HALF)
    assert {t.name: t.data_type for t in onnx.load(path).graph.initializer}["scales"] == FULL


def test_a_graph_within_a_graph_is_refused(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "i", [], [helper.make_tensor_value_info("z", FULL, None)]
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], "choice", then_branch=inner, else_branch=inner)]
    source = graph(tmp_path / "in.onnx", nodes, {"yes": np.array(True)}, ["n", 8])
    with pytest.raises(EngineError, match="choice holds a graph"):
        halved(source, X)


@pytest.fixture
def int8(tmp_path: Path) -> Path:
    source = convolutions(tmp_path / "in.onnx")
    quantize(source, tmp_path / "int8.onnx", Treatment("static", ("Conv",), tensorrt="fp16"), feeds(), quiet)
    return tmp_path / "int8.onnx"


def test_integers_between_halves(int8: Path) -> None:
    """What feeds an integer and what comes of it has one type with its scale, or no engine takes it."""
    path, _ = halved(int8, *feeds(2))
    model = onnx.load(path)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    scales = {types[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert scales == {HALF}
    assert all(kind == HALF for op, kind in kinds(path).values() if op == "Conv")
    assert difference(int8, path, feeds()[-1]) < 0.05


def test_a_scale_that_half_cannot_hold_keeps_its_layer_in_float(int8: Path) -> None:
    """Else the integers of a layer would be multiplied by something else than what they were divided by."""
    model = onnx.load(int8)
    made = {node.output[0]: node for node in model.graph.node}
    conv = next(node for node in model.graph.node if node.name.startswith("layer2"))
    scale = made[conv.input[1]].input[1]
    for tensor in model.graph.initializer:
        if tensor.name == scale:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e-6), scale))
    onnx.save(model, int8)
    path, _ = halved(int8, *feeds(1))
    found = kinds(path)
    assert [found[f"layer{i}"][1] for i in range(4)] == [HALF, HALF, FULL, HALF]


def test_weights_that_are_shared_are_shared_by_this_graph_too(built: Path, tmp_path: Path) -> None:
    """The bytes of the checkpoint, as they lie there: no second copy, and no cast of what is half already."""
    shutil.copytree(built / "portrait" / "denoiser", tmp_path / "denoiser")
    source = tmp_path / "denoiser" / "model.onnx"
    path, told = halved(source, feeds_of("denoiser"))
    assert told.half > 50 and path.stat().st_size < source.stat().st_size
    model = onnx.load(path, load_external_data=False)
    outside = {t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast"]
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Transpose")]
    direct = [name for node in products for name in node.input if name in outside]
    assert len(direct) > 20 and not set(direct) & set(casts)


def test_every_part_of_the_tiny_bundles_can_be_halved(built: Path, tmp_path: Path) -> None:
    for name in ("portrait", "restorer"):
        shutil.copytree(built / name, tmp_path / name)
        for role in sorted(Bundle.open(tmp_path / name).roles):
            source = tmp_path / name / role / "model.onnx"
            path, told = halved(source, feeds_of(role))
            products = [kind for op, kind in kinds(path).values() if op in module.PRODUCTS]
            assert products.count(HALF) > 0.5 * len(products) and told.difference < 0.01, role
