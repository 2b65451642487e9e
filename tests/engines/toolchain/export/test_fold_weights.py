# ruff: noqa: E402 (imports follow the check that torch is here)
"""Weights that are folded: stored as they are used, in one file or in two, and the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exports with torch")
for _module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_module, reason="exports with the toolchain")

import onnx
import onnxruntime

from engines.toolchain import export

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
FACE = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear layer, whose weight is used transposed and stored as it is."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    graph = torch.nn.Linear(8, 8, bias=False).requires_grad_(False).eval()
    export.export(graph, "restorer", {"face": torch.from_numpy(FACE)}, path)
    return path


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def restored(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: FACE})[0]


@pytest.mark.parametrize("in_two", [False, True])
def test_weights_are_stored_as_they_are_used(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_two: bool
) -> None:
    """`in_two`: as if they were more than one file holds."""
    if in_two:
        monkeypatch.setattr(export, "ONE_FILE_BYTES", 0)
    folded = tmp_path / "folded.onnx"
    export.fold_weights(exported, folded)
    assert "Transpose" in operators(exported) and "Transpose" not in operators(folded)
    assert folded.with_name("folded.onnx.data").is_file() == in_two
    assert np.abs(restored(folded) - restored(exported)).max() <= 1e-6


def test_what_lies_in_two_files_is_folded_too(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large export has its weights beside it, and where it is folded to is another folder."""
    model = onnx.load(exported)
    (tmp_path / "large").mkdir()
    onnx.save(model, tmp_path / "large" / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=0)
    monkeypatch.setattr(export, "ONE_FILE_BYTES", 0)
    export.fold_weights(tmp_path / "large" / "x.onnx", tmp_path / "folded.onnx")
    assert "Transpose" not in operators(tmp_path / "folded.onnx")
    assert np.abs(restored(tmp_path / "folded.onnx") - restored(exported)).max() <= 1e-6
