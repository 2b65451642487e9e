# ruff: noqa: E402 (imports follow the check that torch is here)
"""Graphs without weights, and what is made of them: integers in truth, near to PyTorch, never whole in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("torch", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds graphs with the toolchain")

import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from engines.bundle.signatures import SIGNATURES
from engines.networks.session import TorchSession
from engines.toolchain.export import LARGE, export_hollow
from engines.toolchain.quantize import activation_ranges, external_data, opened, output_db, output_of
from engines.toolchain.recipe import Treatment

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
WIDTH = 96
OPS = ("Conv", "MatMul", "Gemm")
FEEDS = {"latents": np.random.default_rng(5).standard_normal((1, 8, 10, 12), dtype=np.float32)}


class Drawer(nn.Module):
    """With a decoder's signature: a convolution, a product in tokens whose matrix is used twice, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Conv2d(8, WIDTH, 3, padding=1), nn.LayerNorm(WIDTH)
        self.mix, self.same = nn.Linear(WIDTH, WIDTH, bias=False), nn.LayerNorm(WIDTH)
        self.last = nn.Conv2d(WIDTH, 8, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = torch.relu(self.first(latents))
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        tokens = self.same(tokens + self.mix(torch.tanh(self.mix(tokens))))
        drawn: Tensor = self.last(tokens.transpose(1, 2).unflatten(2, latents.shape[2:]))
        return drawn


class Reader(nn.Module):
    """With a text encoder's signature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed, self.out = nn.Embedding(500, 64), nn.Linear(64, 64)
        self.embed.weight.data *= torch.logspace(-2, 1, 500)[:, None]  # one scale for all rows would be coarse

    def forward(self, ids: Tensor) -> Tensor:
        read: Tensor = self.out(torch.tanh(self.embed(ids)))
        return read


@pytest.fixture(scope="module")
def drawer() -> nn.Module:
    return Drawer().eval().requires_grad_(False).to(torch.bfloat16)


@pytest.fixture(scope="module")
def skeleton(drawer: nn.Module) -> onnx.ModelProto:
    return export_hollow(drawer, "decoder", {"latents": torch.rand(1, 8, 16, 18)})


def write(
    model: onnx.ModelProto, graph: nn.Module, path: Path, bits: int = 8, ops: Any = OPS, ranges: Any = None
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {name: parameter.data for name, parameter in graph.named_parameters()}
    how = Treatment("weights", ops, bits=bits, block=32)  # type: ignore[arg-type]
    external_data.write(copy, weights, path, how, ranges or {})
    onnx.checker.check_model(path, full_check=True)
    return onnx.load(path, load_external_data=False)


def wanted(graph: nn.Module) -> Any:
    return TorchSession(exact(graph), SIGNATURES["decoder"], "").run(FEEDS)["image"]


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_a_hollow_graph_holds_no_large_weight_and_the_network_keeps_its_own(
    drawer: nn.Module, skeleton: onnx.ModelProto
) -> None:
    before = {name: value.clone() for name, value in drawer.state_dict().items()}
    again = export_hollow(drawer, "decoder", {"latents": torch.rand(1, 8, 16, 18)})
    for name, value in drawer.state_dict().items():
        assert value.dtype == torch.bfloat16 and torch.equal(value, before[name])
    for model in (skeleton, again):
        outside = {t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}
        assert outside == {name for name, p in drawer.named_parameters() if p.numel() >= LARGE}
        assert model.ByteSize() < 40_000


def test_small_weights_are_in_it_and_are_not_taken_for_each_other(
    drawer: nn.Module, skeleton: onnx.ModelProto, tmp_path: Path
) -> None:
    """Without quantisation the graph is the network: the two norms and biases are where they belong."""
    write(skeleton, drawer, tmp_path / "float.onnx", ops=())
    assert output_db(output_of(opened(tmp_path / "float.onnx"), FEEDS), wanted(drawer)) > 100


def exact(graph: nn.Module) -> nn.Module:
    """The same weights in float32, the original left alone."""
    copy = Drawer().eval().requires_grad_(False)
    copy.load_state_dict({name: value.float() for name, value in graph.state_dict().items()})
    return copy


@pytest.mark.parametrize("bits, kind, least_db", [(8, TensorProto.INT8, 38), (4, TensorProto.INT4, 20)])
def test_weights_become_integers_and_the_picture_stays(
    drawer: nn.Module, skeleton: onnx.ModelProto, tmp_path: Path, bits: int, kind: int, least_db: float
) -> None:
    model = write(skeleton, drawer, tmp_path / "narrow.onnx", bits)
    told = kinds(model)
    assert told["mix.weight.narrow.integers"] == kind
    assert told["first.weight.narrow.integers"] == TensorProto.INT8  # convolutions have no blocks
    assert not {name for name in told if name.endswith(".weight") and "norm" not in name and "same" not in name}
    numbers = sum(p.numel() for p in drawer.parameters())
    size = (tmp_path / "narrow.onnx.data").stat().st_size
    assert size < 2 * numbers  # and pages between the tensors; float32 would be four times the numbers
    assert output_db(output_of(opened(tmp_path / "narrow.onnx"), FEEDS), wanted(drawer)) > least_db


def test_a_weight_used_twice_is_stored_once(drawer: nn.Module, skeleton: onnx.ModelProto, tmp_path: Path) -> None:
    model = write(skeleton, drawer, tmp_path / "narrow.onnx")
    unpacks = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(unpacks) == 3
    assert sum("mix.weight.narrow" in node.input for node in model.graph.node) == 2
    assert not [node for node in model.graph.node if node.op_type == "Transpose" and "mix" in node.input[0]]


def test_ranges_are_seen_and_used(drawer: nn.Module, skeleton: onnx.ModelProto, tmp_path: Path) -> None:
    layers = [layer.weight for layer in external_data.layers(skeleton, OPS)]
    session = TorchSession(exact(drawer), SIGNATURES["decoder"], "")
    found = activation_ranges.ranges(session, [FEEDS], layers, ("minmax", "percentile"))
    assert set(found["minmax"]) == {"first.weight", "mix.weight", "last.weight"}
    low, high = found["minmax"]["first.weight"]
    assert (low, high) == (FEEDS["latents"].min(), FEEDS["latents"].max())
    inner_low, inner_high = found["percentile"]["first.weight"]
    assert low <= inner_low < inner_high <= high
    model = write(skeleton, drawer, tmp_path / "static.onnx", ranges=found["minmax"])
    rounded = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounded) == 4  # the matrix that is used twice has two inputs
    near = output_db(output_of(opened(tmp_path / "static.onnx"), FEEDS), wanted(drawer))
    assert near > 30
    cut = {name: (low / 4, high / 4) for name, (low, high) in found["minmax"].items()}
    write(skeleton, drawer, tmp_path / "cut.onnx", ranges=cut)
    assert output_db(output_of(opened(tmp_path / "cut.onnx"), FEEDS), wanted(drawer)) < near - 10


def test_a_table_is_looked_up_in_eight_bits(tmp_path: Path) -> None:
    graph = Reader().eval().requires_grad_(False)
    model = export_hollow(graph, "text_encoder", {"ids": torch.arange(9)[None]})
    told = write(model, graph, tmp_path / "reader.onnx", ops=("MatMul", "Gemm", "Gather"))
    assert kinds(told)["embed.weight.narrow.integers"] == TensorProto.INT8
    assert (tmp_path / "reader.onnx.data").stat().st_size < 500 * 64 * 2
    ids = np.array([[0, 3, 250, 499, 7]])
    with torch.inference_mode():
        want = graph(torch.from_numpy(ids)).numpy()
    got = output_of(opened(tmp_path / "reader.onnx"), {"ids": ids})
    for i in range(5):  # the faint rows too
        assert output_db(got[:, i], want[:, i]) > 30


def test_a_table_stays_in_float_where_the_recipe_does_not_name_it(tmp_path: Path) -> None:
    graph = Reader().eval().requires_grad_(False)
    model = export_hollow(graph, "text_encoder", {"ids": torch.arange(9)[None]})
    told = write(model, graph, tmp_path / "reader.onnx", ops=("MatMul", "Gemm"))
    assert kinds(told)["embed.weight"] == TensorProto.FLOAT
