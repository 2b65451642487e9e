# ruff: noqa: E402 (imports follow the check that torch is here)
"""Exports on disk (tests/support/builds.py): made once, and anew when what decides them changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exports with torch")
for _module in ("diffusers", "transformers", "onnx", "onnxscript"):
    pytest.importorskip(_module, reason="exports with the toolchain")

from torch import nn

from engines.bundle import Role
from tests.support import builds

FEEDS = {"face": torch.zeros(1, 3, 8, 8)}


class Scaled(nn.Module):
    """`factor` is neither a weight nor a submodule."""

    def __init__(self, factor: float = 1.0, start: float = 0.5) -> None:
        super().__init__()
        self.factor, self.weight = factor, nn.Parameter(torch.full((1,), start))

    def forward(self, face: Any) -> Any:
        return face * self.weight * self.factor


def key(graph: nn.Module, size_px: int = 8, role: Role = "restorer") -> str:
    return builds.key(graph, role, {"face": torch.zeros(1, 3, size_px, size_px)})


def test_all_that_decides_an_export_is_part_of_its_name() -> None:
    keys = [key(Scaled()), key(Scaled(2.0)), key(Scaled(start=0.25)), key(Scaled(), 16), key(Scaled(), 8, "decoder")]
    keys.append(key(Scaled().half()))
    assert len(set(keys)) == len(keys) and key(Scaled()) == keys[0]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was exported in truth, into an empty store."""
    calls: list[Path] = []

    def write(graph: nn.Module, role: str, feeds: Any, path: Path) -> None:
        calls.append(path)
        path.write_bytes(b"a graph")

    monkeypatch.setattr(builds, "EXPORTS", tmp_path / "exports")
    monkeypatch.setattr(builds.export, "export", write)
    return calls


def test_an_export_is_made_once_and_a_damaged_one_anew(tmp_path: Path, exported: list[Path]) -> None:
    first, second, third = (tmp_path / name for name in ("1.onnx", "2.onnx", "3.onnx"))
    builds.cached_export(Scaled(), "restorer", FEEDS, first)
    builds.cached_export(Scaled(), "restorer", FEEDS, second)
    assert exported == [first] and second.read_bytes() == b"a graph"
    (place,) = (path for path in (tmp_path / "exports").iterdir() if not path.suffix)
    place.write_bytes(place.read_bytes()[:-1])
    builds.cached_export(Scaled(), "restorer", FEEDS, third)
    assert exported == [first, third] and third.read_bytes() == b"a graph"
