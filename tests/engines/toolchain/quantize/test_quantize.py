# ruff: noqa: E402 (imports follow the check that onnx is here)
"""Quantised graphs: integers in truth, near to float32 in truth, and the layers that cannot bear it are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="quantises ONNX graphs")
ort = pytest.importorskip("onnxruntime", reason="quantises with ONNX Runtime")
pytest.importorskip("ml_dtypes", reason="four-bit integers")

from onnx import numpy_helper

from engines.toolchain.quantize import Outcome, quantize
from engines.toolchain.recipe import Treatment
from tests.support.onnx_graphs import CHANNELS, LAYERS, convolutions, feeds, products, rng

Array = Any
STATIC = Treatment("static", ("Conv",))


def run(path: Path, feed: Mapping[str, Array]) -> Array:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, dict(feed))[0]


def db(path: Path, source: Path, checks: Sequence[Mapping[str, Array]]) -> float:
    """Signal to noise over the range of the output, the worst of all feeds."""
    found = []
    for one in checks:
        result, wanted = run(path, one), run(source, one)
        found.append(10 * np.log10(float(np.ptp(wanted)) ** 2 / np.square(result - wanted).mean()))
    return float(min(found))


def quiet(text: str) -> None: ...


def made(tmp_path: Path, source: Path, how: Treatment, given: Sequence[Mapping[str, Array]]) -> tuple[Path, Outcome]:
    outcome = quantize(source, tmp_path / "out.onnx", how, given, quiet)
    return tmp_path / "out.onnx", outcome


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def initializers(path: Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_int8_is_near_to_float_and_in_truth_smaller(tmp_path: Path) -> None:
    source = convolutions(tmp_path / "in.onnx")
    path, outcome = made(tmp_path, source, STATIC, feeds())
    assert (outcome.quantized, outcome.layers, outcome.in_float) == (LAYERS, LAYERS, ())
    assert path.stat().st_size < 0.5 * source.stat().st_size
    reached = db(path, source, feeds()[-2:])
    assert reached > 30 and reached == pytest.approx(outcome.reached_db, abs=0.06), "the report says what is so"
    assert db(path, source, feeds()[:1]) < 90, "or nothing was rounded"


@pytest.mark.parametrize("how", [STATIC, Treatment("weights", ("Conv",))])
def test_what_is_written_is_valid_onnx(tmp_path: Path, how: Treatment) -> None:
    path, _ = made(tmp_path, convolutions(tmp_path / "in.onnx"), how, feeds())
    onnx.checker.check_model(path, full_check=True)


def test_activations_are_integers_and_weights_have_a_scale_for_each_channel(tmp_path: Path) -> None:
    path, _ = made(tmp_path, convolutions(tmp_path / "in.onnx"), STATIC, feeds())
    assert kinds(path).count("QuantizeLinear") >= LAYERS
    constants, graph = initializers(path), onnx.load(path).graph
    weights = [array for array in constants.values() if array.shape == (CHANNELS, CHANNELS, 3, 3)]
    assert len(weights) == LAYERS and {array.dtype for array in weights} == {np.dtype(np.int8)}
    makers = {node.output[0]: node for node in graph.node}
    for node in (node for node in graph.node if node.op_type == "Conv"):
        activation, weight = (makers[name] for name in node.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert constants[weight.input[1]].shape == (CHANNELS,) and constants[activation.input[1]].shape == ()
        assert len(set(constants[weight.input[1]])) == CHANNELS


@pytest.mark.parametrize("kind", ["Conv", "MatMul"])
def test_what_is_for_tensorrt_has_no_zero_points_and_its_biases_are_float(tmp_path: Path, kind: str) -> None:
    """Its integers are signed and symmetric; a bias in 32 bits it does not know."""
    source = convolutions(tmp_path / "in.onnx") if kind == "Conv" else products(tmp_path / "in.onnx")
    given = feeds() if kind == "Conv" else feeds(8, 6, 64)
    path, outcome = made(tmp_path, source, Treatment("static", (kind,), tensorrt="fp16"), given)
    constants, model = initializers(path), onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) > 5
    for node in nodes:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()
        assert constants[node.input[1]].dtype == np.float32
    for node in (node for node in model.graph.node if node.op_type == kind):
        assert node.input[2:] == [] or constants[node.input[2]].dtype == np.float32
    assert outcome.reached_db > 30
    assert outcome.reached_db == pytest.approx(db(path, source, given[-2:]), abs=0.1)


def test_a_quantised_graph_takes_other_sizes_too(tmp_path: Path) -> None:
    source = convolutions(tmp_path / "in.onnx")
    path, _ = made(tmp_path, source, STATIC, feeds())
    assert db(path, source, feeds(1, 1, CHANNELS, 7, 30)) > 25


def test_openvino_runs_the_same_graph(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="compiles the quantised graph")
    source = convolutions(tmp_path / "in.onnx")
    path, _ = made(tmp_path, source, STATIC, feeds())
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (result,) = compiled(dict(feeds()[-1])).values()
    wanted = run(source, feeds()[-1])
    assert 10 * np.log10(np.ptp(wanted) ** 2 / np.square(result - wanted).mean()) > 30


def fragile() -> tuple[Array, list[Mapping[str, Array]]]:
    """
    A first layer that ignores its last channel, and feeds whose last channel is a thousand times the others: with one
    scale for all of its input, nothing of what it looks at is left in eight bits.
    """
    weight = rng(9).normal(0, 1, (CHANNELS, CHANNELS, 3, 3)) / (CHANNELS * 9) ** 0.5 * 1.4
    weight[:, -1] = 0
    given = feeds()
    for one in given:
        one["x"][:, -1] *= 1000
    return weight, given


def test_a_sensitive_layer_is_found_and_left_in_float(tmp_path: Path) -> None:
    weight, given = fragile()
    source = convolutions(tmp_path / "in.onnx", weight)
    careless, outcome = made(tmp_path, source, STATIC, given)
    assert outcome.reached_db < 20 and outcome.in_float == (), "without a bar nobody looks"
    path, outcome = made(tmp_path, source, Treatment("static", ("Conv",), bar_db=28), given)
    assert outcome.in_float == ("layer0",) and (outcome.quantized, outcome.layers) == (LAYERS - 1, LAYERS)
    assert outcome.in_float_db["layer0"] < 20 < 28 <= outcome.reached_db
    assert db(path, source, given[-2:]) == pytest.approx(outcome.reached_db, abs=0.06)
    dtypes = [array.dtype for array in initializers(path).values() if array.ndim == 4]
    assert sorted(map(str, dtypes)) == ["float32", *["int8"] * (LAYERS - 1)]


def test_a_bar_that_cannot_be_met_leaves_no_more_than_half_in_float(tmp_path: Path) -> None:
    path, outcome = made(
        tmp_path, convolutions(tmp_path / "in.onnx"), Treatment("static", ("Conv",), bar_db=200), feeds()
    )
    assert 0 < len(outcome.in_float) <= LAYERS // 2 and outcome.reached_db < 200
    assert kinds(path).count("QuantizeLinear") > 0


ALL = ("minmax", "percentile")


def test_every_way_to_take_ranges_is_tried_and_the_best_is_kept(tmp_path: Path) -> None:
    source = convolutions(tmp_path / "in.onnx")
    said: list[str] = []
    how = Treatment("static", ("Conv",), ranges=ALL)
    outcome = quantize(source, tmp_path / "out.onnx", how, feeds(), said.append)
    assert list(outcome.compared_db) == list(ALL) and len(set(outcome.compared_db.values())) > 1
    assert outcome.compared_db[outcome.ranges] == max(outcome.compared_db.values()) == outcome.reached_db
    assert all(any(f"ranges by {name}" in line for line in said) for name in ALL)
    for name in ALL:  # each alone reaches what was said of it
        alone = quantize(
            source, tmp_path / "alone.onnx", Treatment("static", ("Conv",), ranges=(name,)), feeds(), quiet
        )
        assert alone.reached_db == pytest.approx(outcome.compared_db[name], abs=0.11)


def test_a_rare_outlier_makes_percentile_win(tmp_path: Path) -> None:
    """Else the comparison would be a constant with a story. The outlier lies where the first layer does not look."""
    weight, _ = fragile()
    source, how = (
        convolutions(tmp_path / "in.onnx", weight),
        Treatment("static", ("Conv",), ranges=("minmax", "percentile")),
    )
    given = feeds(8, 1, CHANNELS, 40, 40)
    given[2]["x"][0, -1, 0, 0] = 1000  # one of those that ranges are taken from
    outcome = quantize(source, tmp_path / "out.onnx", how, given, quiet)
    assert outcome.ranges == "percentile" and outcome.compared_db["percentile"] > outcome.compared_db["minmax"] + 6


def test_what_is_held_out_is_not_calibrated_with(tmp_path: Path) -> None:
    """Figures from what the ranges were taken from would flatter."""
    source, given, loud = convolutions(tmp_path / "in.onnx"), feeds(8), feeds(2, scale=30)
    _, outcome = made(tmp_path, source, STATIC, [*given[:6], *loud])
    assert outcome.reached_db < 20
    _, outcome = made(tmp_path, source, STATIC, [*loud, *given[:4], *loud])
    assert outcome.reached_db > 25, "the same, once the ranges know of it"


def test_one_feed_is_enough_to_work_with(tmp_path: Path) -> None:
    _, outcome = made(tmp_path, convolutions(tmp_path / "in.onnx"), STATIC, feeds(1))
    assert outcome.reached_db > 30


@pytest.mark.parametrize(("kind", "transposed"), [("MatMul", False), ("Gemm", False), ("Gemm", True)])
@pytest.mark.parametrize(("bits", "least_db", "share"), [(8, 45, 0.35), (4, 22, 0.25)])
def test_weights_alone_in_few_bits(
    tmp_path: Path, kind: str, transposed: bool, bits: int, least_db: float, share: float
) -> None:
    source = products(tmp_path / "in.onnx", 64, kind, transposed)
    how = Treatment("weights", (kind,), bits=bits, block=32)  # type: ignore[arg-type]
    path, outcome = made(tmp_path, source, how, feeds(4, 6, 64))
    assert outcome.quantized == 2 and outcome.reached_db > least_db
    assert db(path, source, feeds(4, 6, 64)) == pytest.approx(outcome.reached_db, abs=3)
    assert "QuantizeLinear" not in kinds(path), "arithmetic stays in float"
    assert kinds(path).count("DequantizeLinear") == 2
    assert path.stat().st_size < share * source.stat().st_size + 600
    dtypes = {array.dtype.name for name, array in initializers(path).items() if array.shape == (64, 64)}
    assert dtypes == {f"int{bits}"}


@pytest.mark.parametrize("transposed", [False, True])
def test_four_bits_have_a_scale_for_each_block_of_inputs(tmp_path: Path, transposed: bool) -> None:
    """And the integers times their scales are the weights, to half a level."""
    source = products(tmp_path / "in.onnx", 64, "Gemm", transposed)
    path, _ = made(tmp_path, source, Treatment("weights", ("Gemm",), bits=4, block=16), feeds(2, 6, 64))
    weights, constants = initializers(source), initializers(path)
    axis = 1 if transposed else 0  # of the inputs
    for node in (node for node in onnx.load(path).graph.node if node.op_type == "DequantizeLinear"):
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        assert attributes == {"axis": axis, "block_size": 16}
        integers, scale = (constants[name] for name in node.input[:2])
        assert scale.shape == ((64, 4) if transposed else (4, 64))
        spread = np.repeat(scale, 16, axis)
        assert np.abs(integers.astype(np.float32)).max() <= 7
        error = np.abs(integers.astype(np.float32) * spread - weights[node.output[0]])
        assert (error <= spread * 0.5001).all()


def test_a_width_that_blocks_do_not_divide_has_a_scale_for_each_channel(tmp_path: Path) -> None:
    source = products(tmp_path / "in.onnx", 50)
    path, outcome = made(tmp_path, source, Treatment("weights", ("MatMul",), bits=4, block=32), feeds(2, 6, 50))
    scales = [array for array in initializers(path).values() if array.shape == (50,)]
    assert len(scales) == 2 and outcome.reached_db > 15


def test_weights_of_convolutions_in_eight_bits(tmp_path: Path) -> None:
    source = convolutions(tmp_path / "in.onnx")
    path, outcome = made(tmp_path, source, Treatment("weights", ("Conv",)), feeds(4))
    assert outcome.reached_db > 38 and outcome.quantized == LAYERS
    assert path.stat().st_size < 0.4 * source.stat().st_size
    scales = [array for array in initializers(path).values() if array.shape == (CHANNELS,) and array.min() != 0.1]
    assert len(scales) >= LAYERS


def test_dynamic_quantises_products_at_run_time(tmp_path: Path) -> None:
    source = products(tmp_path / "in.onnx")
    path, outcome = made(tmp_path, source, Treatment("dynamic", ("MatMul",)), feeds(4, 6, 64))
    assert kinds(path).count("MatMulInteger") == 2 and "DynamicQuantizeLinear" in kinds(path)
    assert outcome.reached_db > 28 and path.stat().st_size < 0.4 * source.stat().st_size


def test_a_graph_without_such_layers_says_so(tmp_path: Path) -> None:
    _, outcome = made(tmp_path, products(tmp_path / "in.onnx"), STATIC, feeds(2, 6, 64))
    assert (outcome.quantized, outcome.layers) == (0, 0)


def test_layers_that_only_read_and_write_stay_in_float(tmp_path: Path) -> None:
    """A blur of each channel by itself has 9 products a number, the way to a picture 3 channels."""
    weights = {
        "blur": rng(1).normal(0, 1, (CHANNELS, 1, 3, 3)),
        "mix": rng(2).normal(0, 1, (CHANNELS, CHANNELS, 3, 3)),
        "picture": rng(3).normal(0, 1, (3, CHANNELS, 3, 3)),
    }
    nodes, name = [], "x"
    for layer in weights:
        groups = {"group": CHANNELS} if layer == "blur" else {}
        out = "y" if layer == "picture" else f"{layer}.out"
        nodes.append(onnx.helper.make_node("Conv", [name, f"{layer}.w"], [out], layer, pads=[1, 1, 1, 1], **groups))
        name = out
    tensors = [numpy_helper.from_array(array.astype(np.float32), f"{layer}.w") for layer, array in weights.items()]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, 12, 12])
        for name, channels in (("x", CHANNELS), ("y", 3))
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "in.onnx")
    path, outcome = made(tmp_path, tmp_path / "in.onnx", STATIC, feeds())
    assert (outcome.quantized, outcome.layers) == (1, 1)
    dtypes = {array.shape: array.dtype.name for array in initializers(path).values() if array.ndim == 4}
    assert dtypes[CHANNELS, CHANNELS, 3, 3] == "int8"
    assert dtypes[CHANNELS, 1, 3, 3] == dtypes[3, CHANNELS, 3, 3] == "float32"


def test_where_no_layer_is_worth_it_none_is_quantised(tmp_path: Path) -> None:
    """No names would mean all to the quantizer, without ranges to do it by."""
    source = products(tmp_path / "in.onnx", 16)
    path, outcome = made(tmp_path, source, Treatment("static", ("MatMul",)), feeds(4, 6, 16))
    assert (outcome.quantized, outcome.layers, outcome.worst_pair) == (0, 0, 0)
    (feed,) = feeds(1, 6, 16)
    assert "QuantizeLinear" not in kinds(path) and (run(path, feed) == run(source, feed)).all()
