# ruff: noqa: E402 (imports follow the check that torch is here)
"""A pruned denoiser is taught by the whole one: it comes nearer, it is stopped and goes on, and stays as small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("torch", "diffusers", "transformers", "onnx", "onnxscript", "ml_dtypes", "onnxruntime"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

from engines import backends
from engines.bundle import Bundle, Sampling
from engines.errors import OptionError
from engines.families import FAMILIES as KNOWN
from engines.networks.prunable import PRUNED
from engines.roles.loaded import LoadedBundle
from engines.toolchain.compress import distill, distill_data
from engines.toolchain.compress.distill import DistillOptions
from engines.toolchain.compress.distill_data import DistillData
from engines.toolchain.compress.prune import WEIGHTS, WHOLE, lineage
from engines.toolchain.quantize import calibration
from tests.support import tiny_sd
from tests.support.pruned import FAMILIES, RATIO, begin, cut, make, now

# torch's exporter uses a class that torch itself has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
every_family = pytest.mark.parametrize("family", FAMILIES)
CAPTIONS = tuple(
    f"a {who} {what}" for who in ("man", "woman", "girl", "boy") for what in ("in a hat", "smiling", "old")
)
FACTOR = 1.5  # by which the held-out error falls at least, in STEPS: random weights are hard to do without
STEPS = 60


def course(steps: int) -> DistillOptions:
    return DistillOptions(steps, CAPTIONS, batch=8)


def learn(bundle: Bundle, steps: int) -> dict[str, Any]:
    return distill.denoiser(bundle, course(steps), print)


@pytest.fixture(scope="module")
def pruned(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """pruned(family): being built, its weights stored in half the width; made once. Copy what a test changes."""
    folder, done = tmp_path_factory.mktemp("pruned"), dict[str, Bundle]()

    def by(family: str) -> Bundle:
        if family not in done:
            done[family] = cut(begin(bases[family], folder / family, "edge-bf16"), RATIO)
        return done[family]

    return by


def copied(bundle: Bundle, folder: Path) -> Bundle:
    shutil.copytree(bundle.root, folder)
    return replace(bundle, root=folder)


@pytest.mark.parametrize("family", ["zimage"])  # a U-Net's course takes minutes, and differs in its lessons alone
@pytest.mark.slow
def test_it_comes_nearer_to_its_teacher_and_stays_as_small(
    pruned: Callable[[str], Bundle], tmp_path: Path, family: str
) -> None:
    """By what the course says, and by the whole way from noise to a picture of other words."""
    bare, bundle = pruned(family), copied(pruned(family), tmp_path / "taught")
    told = learn(bundle, STEPS)
    before, after = told["error"]
    assert 0 < after <= before / FACTOR, told
    config = json.loads((bundle.root / "denoiser" / "config.json").read_text(encoding="utf-8"))
    assert (
        config[PRUNED].items() >= told.items() and f"distilled in {STEPS} steps" in lineage(bundle.root / "denoiser")[0]
    )
    ended = {}
    for name, one, file in (("whole", bare, WHOLE), ("bare", bare, "denoiser"), ("taught", bundle, "denoiser")):
        part = replace(next(p for p in one.parts if p.role == "denoiser"), file=file)
        loaded = LoadedBundle(
            replace(one, parts=(*(p for p in one.parts if p.role != "denoiser"), part)), backends.engine("torch")
        )
        ended[name] = calibration.trajectory(loaded, loaded.text_encoder.encode("a grey cat"), 5)
    far, near = (float(np.square(ended[name] - ended["whole"]).mean()) for name in ("bare", "taught"))
    assert near < 0.8 * far, (near, far)
    ours, theirs = (load_file(one.root / "denoiser" / WEIGHTS) for one in (bundle, bare))
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
    assert {value.dtype for value in ours.values()} == {torch.float16}
    assert sum(not torch.equal(ours[name], theirs[name]) for name in ours) > 0.8 * len(ours)


class Stopped(Exception):
    pass


def test_a_stopped_course_goes_on_as_if_it_never_was(
    pruned: Callable[[str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, the error it began with included, and the teacher does not draw twice."""
    monkeypatch.setattr(distill, "SAVE_EVERY", 4)
    at_once, stopped = (copied(pruned("zimage"), tmp_path / name) for name in ("at once", "stopped"))
    told, learned, seen = learn(at_once, 10), distill.DistillState.learn, list[int]()

    def until_six(run: distill.DistillState, loss: torch.Tensor) -> float:
        if run.step == 6:
            raise Stopped
        return learned(run, loss)

    def watched(run: distill.DistillState, loss: torch.Tensor) -> float:
        seen.append(run.step)
        return learned(run, loss)

    with monkeypatch.context() as patch:
        patch.setattr(distill.DistillState, "learn", until_six)
        with pytest.raises(Stopped):
            learn(stopped, 10)
    monkeypatch.setattr(distill.DistillState, "learn", watched)
    monkeypatch.setattr(distill_data, "_draw", None)
    assert learn(stopped, 10) == told and seen == [4, 5, 6, 7, 8, 9]
    ours, theirs = (load_file(one.root / "denoiser" / WEIGHTS) for one in (stopped, at_once))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert learn(stopped, 10) == told, "stopped before its step was recorded"


@pytest.mark.parametrize("captions", [(), ("one",)])
def test_nothing_is_learned_from_one_caption(bases: dict[str, Path], tmp_path: Path, captions: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match="captions"):
        make(bases["zimage"], tmp_path / "made", prune=RATIO, distill=DistillOptions(3, captions))


# ---- lessons


def test_what_is_shown_is_as_noisy_as_the_level_says() -> None:
    """As diffusers' schedulers add noise."""
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 1, 4, 6, 6), dtype=np.float32)
    straight = Sampling(8, 3.0, 4, 8, 1.0, 0.0)
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for i in (0, 300, 999):
        want = flow.scale_noise(torch.from_numpy(clean), flow.timesteps[i : i + 1], torch.from_numpy(noise)).numpy()
        assert np.abs(distill_data.noised(straight, clean, noise, float(flow.sigmas[i])) - want).max() <= 1e-6
    steps = DDIMScheduler(**tiny_sd.BETAS)
    how = replace(straight, diffusion=distill_data.sd.Diffusion("ddim", beta_start=0.00085, beta_end=0.012))
    for level in (0, 500, 999):
        want = steps.add_noise(torch.from_numpy(clean), torch.from_numpy(noise), torch.tensor([level])).numpy()
        assert np.abs(distill_data.noised(how, clean, noise, float(level)) - want).max() <= 1e-5


@every_family
def test_lessons_are_the_teachers_pictures_at_all_levels(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    bundle = begin(bases[family], tmp_path / "plain")
    all_of_them = DistillData.of(bundle, CAPTIONS, now(bundle), tmp_path / "drawn.pt", print)
    loaded = LoadedBundle(bundle, backends.engine("torch"))
    mine = loaded.text_encoder.encode(CAPTIONS[0])
    (group,) = [one for one in all_of_them.drawn if one.prompts.shape[1] == mine.shape[1]]
    assert any(np.array_equal(mine[0], prompt) for prompt in group.prompts)
    assert sum(len(one.latents) for one in all_of_them.drawn) == len(CAPTIONS)
    levels, wordless = set[float](), 0
    for number in range(60):
        shown = all_of_them.batch(8, (0, number))
        again = all_of_them.batch(8, (0, number))
        assert all(torch.equal(shown[name], again[name]) for name in shown)
        levels |= set(shown["time"].tolist())
        if all_of_them.wordless is not None:
            wordless += int(np.array_equal(shown["prompt"][0].numpy(), all_of_them.wordless[0]))
    scheduled = {float(KNOWN[family].feeds(mine, step.level, mine)["time"][0]) for step in plan(bundle)}
    assert scheduled <= levels and len(levels) > 100
    assert (2 <= wordless <= 15) if family == "sd" else all_of_them.wordless is None


def plan(bundle: Bundle) -> Any:
    return distill_data._plan(bundle).schedule.steps


@every_family
def test_the_teacher_draws_together_what_it_draws_alone(
    bases: dict[str, Path], tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = begin(bases[family], tmp_path / "plain")
    graph = now(bundle)
    loaded = LoadedBundle(bundle, backends.engine("torch"))
    words, wordless = loaded.text_encoder.encode("a man"), loaded.text_encoder.encode("") if family == "sd" else None
    monkeypatch.setattr(distill_data, "supports_bf16", lambda device: False)
    monkeypatch.setattr(distill_data.sampler, "noise", lambda shape, seed: one_noise(shape))
    together = distill_data._draw(bundle, graph, words.repeat(3, 0), wordless)
    alone = calibration.trajectory(loaded, words, 0)
    assert np.abs(together - alone).max() <= 1e-4 * np.abs(alone).max()


def one_noise(shape: tuple[int, ...]) -> Any:
    drawn = np.random.default_rng(2).standard_normal((1, *shape[1:]), dtype=np.float32)
    return drawn.repeat(shape[0], 0)
