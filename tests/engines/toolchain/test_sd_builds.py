# ruff: noqa: E402 (imports follow the check that torch is here)
"""Stable Diffusion's bundles by every recipe, and from a single file: what comes out draws, proved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import onnx
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from engines import backends
from engines.bundle import EMBEDDINGS, PROOF, Bundle, Shelf
from engines.errors import BundleError
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.studio import trials
from engines.toolchain import build, sources
from engines.toolchain.build import BuildOptions
from engines.toolchain.quantize import calibration
from engines.toolchain.recipe import Recipe
from engines.toolchain.sources import stable_diffusion
from engines.worker import inventory
from tests.support import builds, tiny_sd
from tests.support.proved import prove

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
RECIPES = ("edge-fp32", "edge-bf16", "edge-int8", "edge-int4")
PROMPTS = ("一位女士", "a man with a hat")
NETWORKS = ("text_encoder", "denoiser", "decoder")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd.save(tmp_path_factory.mktemp("sources") / "sd")


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """made(recipe): built once, proved in this process."""
    folder, done = tmp_path_factory.mktemp("models"), dict[str, Bundle]()

    def by(name: str) -> Bundle:
        if name not in done:
            with pytest.MonkeyPatch.context() as patch:
                builds.lighten(patch)
                patch.setattr(trials, "prove_apart", prove)
                options = BuildOptions(prompts=PROMPTS, prove=True)
                done[name] = build.build_portrait(base, base / "about.toml", folder / name, name, options=options)
        return done[name]

    return by


every_recipe = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in RECIPES])


@every_recipe
def test_a_build_is_whole_and_what_the_recipe_says(made: Any, name: str) -> None:
    bundle, told = made(name), Recipe.read(name)
    bundle.verify()
    assert bundle.family == "sd" and PROOF in bundle.extras
    for role in bundle.roles:
        parts = [(part.format, part.precision) for part in bundle.parts if part.role == role]
        how = told.of(role)
        if how.quantize:
            assert parts[0] == ("onnx", how.precision)
        elif how.openvino != "fp32":
            assert parts[0] == ("openvino", how.openvino)
        assert ("onnx", "fp32") in parts and parts[-1] == ("diffusers", "fp32")
    for path in bundle.root.rglob("*.onnx"):
        onnx.checker.check_model(path, full_check=True)


@every_recipe
def test_every_engine_draws_it_and_the_report_says_how_well(made: Any, name: str) -> None:
    bundle = made(name)
    report = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
    able = [(c.engine.name, c.precision) for c in backends.ways(bundle) if not c.refused]
    assert [(verdict["engine"], verdict["precision"]) for verdict in report["verdicts"]] == able, "each precision"
    assert ("ort", "fp32") in able
    for verdict in report["verdicts"]:
        assert verdict["pictures"] >= 2 and verdict["psnr_db"] > 10, verdict
        assert verdict["failing"] == "" or verdict["precision"] != "fp32", "random numbers may bear no rounding"
    told = {step["role"]: step for step in report["steps"] if step["stage"] == "quantize"}
    for role, step in told.items():
        how = Recipe.read(name).of(role)
        assert how.bar_db > 0 and step["layers"] > 3, step
        assert step["quantized"] == step["layers"] and step["in_float"] == [], "builds.lighten took the bar away"
        assert step["reached_db"] == max(step["compared_db"].values()), step


@every_recipe
def test_preferred_graphs_take_other_sizes(made: Any, name: str) -> None:
    bundle = made(name)
    rng = np.random.default_rng(0)
    for engine in (e for e in backends.engines() if not backends.candidate(bundle, e).refused):
        session = engine.load(bundle, bundle.part("denoiser", engine.formats))
        for rows, columns, tokens in ((32, 32, 77), (36, 28, 77), (18, 50, 9), (8, 4, 1)):
            latents = rng.standard_normal((1, 4, rows, columns), dtype=np.float32)
            prompt = rng.standard_normal((1, tokens, tiny_sd.WIDTH), dtype=np.float32)
            feeds = {"latents": latents, "time": np.array([499], np.float32), "prompt": prompt}
            result = session.run(feeds)["velocity"]
            assert result.shape == latents.shape and np.isfinite(result).all() and result.std() > 1e-3
        session.close()


@pytest.mark.slow
def test_stored_words_hold_the_empty_negative_too(made: Any, tmp_path: Path) -> None:
    """With guidance every picture reads it: the text encoder is loaded for neither."""
    bundle = made("edge-fp32")
    assert EMBEDDINGS in bundle.extras
    loaded = LoadedBundle(bundle, backends.engine("torch"))
    for prompt in (*PROMPTS, ""):
        stored = loaded.embedding(prompt, ArrayCache(tmp_path, 1))
        assert (
            stored.shape == (1, 77, tiny_sd.WIDTH) and np.abs(stored - loaded.text_encoder.encode(prompt)).max() <= 1e-5
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_calibration_sees_both_captions_at_every_level(made: Any) -> None:
    bundle = made("edge-fp32")
    feeds = calibration.trajectories(LoadedBundle(bundle, backends.engine("ort")), PROMPTS)
    assert len(feeds["denoiser"]) == 2 * 3 * len(PROMPTS) and len(feeds["decoder"]) == len(PROMPTS)
    assert len({feed["time"][0] for feed in feeds["denoiser"]}) == 3


# ---- single files


def in_shards(base: Path, folder: Path, variant: str | None) -> Path:
    """As hubs keep large models: each network in several files with an index."""
    shutil.copytree(base, folder)
    for part, kind in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel)):
        network = kind.from_pretrained(base / part)
        shutil.rmtree(folder / part)
        network.save_pretrained(folder / part, max_shard_size="40KB", variant=variant)
        assert len(sources.weight_files(folder / part)) > 2
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_built_like_one_file(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str | None
) -> None:
    builds.lighten(monkeypatch)
    cut = in_shards(base, tmp_path / "cut", variant)
    bundle = build.build_portrait(cut, base / "about.toml", tmp_path / "made", "edge-fp32")
    other = build.build_portrait(base, base / "about.toml", tmp_path / "folder", "edge-fp32")
    assert [(part.file, part.format) for part in bundle.parts] == [(part.file, part.format) for part in other.parts]
    for role in ("denoiser", "text_encoder"):
        (mine,), (theirs,) = ([*(made.root / role).glob("*.safetensors")] for made in (bundle, other))
        one, two = load_file(mine), load_file(theirs)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_shard_that_is_missing_is_said(base: Path, tmp_path: Path) -> None:
    cut = in_shards(base, tmp_path / "cut", None)
    sources.weight_files(cut / "unet")[1].unlink()
    with pytest.raises(BundleError, match="denoiser"):
        build.build_portrait(cut, base / "about.toml", tmp_path / "made", "edge-fp32")
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd.single_file(tmp_path_factory.mktemp("files") / "model.safetensors")


@pytest.fixture
def tiny_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Stable Diffusion 1.5's, which the tiny networks would not fit."""
    monkeypatch.setattr(stable_diffusion, "SD15", tiny_sd.save_configs(tmp_path / "configs"))


@pytest.mark.parametrize("blocks", [tiny_sd.ATTENTION_ONCE, tiny_sd.EVERY_BLOCK], ids=["tiny", "Stable Diffusion"])
@pytest.mark.parametrize("role", NETWORKS)
def test_a_single_file_holds_what_the_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Any, blocks: dict[str, Any]
) -> None:
    base, single = tiny_sd.save(tmp_path / "base", **blocks), tiny_sd.single_file(tmp_path / "x.safetensors", **blocks)
    monkeypatch.setattr(stable_diffusion, "SD15", tiny_sd.save_configs(tmp_path / "configs", **blocks))
    folder = stable_diffusion.unpack(single, role, tmp_path / role)
    (mine,), (folders,) = (list(path.glob("*.safetensors")) for path in (folder, base / stable_diffusion.PARTS[role]))
    ours, theirs = load_file(mine), load_file(folders)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_single_file_is_built_like_a_folder(
    base: Path, single: Path, tmp_path: Path, tiny_configs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds.lighten(monkeypatch)
    tiny_sd.tiny_vae().save_pretrained(tmp_path / "checkpoints" / "taesd")
    about, checkpoints = base / "about.toml", tmp_path / "checkpoints"
    bundle = build.build_portrait(single, about, tmp_path / "single", "edge-fp32", checkpoints=checkpoints)
    other = build.build_portrait(base, about, tmp_path / "folder", "edge-fp32")
    bundle.verify()
    assert bundle.roles == other.roles and bundle.text == other.text and bundle.sampling == other.sampling
    ids = np.arange(20)[None]
    for role in NETWORKS:
        assert not list((bundle.root / role).glob("unpacked*"))
    sessions = [backends.engine("ort").load(b, b.part("text_encoder", frozenset({"onnx"}))) for b in (bundle, other)]
    assert (sessions[0].run({"ids": ids})["prompt"] == sessions[1].run({"ids": ids})["prompt"]).all()


@pytest.mark.parametrize("mark", list(stable_diffusion.MARKS))
def test_a_file_without_a_part_says_which(single: Path, tmp_path: Path, mark: str) -> None:
    state = load_file(single)
    del state[stable_diffusion.MARKS[mark]]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(BundleError, match=f"half.safetensors has no {mark}"):
        sources.portrait(tmp_path / "half.safetensors")


def test_a_file_for_inpainting_is_refused(single: Path, tmp_path: Path) -> None:
    state = load_file(single)
    name = stable_diffusion.MARKS["U-Net"]
    save_file({**state, name: torch.zeros(8, 9, 3, 3)}, tmp_path / "inpaint.safetensors")
    with pytest.raises(BundleError, match="9 channels"):
        sources.portrait(tmp_path / "inpaint.safetensors")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("role", NETWORKS)
def test_a_tensor_that_is_missing_is_not_drawn_at_random(
    single: Path, tmp_path: Path, tiny_configs: None, role: Any
) -> None:
    prefix = {"text_encoder": "cond_stage", "denoiser": "model.diff", "decoder": "first_stage_model.decoder"}[role]
    state = load_file(single)
    del state[max(name for name in state if name.startswith(prefix) and name not in stable_diffusion.MARKS.values())]
    save_file(state, tmp_path / "hole.safetensors")
    with pytest.raises(BundleError, match="hole"):
        stable_diffusion.unpack(tmp_path / "hole.safetensors", role, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="x.safetensors"):
        sources.portrait(tmp_path / "x.safetensors")


def test_the_page_offers_single_files_as_portraits(single: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    save_file({"weight": torch.zeros(3)}, tmp_path / "gpen.safetensors")
    (tmp_path / "model.safetensors").symlink_to(single)
    found = inventory.sources(Shelf(()), tmp_path)
    assert set(found) == {
        ("restorer", "empty.safetensors"), ("restorer", "gpen.safetensors"), ("portrait", "model.safetensors"),
    }  # fmt: skip
