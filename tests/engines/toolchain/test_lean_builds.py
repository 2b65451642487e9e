# ruff: noqa: E402 (imports follow the check that torch is here)
"""Lean recipes: what is quantised is there in that form alone, is built as large networks are, and draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import onnx

from engines import backends, machine
from engines.bundle import PROOF, Bundle
from engines.errors import EngineUnavailable, OptionError
from engines.networks.graphs import open_graph
from engines.roles import memory
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.studio import trials
from engines.toolchain import build, export
from engines.toolchain.build import BuildOptions
from engines.toolchain.manifest import SCRATCH
from engines.toolchain.quantize import opened, out_of_core
from engines.toolchain.recipe import Recipe
from tests.support import builds, tiny, tiny_sd
from tests.support.proved import prove

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
FAMILIES = {
    "sd": ("lean-int8", tiny_sd.save),
    "sd-kv2": ("lean-int8-kv2", tiny_sd.save),
    "zimage": ("lean-int4", tiny.save_portrait),
}
PROMPTS = ("一位女士", "a man with a hat")
NETWORKS = ("unet", "transformer")
NARROW = ("text_encoder", "denoiser", "decoder")


@pytest.fixture(scope="module")
def traced() -> list[Any]:
    """Every network that was quantised as a large one."""
    return []


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory, traced: list[Any]) -> tuple[Bundle, Path]:
    """As if everything were large: the bundle, and what it was made from."""
    recipe, save = FAMILIES[request.param]
    base = save(tmp_path_factory.mktemp("sources") / request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "LARGE", 0)
        patch.setattr(export, "LARGE", 1100)  # numbers in a weight: the optimiser merges smaller ones
        builds.lighten(patch)
        patch.setattr(trials, "prove_apart", prove)
        patch.setattr(out_of_core, "open_graph", lambda *how: traced.append(opened := open_graph(*how)) or opened)
        out = tmp_path_factory.mktemp("models") / recipe
        options = BuildOptions(prompts=PROMPTS, prove=True)
        return build.build_portrait(base, base / "about.toml", out, recipe, options=options), base


def test_what_is_quantised_is_there_once_and_nothing_is_left_behind(made: tuple[Bundle, Path]) -> None:
    bundle, _ = made
    bundle.verify()
    assert PROOF in bundle.extras and not (bundle.root / SCRATCH).exists()
    for role in NARROW:
        (part,) = (part for part in bundle.parts if part.role == role)
        assert part.format == "onnx" and part.precision in ("int8", "int4")
        onnx.checker.check_model(bundle.root / part.file / "model.onnx", full_check=True)
        assert not (bundle.root / role).exists() and not list((bundle.root / part.file).glob("*/"))
    held = {path.parent.name for path in bundle.root.rglob("*.safetensors")}
    assert held == {"preview_decoder", "encoder"}  # small, and not quantised


def test_weights_are_let_go_after_each_part(made: tuple[Bundle, Path], traced: list[Any]) -> None:
    """What traced them may keep them: of a network of gigabytes the next part would start with those."""
    assert len(traced) >= 2
    assert all(parameter.numel() == 0 for graph in traced for parameter in graph.parameters())


def test_attention_of_another_network_is_not_subsampled(tmp_path: Path) -> None:
    base = tiny.save_portrait(tmp_path / "zimage")
    with pytest.raises(OptionError, match="for SD models alone"):
        build.build_portrait(base, base / "about.toml", tmp_path / "out", "lean-int8-kv2")


def test_pytorch_cannot_run_it_and_says_so(made: tuple[Bundle, Path]) -> None:
    with pytest.raises(EngineUnavailable, match="cannot read this bundle's decoder, denoiser"):
        backends.select(made[0], "pytorch")


def test_it_was_held_against_pytorch_and_the_report_says_how_near_it_comes(made: tuple[Bundle, Path]) -> None:
    bundle, _ = made
    report = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
    told = {step["role"]: step for step in report["steps"] if step["stage"] == "quantize"}
    assert set(told) == set(NARROW)
    for role, step in told.items():
        least = 4 if role == "denoiser" else 0  # in the other tiny ones hardly a matrix is large
        assert step["quantized"] == step["layers"] >= least and step["reached_db"] > 15, (role, step)
    proved = list(dict.fromkeys(verdict["engine"] for verdict in report["verdicts"]))
    assert proved == ["openvino", "ort"][-len(proved) :]
    for verdict in report["verdicts"]:
        assert verdict["pictures"] == 2 and verdict["psnr_db"] > 10, verdict


def test_activations_of_a_static_recipe_are_rounded_where_they_enter_layers(made: tuple[Bundle, Path]) -> None:
    bundle, _ = made
    part = bundle.part("denoiser", frozenset({"onnx"}))
    graph = onnx.load(bundle.root / part.file / "model.onnx", load_external_data=False).graph
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert bool(rounded) == (part.precision == "int8")


def test_attention_is_subsampled_where_the_recipe_says_so(made: tuple[Bundle, Path], request: Any) -> None:
    """Its rows and columns are halved once where the tiny network attends."""
    bundle, base = made
    path = bundle.root / bundle.part("denoiser", frozenset({"onnx"})).file / "model.onnx"
    model, shown = onnx.load(path, load_external_data=False), path.with_name("shown.onnx")
    slices = [node.output[0] for node in model.graph.node if node.op_type == "Slice" and len(node.input) == 5]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in slices)
    onnx.save(model, shown)
    session = opened(shown)
    shown.unlink()
    channels = bundle.need(bundle.sampling, "sampling").latent_channels
    latents, prompt = np.ones((1, channels, 16, 24), np.float32), np.ones((1, 7, _width(base)), np.float32)
    results = session.run(slices, {"latents": latents, "time": np.array([0.5], np.float32), "prompt": prompt})
    assert any(result.shape[:3] == (1, 4, 6) for result in results) == (request.node.callspec.id == "sd-kv2")


def test_every_engine_draws_other_sizes(made: tuple[Bundle, Path], tmp_path: Path) -> None:
    bundle, _ = made
    words = LoadedBundle(bundle, backends.engine("ort")).embedding(PROMPTS[0], ArrayCache(tmp_path, 1))
    channels = bundle.need(bundle.sampling, "sampling").latent_channels
    for engine in (e for e in backends.engines() if not backends.candidate(bundle, e).refused):
        session = engine.load(bundle, bundle.part("denoiser", engine.formats))
        for rows, columns in ((32, 32), (18, 50)):
            latents = np.random.default_rng(0).standard_normal((1, channels, rows, columns), dtype=np.float32)
            result = session.run({"latents": latents, "time": np.array([0.5], np.float32), "prompt": words})["velocity"]
            assert result.shape == latents.shape and np.isfinite(result).all() and result.std() > 1e-3
        session.close()


def test_where_memory_is_short_the_reference_computes_in_bf16(
    made: tuple[Bundle, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, base = made
    source = build.sources.portrait(base, base / "about.toml")
    draft = build.Draft(source, Recipe.read("lean-int8"), tmp_path, "x")
    loaded_bundles = {}
    bare = (memory.BASE + memory.numbers(draft.path("denoiser")) * 4 + 1) / memory.SHARE  # the file has no room beside
    for free, wanted in ((memory.UNLIMITED, "fp32"), (bare, "bf16"), (1000, "bf16")):
        monkeypatch.setattr(machine, "free_bytes", lambda free=free: free)
        monkeypatch.setattr(machine, "held_bytes", lambda: 0)
        part = draft.origin("denoiser")
        assert part is not None and part.precision == wanted
        loaded_bundles[wanted] = backends.engine("torch").load(bundle, part)
    channels = bundle.need(bundle.sampling, "sampling").latent_channels
    feeds = {
        "latents": np.random.default_rng(1).standard_normal((1, channels, 16, 16), dtype=np.float32),
        "time": np.array([0.25], np.float32),
        "prompt": np.random.default_rng(2).standard_normal((1, 9, _width(base)), dtype=np.float32),
    }
    exact, rough = (loaded_bundles[name].run(feeds)["velocity"] for name in ("fp32", "bf16"))
    assert rough.dtype == np.float32 and 0 < np.abs(exact - rough).mean() < 0.05 * exact.std()


def _width(base: Path) -> int:
    """Of an embedding."""
    (told,) = (json.loads((path / "config.json").read_text()) for path in base.iterdir() if path.name in NETWORKS)
    return int(told.get("cap_feat_dim") or told["cross_attention_dim"])
