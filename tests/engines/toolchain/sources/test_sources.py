# ruff: noqa: E402 (imports follow the check that torch is here)
"""What bundles are made from: every form a GPEN comes in, and files that are damaged, foreign or hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reads checkpoints with torch")
onnx = pytest.importorskip("onnx", reason="reads ONNX")
pytest.importorskip("diffusers", reason="writes tiny checkpoints")
pytest.importorskip("onnxscript", reason="adopts what torch exported")

from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from engines.bundle import BUILT_IN, Bundle, Part
from engines.errors import BundleError
from engines.networks.gpen import GPEN, Spec
from engines.toolchain import sources
from engines.toolchain.sources.onnx_import import adopt
from tests.support import tiny
from tests.support.community import community


@pytest.fixture
def state() -> dict[str, Any]:
    kept: dict[str, Any] = tiny.gpen().state_dict()
    return kept


@pytest.mark.parametrize("wrapper", ["", "g_ema", "params_ema", "params", "state_dict"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as torch < 1.6 wrote it"])
def test_a_pth_is_read_under_every_name_that_trainers_use(
    tmp_path: Path, state: dict[str, Any], wrapper: str, zipped: bool
) -> None:
    saved = {wrapper: state, "iteration": 3} if wrapper else state
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = sources.read_state(tmp_path / "x.pth")
    assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)
    source = sources.restorer(tmp_path / "x.pth")
    assert (
        source.family == "gpen" and source.face is not None and (source.face.size_px, source.face.residual) == (16, 0)
    )


def test_safetensors_are_read_with_what_about_says(tmp_path: Path) -> None:
    folder = tiny.save_restorer(tmp_path / "r")
    source = sources.restorer(folder / "model.safetensors", folder / "about.toml")
    assert source.face is not None and (source.face.size_px, source.face.residual) == (16, 0.2)
    assert source.about.licence == "Apache-2.0" and source.about.title["zh"] == "小"
    assert sources.restorer(folder / "model.safetensors").about.licence == sources.FOREIGN, (
        "nobody's licence is invented"
    )


class Payload:
    """What an attacker puts into a .pth: code that runs when the pickle is read."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("form", ["torch.save", "legacy", "plain pickle", "beside true weights"])
def test_a_pickle_never_runs(tmp_path: Path, state: dict[str, Any], form: str) -> None:
    evil, path = Payload(tmp_path / "ran"), tmp_path / "evil.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"g_ema": evil}))
    elif form == "beside true weights":
        torch.save({"g_ema": state, "optimizer": evil}, path)
    else:
        torch.save({"g_ema": evil}, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(BundleError, match="evil.pth"):
        sources.restorer(path)
    assert not (tmp_path / "ran").exists()


def test_the_payload_is_one(tmp_path: Path) -> None:
    """Or the test above would hold whatever the code did."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04" + bytes(60), b"\xff" * 64])
def test_junk_is_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"mine{suffix}"):
        sources.restorer(path)


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_half_a_download_is_refused_by_name(tmp_path: Path, state: dict[str, Any], form: str, share: float) -> None:
    path = tmp_path / ("mine.safetensors" if form == "safetensors" else "mine.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BundleError, match=f"{path.name} cannot be read"):
        sources.restorer(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
def test_what_is_not_there_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(BundleError, match="gone"):
        sources.restorer(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("saved", [[1, 2], 3, {"params": {"a": 1}}, {"a": torch.zeros(2)}, {}, torch.zeros(3)], ids=str)
def test_another_models_checkpoint_is_refused(tmp_path: Path, saved: Any) -> None:
    torch.save(saved, tmp_path / "other.pth")
    with pytest.raises(BundleError, match="other.pth"):
        sources.restorer(tmp_path / "other.pth")


def test_a_checkpoint_that_lacks_the_size_says_which_tensor(tmp_path: Path, state: dict[str, Any]) -> None:
    for missing in ("final_linear.0.weight", "ecd1.0.1.weight"):
        save_file({key: value for key, value in state.items() if key != missing}, tmp_path / "x.safetensors")
        with pytest.raises(BundleError, match=missing):
            sources.restorer(tmp_path / "x.safetensors")


@pytest.mark.parametrize("damage", ["missing", "wrong size"])
def test_a_tensor_that_does_not_fit_is_named_when_the_network_is_built(
    built: Path, tmp_path: Path, damage: str
) -> None:
    from engines.bundle import Bundle
    from engines.networks.graphs import open_graph

    shutil.copytree(built / "restorer", tmp_path / "b")
    bundle, name = Bundle.open(tmp_path / "b"), "generator.convs.1.conv.weight"
    weights = bundle.root / "restorer" / "model.safetensors"
    state = load_file(weights)
    tensor = state.pop(name)
    save_file(state if damage == "missing" else {**state, name: tensor[:, 1:].contiguous()}, weights)
    with pytest.raises(BundleError, match=name):
        open_graph(bundle, Part("restorer", "restorer", "safetensors", "fp32", "", ""))


@pytest.mark.parametrize("name", ["GPEN-BFR-256", "GPEN-BFR-512"])
def test_official_checkpoints_are_recognised_by_their_keys(shared: Path, name: str) -> None:
    """Keys and shapes of upstream's files, without their numbers."""
    golden = shared / "golden" / "gpen-official-state-dicts.json"
    if not golden.is_file():
        pytest.skip(f"no {golden.name}: upstream's keys are not part of the repository")
    told = json.loads(golden.read_text())[name]
    (shapes,) = (value for value in told.values() if isinstance(value, dict))
    official = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert sources.size_of(Path(f"{name}.pth"), official) == told["size"]


@pytest.mark.parametrize(("size_px", "multiplier", "narrow"), [(256, 1, 0.5), (512, 2, 1), (1024, 2, 1), (2048, 2, 1)])
def test_every_official_size_has_its_graph(size_px: int, multiplier: int, narrow: float) -> None:
    """The whole forward pass on torch's meta device: shapes without numbers."""
    with torch.device("meta"):
        network = GPEN(Spec.official(size_px, multiplier, narrow)).eval()
        assert sources.size_of(Path("x"), network.state_dict()) == size_px
        with torch.no_grad():
            assert network(torch.empty(1, 3, size_px, size_px)).shape == (1, 3, size_px, size_px)


def test_a_community_export_is_taken_in_under_our_names(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="runs what was taken in")
    path = community(tmp_path / "gpen_bfr_64.onnx")
    source = sources.restorer(path)
    assert source.face is not None and source.face.size_px == 64 and source.parts == {"restorer": path}
    adopt(path, tmp_path / "model.onnx", "restorer")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    face = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    (restored,) = session.run(["restored"], {"face": face})
    assert np.abs(restored - np.tanh(face * 0.5)).max() < 1e-6
    assert b"somebody" not in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "shape", [(1, 3, 32, 32), (1, 1, 64, 64), (3, 64, 64), (1, 3, "h", "w"), (1, 3, 64, 128), (64, 64)], ids=str
)
def test_an_onnx_that_takes_something_else_is_refused(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    with pytest.raises(BundleError, match="x.onnx"):
        sources.restorer(community(tmp_path / "x.onnx", shape))


def test_an_onnx_that_makes_a_larger_picture_is_refused(tmp_path: Path) -> None:
    """An upscaler is no restorer; what leaves its output's size open may be one."""
    with pytest.raises(BundleError, match="x.onnx"):
        sources.restorer(community(tmp_path / "x.onnx", out=(1, 3, 128, 128)))
    sources.restorer(community(tmp_path / "x.onnx", ("batch", 3, 64, 64), ("batch", 3, "h", "w")))


def test_an_onnx_that_is_no_valid_graph_is_refused(tmp_path: Path) -> None:
    model = onnx.load(community(tmp_path / "x.onnx"))
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(BundleError, match="x.onnx"):
        adopt(tmp_path / "x.onnx", tmp_path / "out.onnx", "restorer")


def test_an_onnx_with_operators_of_somebody_else_is_refused(tmp_path: Path) -> None:
    model = onnx.load(community(tmp_path / "x.onnx"))
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(BundleError, match=r"com\.example"):
        adopt(tmp_path / "x.onnx", tmp_path / "out.onnx", "restorer")
    assert not (tmp_path / "out.onnx").exists()


def test_an_onnx_that_would_read_other_files_is_refused(tmp_path: Path) -> None:
    """A path to anything on this disk can stand there."""
    model = onnx.load(community(tmp_path / "x.onnx"))
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../etc/passwd")
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(BundleError, match="another file"):
        sources.restorer(tmp_path / "x.onnx")


@pytest.mark.parametrize("gone", ["transformer", "text_encoder", "vae", "scheduler", "vae/config.json"])
def test_a_folder_that_is_no_pipeline_says_what_it_lacks(checkpoints: Path, tmp_path: Path, gone: str) -> None:
    base = tmp_path / "z-image"
    shutil.copytree(checkpoints / "portrait", base)
    shutil.rmtree(base / gone) if (base / gone).is_dir() else (base / gone).unlink()
    with pytest.raises(BundleError, match="z-image") as caught:
        sources.portrait(base)
    assert {"text_encoder": "text_encoder", "transformer": "denoiser"}.get(gone, "") in str(caught.value)


def test_a_pipelines_numbers_are_its_own(checkpoints: Path) -> None:
    source = sources.portrait(checkpoints / "portrait")  # nobody says anything about it
    assert source.sampling is not None
    assert (source.sampling.steps, source.sampling.shift, source.sampling.latent_stride) == (8, 3.0, 2)
    assert (source.sampling.latent_scale, source.sampling.latent_shift) == (0.7, 0.1)
    assert source.about.template == sources.QWEN_TEMPLATE
    assert set(source.parts) == {"text_encoder", "denoiser", "decoder", "preview_decoder", "encoder"}


@pytest.mark.parametrize("text", ["steps = 'many'", "stpes = 8", "steps =", "\xff"])
def test_an_about_file_that_says_something_else_is_refused(checkpoints: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "about.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"about\.toml"):
        sources.portrait(checkpoints / "portrait", tmp_path / "about.toml")


def test_a_bundle_is_a_source_if_it_carries_one(built: Path, tmp_path: Path) -> None:
    source = sources.portrait(built / "portrait")
    assert set(source.parts) == {"text_encoder", "denoiser", "decoder", "preview_decoder", "encoder"}
    assert source.about.licence == "Apache-2.0" and source.about.sizes == ((64, 64), (96, 64))
    shutil.copytree(built / "restorer", tmp_path / "r")
    manifest = json.loads((tmp_path / "r" / "bundle.json").read_text(encoding="utf-8"))
    manifest["parts"] = [part for part in manifest["parts"] if part["format"] == "onnx"]
    (tmp_path / "r" / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no source of its restorer"):
        sources.restorer(tmp_path / "r")


# ---- bundles


def test_what_a_bundle_computes_exactly_it_still_does_when_it_is_built_anew() -> None:
    """It has no denoiser in bf16, and a decoder. Of the text encoder that says nothing: few recipes touch it."""
    assert sources.portrait(BUILT_IN / "portrait").about.exact == ("denoiser",)


def test_a_file_beside_a_bundle_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "about.toml").write_text('name = "mine"\nsteps = 5\nexact = []\n', encoding="utf-8")
    base, source = Bundle.open(BUILT_IN / "portrait"), sources.portrait(BUILT_IN / "portrait", tmp_path / "about.toml")
    assert (source.about.name, source.about.exact, source.sampling.steps) == ("mine", (), 5)
    assert (source.about.title, source.about.sizes, source.about.dialect) == (base.title, base.sizes, base.dialect)
    assert source.sampling == replace(base.sampling, steps=5)
