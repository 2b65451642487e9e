# ruff: noqa: E402 (imports follow the check that torch is here)
"""The toolchain: graphs have the signature, share the checkpoint's bytes, and replace a bundle only when whole."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the toolchain exports with torch")
onnx = pytest.importorskip("onnx", reason="the toolchain writes ONNX")
pytest.importorskip("onnxscript", reason="the toolchain exports with onnxscript")
ort = pytest.importorskip("onnxruntime", reason="runs what was exported")

import torch

from engines.bundle import Bundle, Role, Shelf
from engines.bundle.signatures import SIGNATURES, Array
from engines.errors import BundleError
from engines.networks.graphs import open_graph
from engines.toolchain import build
from engines.toolchain.export import export
from engines.toolchain.export.shared_weights import share_weights
from tests.conftest import REPOSITORY
from tests.support import tiny

FIXED = {"C": 16, "D": 24, "N": 16}  # of the tiny bundles; the other named axes vary
EXPORTED = [role for role in SIGNATURES if role != "face_detector"]  # which is adopted: test_foreign_detectors.py
every_role = pytest.mark.parametrize("role", EXPORTED)


def folder_of(built: Path, role: Role) -> Path:
    return built / ("restorer" if role == "restorer" else "portrait") / role


def run(model: Path, feeds: dict[str, Array]) -> Array:
    (result,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)
    array: Array = result
    return array


@pytest.fixture
def quiet_exporter() -> Iterator[None]:
    with warnings.catch_warnings():  # torch's exporter uses a class that torch itself has deprecated
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        yield


def axes_of(value: Any) -> tuple[int | str, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


@every_role
def test_a_graph_has_the_signature(built: Path, role: Role) -> None:
    signature, path = SIGNATURES[role], folder_of(built, role) / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    assert {value.name for value in graph.input} == set(signature.inputs)
    assert [value.name for value in graph.output] == [signature.output]
    for value in graph.input:
        for said, found in zip(signature.inputs[value.name], axes_of(value), strict=True):
            if isinstance(said, int) or said in FIXED:
                assert found == FIXED.get(str(said), said)
            else:
                assert isinstance(found, str), f"{value.name}: axis {said} is tied to {found}"


@every_role
def test_weights_lie_in_the_checkpoint_only(built: Path, role: Role) -> None:
    """Every large tensor is a reference into the safetensors file beside the graph, and none points elsewhere."""
    folder = folder_of(built, role)
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    (weights,) = folder.glob("*.safetensors")
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert len(outside) > 3
    for tensor in outside:
        told = {entry.key: entry.value for entry in tensor.external_data}
        assert told["location"] == weights.name
        assert int(told["offset"]) + int(told["length"]) <= weights.stat().st_size
    inside = [tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    own = ("cos", "sin")  # position tables are no weights
    for tensor in inside:
        assert len(tensor.raw_data) < 4096 or any(word in tensor.name for word in own), tensor.name


def test_no_file_tells_about_the_machine_it_was_built_on(built: Path) -> None:
    words = {str(REPOSITORY), sys.prefix, os.path.expanduser("~"), str(built), socket.gethostname(), "site-packages"}
    words.add(tiny.LOADED_FROM)
    for path in built.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = [word for word in words if len(word) > 4 and word.encode() in content]
            assert not found, f"{path.name} names {found}"


@pytest.fixture
def unshared(built: Path, tmp_path: Path, quiet_exporter: None) -> Path:
    """The preview decoder exported again, with its weights still inside the graph."""
    bundle = Bundle.open(built / "portrait")
    part = bundle.part("preview_decoder", frozenset({"diffusers"}))
    folder = tmp_path / "part"
    shutil.copytree(bundle.root / part.file, folder)
    (folder / "model.onnx").unlink()
    export(open_graph(bundle, part), part.role, {"latents": torch.rand(1, 16, 16, 18)}, folder / "model.onnx")
    return folder


LATENTS = {"latents": np.random.default_rng(0).standard_normal((1, 16, 10, 14), dtype=np.float32)}


def test_sharing_makes_the_model_smaller_and_changes_no_bit(unshared: Path) -> None:
    model, (weights,) = unshared / "model.onnx", unshared.glob("*.safetensors")
    before, size, bytes_before = run(model, LATENTS), model.stat().st_size, weights.read_bytes()
    saved = share_weights(model, weights)
    assert saved > 10_000
    assert model.stat().st_size < size - saved * 0.8  # the references take a little
    assert weights.read_bytes() == bytes_before
    assert (run(model, LATENTS) == before).all()
    assert share_weights(model, weights) == 0  # nothing is left to share
    assert (run(model, LATENTS) == before).all()


def test_the_graph_reads_the_checkpoints_bytes(shelf: Shelf) -> None:
    """So PyTorch and the compiled engines cannot drift apart; and verify() notices."""
    bundle = shelf.open("portrait")
    folder = bundle.root / "preview_decoder"
    (weights,) = folder.glob("*.safetensors")
    before, data = run(folder / "model.onnx", LATENTS), bytearray(weights.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    weights.write_bytes(data)
    assert np.abs(run(folder / "model.onnx", LATENTS) - before).max() > 1e-3
    with pytest.raises(BundleError):
        bundle.verify()


def test_the_manifest_says_what_checkpoints_and_about_say(built: Path) -> None:
    portrait, restorer = Bundle.open(built / "portrait"), Bundle.open(built / "restorer")
    for bundle in (portrait, restorer):
        bundle.verify()
        assert {part.format for part in bundle.parts} >= {"onnx"}
        assert {(part.role, part.licence) for part in bundle.parts} == {(role, "Apache-2.0") for role in bundle.roles}
    sampling = portrait.need(portrait.sampling, "sampling")
    assert (sampling.steps, sampling.shift, sampling.guidance) == (3, 3.0, 0.0)
    assert (sampling.latent_channels, sampling.latent_stride) == (16, 2)
    assert (sampling.latent_scale, sampling.latent_shift) == (0.7, 0.1)
    assert portrait.sizes == ((64, 64), (96, 64)) and portrait.dialect == "attributes" and portrait.title["zh"] == "小"
    assert portrait.need(portrait.text, "text").template == "<|im_start|>{prompt}<|im_end|>"
    assert restorer.need(restorer.face, "face").size_px == 16 and restorer.need(restorer.face, "face").residual == 0.2


def test_the_manifest_names_no_folder(built: Path) -> None:
    for manifest in built.glob("*/bundle.json"):
        told = json.loads(manifest.read_text(encoding="utf-8"))
        assert "root" not in told
        assert not any(os.path.isabs(part["file"]) for part in told["parts"])


def digest_of_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_card_goes_with_its_bundle(built: Path) -> None:
    assert (built / "portrait" / "card.md").read_text(encoding="utf-8") == tiny.CARD
    assert not (built / "restorer" / "card.md").exists()  # nothing is invented where nobody wrote one


@pytest.mark.parametrize("what", ["about", "weights", "graph"])
def test_a_build_that_fails_leaves_the_old_bundle_alone(
    built: Path, checkpoints: Path, tmp_path: Path, what: str
) -> None:
    from safetensors.torch import load_file, save_file

    out = tmp_path / "shelf" / "restorer"
    shutil.copytree(built / "restorer", out)
    shutil.copytree(checkpoints / "restorer", tmp_path / "from")
    weights, about = tmp_path / "from" / "model.safetensors", tmp_path / "from" / "about.toml"
    if what == "about":
        about.write_text('name = "restorer"')
    elif what == "weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        state = load_file(weights)
        del state["generator.conv1.conv.weight"]
        save_file(state, weights)
    before = digest_of_all(out)
    with pytest.raises(Exception):  # noqa: B017 (a developer's command line: any error will do, silence will not)
        build.build_restorer(weights, about, out)
    assert digest_of_all(out) == before
    assert list(Shelf((tmp_path / "shelf",)).names()) == ["restorer"]


def test_a_build_that_succeeds_replaces_the_old_bundle_wholly(
    built: Path, checkpoints: Path, tmp_path: Path, quiet_exporter: None
) -> None:
    out = tmp_path / "restorer"
    shutil.copytree(built / "restorer", out)
    (out / "stale").write_text("of the old bundle")
    (tmp_path / ".restorer.building").mkdir()
    (tmp_path / ".restorer.building" / "stale").write_text("of a build that was stopped")
    about = tmp_path / "about.toml"
    text = (checkpoints / "restorer" / "about.toml").read_text(encoding="utf-8")
    about.write_text(text.replace("residual = 0.2", "residual = 0.5"), encoding="utf-8")
    bundle = build.build_restorer(checkpoints / "restorer" / "model.safetensors", about, out)
    bundle.verify()
    assert bundle.root == out and bundle.need(bundle.face, "face").residual == 0.5
    assert sorted(os.listdir(tmp_path)) == ["about.toml", "restorer"]
    assert sorted(os.listdir(out)) == ["bundle.json", "restorer"]


@every_role
def test_weights_are_stored_in_half_precision(built: Path, role: Role) -> None:
    from safetensors.torch import load_file

    (weights,) = folder_of(built, role).glob("*.safetensors")
    assert {value.dtype for value in load_file(weights).values()} == {torch.float16}
