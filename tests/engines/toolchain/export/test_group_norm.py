# ruff: noqa: E402 (imports follow the check that torch is here)
"""GroupNorm in graphs of autoencoders: the same function, and nothing that ties its input to a layout in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exports with torch")
for _module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_module, reason="exports with the toolchain")

import onnx
import onnxruntime
from torch import Tensor, nn

from engines.bundle import BUILT_IN, Role
from engines.toolchain.export import export

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")


class Norms(nn.Module):
    """Both kinds that an autoencoder has: over pictures, and over their pixels in one row, as its attention does."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.GroupNorm(3, 12, eps=1e-6), nn.GroupNorm(12, 12)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.first(latents)
        return self.second(x.flatten(2)).view_as(x)


@pytest.fixture(scope="module")
def graph() -> nn.Module:
    return Norms().eval().requires_grad_(False)


def exported(graph: nn.Module, role: Role, folder: Path) -> Path:
    export(graph, role, {"latents": torch.zeros(1, 12, 6, 10)} | EXTRA.get(role, {}), folder / "model.onnx")
    return folder / "model.onnx"


EXTRA = {"denoiser": {"time": torch.zeros(1), "prompt": torch.zeros(1, 3, 4)}}


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


@pytest.mark.parametrize(("mean", "deviation", "least"), [(0.0, 1.0, 1e-5), (300.0, 1.0, 1e-4), (0.0, 1e-4, 1e-5)])
def test_it_is_torchs_group_norm_at_every_size(
    graph: nn.Module, tmp_path: Path, mean: float, deviation: float, least: float
) -> None:
    """Far from 0, too: the difference of mean squares would have lost it."""
    session = onnxruntime.InferenceSession(exported(graph, "decoder", tmp_path), providers=["CPUExecutionProvider"])
    for rows, columns in ((6, 10), (2, 2), (14, 4)):
        x = np.random.default_rng(0).normal(mean, deviation, (1, 12, rows, columns)).astype(np.float32)
        with torch.inference_mode():
            wanted = graph(torch.from_numpy(x)).numpy()
        (result,) = session.run(None, {"latents": x})
        assert result.shape == wanted.shape and wanted.std() > 0.3
        assert np.abs(result - wanted).max() <= least * np.abs(wanted).max()


def test_an_autoencoders_norms_leave_the_layout_alone_and_a_denoisers_are_the_librarys(tmp_path: Path) -> None:
    class Denoiser(Norms):
        def forward(self, latents: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
            return super().forward(latents) + 0 * (time.sum() + prompt.sum())

    for role, network, kept in (("decoder", Norms(), False), ("denoiser", Denoiser(), True)):
        (folder := tmp_path / role).mkdir()
        path = exported(network.eval().requires_grad_(False), role, folder)
        assert ("InstanceNormalization" in operators(path)) == kept


def test_the_autoencoder_that_is_shipped_was_exported_so() -> None:
    for half in ("decoder", "encoder"):
        used = operators(BUILT_IN / "portrait" / half / "model.onnx")
        assert "ReduceL2" in used and "InstanceNormalization" not in used
