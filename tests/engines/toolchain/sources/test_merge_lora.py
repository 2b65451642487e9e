# ruff: noqa: E402 (imports follow the check that torch is here)
"""LoRAs merged for good: what every engine draws then is what PyTorch draws with them at run time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import torch
from safetensors.torch import load_file, save_file

from engines import backends
from engines.bundle import Bundle, digest
from engines.bundle.loras import LoraFile
from engines.bundle.signatures import Array
from engines.errors import LoraError, OptionError
from engines.messages import Event, Failed, Note, unpack
from engines.networks.lora import ActiveLoras
from engines.networks.zimage import ZImageGraph
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.toolchain import __main__ as command
from engines.toolchain import build
from engines.toolchain.build import BuildOptions
from engines.toolchain.quantize import calibration
from engines.toolchain.sources import merge_lora
from engines.toolchain.sources.merge_lora import Addition
from tests.conftest import REPOSITORY
from tests.support import builds, tiny
from tests.support.lora_files import dotted, factors, kohya

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, net = tmp_path_factory.mktemp("loras"), tiny.transformer()
    save_file(dotted(factors(net, 1)), folder / "one.safetensors")
    save_file(kohya(factors(net, 2, rank=2)), folder / "two.safetensors")
    return folder / "one.safetensors", folder / "two.safetensors"


@pytest.fixture(scope="module")
def additions(files: tuple[Path, Path]) -> tuple[Addition, ...]:
    return Addition.of(str(files[0])), Addition.of(f"{files[1]}:-0.6")


def made(checkpoints: Path, out: Path, recipe: str, loras: tuple[Addition, ...]) -> tuple[Bundle, list[str]]:
    portrait, events = checkpoints / "portrait", list[Event]()
    with pytest.MonkeyPatch.context() as patch:
        builds.lighten(patch)
        about, options = portrait / "about.toml", BuildOptions(loras=loras)
        bundle = build.build_portrait(portrait, about, out, recipe, options=options, emit=events.append)
    return bundle, [event.text for event in events if isinstance(event, Note)]


@pytest.fixture(scope="module", params=["edge-fp32", "edge-bf16"])
def pair(
    request: Any, checkpoints: Path, additions: tuple[Addition, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Bundle]:
    """The same recipe without and with them; its weights are stored in 32 bits, or in 16."""
    folder = tmp_path_factory.mktemp("merged")
    plain, _ = made(checkpoints, folder / "plain", request.param, ())
    merged, said = made(checkpoints, folder / "merged", request.param, additions)
    assert "   one.safetensors at 1: 14 layers" in said and "   two.safetensors at -0.6: 14 layers" in said
    return plain, merged


def trajectory(loaded: LoadedBundle, folder: Path) -> list[Array]:
    """What the denoiser gives on the way to a picture."""
    words, fed = loaded.embedding("a woman", ArrayCache(folder, 8)), list[Any]()
    calibration.trajectory(loaded, words, 3, fed.append)
    return [loaded.denoiser.session.run(feeds)["velocity"] for feeds in fed]


def apart(ours: list[Array], theirs: list[Array]) -> float:
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["torch", "ort"])
def test_merged_draws_what_run_time_draws(
    pair: tuple[Bundle, Bundle], files: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    plain, merged = pair
    loaded = LoadedBundle(plain, backends.engine("torch"))
    bare = trajectory(loaded, tmp_path)
    assert loaded.apply_loras([LoraFile(files[0], 1.0), LoraFile(files[1], -0.6)]) == ()
    worn = trajectory(loaded, tmp_path)
    assert apart(worn[:1], bare[:1]) > 0.05
    narrow = load_file(merged.root / "denoiser" / WEIGHTS)["layers.0.attention.to_q.weight"].dtype == torch.float16
    same = trajectory(LoadedBundle(merged, backends.engine(name)), tmp_path)[:1]  # from the same noise
    assert apart(same, worn[:1]) <= (2e-3 if narrow else 2e-5), "of random weights: half the width costs what it costs"


def test_only_what_they_name_is_changed_and_stored_in_the_recipes_width(pair: tuple[Bundle, Bundle]) -> None:
    plain, merged = pair
    for role in ("text_encoder", "decoder", "preview_decoder"):
        assert digest(plain.root / role) == digest(merged.root / role)
    before, after = (load_file(bundle.root / "denoiser" / WEIGHTS) for bundle in pair)
    assert before.keys() == after.keys() and {k: v.dtype for k, v in before.items()} == {
        k: v.dtype for k, v in after.items()
    }
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(factors(tiny.transformer()))


def test_a_bundle_says_what_was_merged_into_it(pair: tuple[Bundle, Bundle], files: tuple[Path, Path]) -> None:
    assert pair[0].lineage == ("random numbers",)
    assert pair[1].lineage == (
        "random numbers",
        f"LoRA one.safetensors at 1, sha256 {digest(files[0])}",
        f"LoRA two.safetensors at -0.6, sha256 {digest(files[1])}",
    )
    pair[1].verify()


def test_the_shipped_lora_merged_in_half_width_is_the_one_at_run_time(builtin: Path) -> None:
    from diffusers import ZImageTransformer2DModel

    folder, path = builtin / "portrait" / "denoiser", builtin / "loras" / "studio_light.safetensors"
    said: list[str] = []
    pairs = merge_lora.read(folder, [Addition.of(f"{path}:0.8")], said.append)
    assert len(said) == 1 and re.fullmatch(r"studio_light\.safetensors at 0\.8: \d+ layers", said[0])
    state = merge_lora.merged(load_file(folder / WEIGHTS), pairs)
    merged, worn = (ZImageTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32) for _ in range(2))
    merged.load_state_dict({name: value.half().float() for name, value in state.items()})
    ours, theirs = ZImageGraph(merged).eval(), ZImageGraph(worn).eval()
    assert ActiveLoras(theirs.net).set([LoraFile(path, 0.8)]) == ()
    generator = torch.Generator().manual_seed(1)
    for time in (0.0, 0.4, 0.9):
        latents = torch.randn(1, 16, 32, 32, generator=generator)
        prompt = torch.randn(1, 30, worn.config.cap_feat_dim, generator=generator)
        with torch.inference_mode():
            a, b = (graph(latents, torch.tensor([time]), prompt).numpy() for graph in (ours, theirs))
        assert np.abs(a - b).max() <= 1e-3 * max(1.0, np.abs(b).max())


def test_weights_in_several_files_are_merged_alike(additions: tuple[Addition, ...], tmp_path: Path) -> None:
    whole = tiny.transformer().state_dict()
    names = sorted(whole)
    for folder, parts in (("one", [names]), ("many", [names[::2], names[1::2]])):
        (tmp_path / folder).mkdir()
        for i, part in enumerate(parts):
            save_file({name: whole[name] for name in part}, tmp_path / folder / f"{i}.safetensors")
    states = []
    for folder in ("one", "many"):
        pairs = merge_lora.read(tmp_path / folder, additions, lambda text: None)
        files = sorted((tmp_path / folder).glob("*.safetensors"))
        states.append({k: v for file in files for k, v in merge_lora.merged(load_file(file), pairs).items()})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_weights_of_sixteen_bits_are_summed_in_thirty_two(additions: tuple[Addition, ...], tmp_path: Path) -> None:
    state = {name: value.bfloat16() for name, value in tiny.transformer().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    pairs = merge_lora.read(tmp_path, additions, lambda text: None)
    merged = merge_lora.merged(state, pairs)
    for name, value in merged.items():
        if (pair := pairs.get(name.removesuffix(".weight"))) is None:
            assert value is state[name]
        else:
            assert value.dtype == torch.float32 and torch.equal(value, state[name].float() + pair[1] @ pair[0])


def test_a_lora_and_its_strength_read_from_the_command_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    one = files[0]
    assert Addition.of(str(one)) == Addition(one, 1.0, digest(one))
    assert Addition.of(f"{one}:0.8").strength == 0.8 and Addition.of(f"{one}:-1").strength == -1
    odd = tmp_path / "a:b.safetensors"
    odd.write_bytes(one.read_bytes())
    assert Addition.of(str(odd)).path == odd and Addition.of(f"{odd}:.5") == Addition(odd, 0.5, digest(one))


@pytest.mark.parametrize("strength", ["3", "-2.1", "nan", "inf"])
def test_a_strength_out_of_range_is_refused(files: tuple[Path, Path], strength: str) -> None:
    with pytest.raises(OptionError):
        Addition.of(f"{files[0]}:{strength}")


@pytest.mark.parametrize("told", ["nowhere.safetensors", "nowhere.safetensors:0.5", "", ":1"])
def test_a_file_that_is_not_there_is_refused(told: str) -> None:
    with pytest.raises(LoraError):
        Addition.of(told)


def test_a_lora_for_another_network_stops_the_build(checkpoints: Path, builtin: Path, tmp_path: Path) -> None:
    shipped = Addition.of(str(builtin / "loras" / "studio_light.safetensors"))
    with pytest.raises(LoraError, match=r"layers\.0\.attention\.to_k is 256 x 256, in this model 32 x 32"):
        made(checkpoints, tmp_path / "out", "edge-fp32", (shipped,))
    assert not (tmp_path / "out").exists()


def test_another_lora_or_strength_is_another_build(checkpoints: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    """A build that was stopped is gone on with from the same inputs only."""
    copy = tmp_path / "l.safetensors"

    def inputs(*told: str) -> str:
        wish = build.BuildOptions(loras=tuple(map(Addition.of, told)))
        source = build.sources.portrait(checkpoints / "portrait", checkpoints / "portrait" / "about.toml")
        return build.Builder(source, build.Recipe.read("edge-fp32"), tmp_path / "out", wish)._inputs()

    copy.write_bytes(files[0].read_bytes())
    first = inputs(str(copy))
    assert first == inputs(str(copy))
    others = [inputs(), inputs(f"{copy}:0.9"), inputs(str(copy), str(copy))]
    copy.write_bytes(files[1].read_bytes())
    assert len({first, *others, inputs(str(copy))}) == 5


def test_the_command_hands_them_over(files: tuple[Path, Path], tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[tuple[Addition, ...]] = []

    class Made:
        def verify(self) -> None: ...

    class Builder:
        def __init__(self, source: Any, recipe: Any, out: Path, options: build.BuildOptions) -> None:
            asked.append(options.loras)

        def build(self, emit: Any) -> Made:
            return Made()

    monkeypatch.setattr(command, "Builder", Builder)
    monkeypatch.setattr(command, "_source", lambda job: None)
    words = ["run", "portrait", "--base", "x", "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", [*words, "--lora", f"{files[0]}:0.8", "--lora", str(files[1])])
    command._make(command._job(command._arguments()), lambda event: None)
    monkeypatch.setattr(sys, "argv", ["run", "restorer", "--weights", "x", "--out", str(tmp_path / "o")])
    command._make(command._job(command._arguments()), lambda event: None)
    assert asked == [(Addition.of(f"{files[0]}:0.8"), Addition.of(str(files[1]))), ()]


def test_the_command_says_what_is_wrong_with_one(checkpoints: Path, tmp_path: Path) -> None:
    words = [
        "portrait",
        "--base",
        str(checkpoints / "portrait"),
        "--name",
        "m",
        "--events",
        "--lora",
        "nowhere.safetensors",
    ]
    env = {key: value for key, value in os.environ.items() if not key.startswith("STUDIO_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "engines.toolchain", *words],
        cwd=REPOSITORY, env={**env, "STUDIO_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    last = unpack(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and isinstance(last, Failed) and last.code == "bad_lora"
    assert json.loads(json.dumps(last.facts))["lora"] == "nowhere"
