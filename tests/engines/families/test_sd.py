# ruff: noqa: E402 (imports follow the check that torch is here)
"""Our whole way from words to a picture against diffusers' StableDiffusionPipeline: same weights, same noise, same
picture, on every engine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with diffusers")
for _module in ("diffusers", "transformers", "onnxscript", "ml_dtypes"):
    pytest.importorskip(_module, reason="builds bundles with the toolchain")

from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelImg2ImgPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.latent_consistency_models import pipeline_latent_consistency_img2img
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img
from diffusers.schedulers import scheduling_lcm
from PIL import Image

from engines import backends, images, sampler
from engines.bundle import Bundle, Shelf
from engines.images import kept_latents
from engines.images.metrics import psnr_db
from engines.messages import Failed, Final, Generate, Preview
from engines.studio import Studio
from engines.studio.snapshot import Saver, Snapshot
from engines.toolchain import build
from engines.toolchain.sources import stable_diffusion
from tests.support import builds, tiny_sd
from tests.support.fakes import waves
from tests.support.snapshots import Kept, attempt
from tests.support.tiny_sd import BETAS

# torch's exporter uses a class that torch itself has deprecated
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Euler in diffusers
]
SEED = 11
ENGINES = [name for name in backends.names() if backends.engine(name).probe().ok]
V = {"prediction_type": "v_prediction", **BETAS}
SCHEDULERS = {
    "ddim": lambda: DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **BETAS),
    "ddim-v": lambda: DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **V),
    "euler": lambda: EulerDiscreteScheduler(timestep_spacing="leading", **BETAS),
    "euler-v": lambda: EulerDiscreteScheduler(timestep_spacing="trailing", **V),
    "lcm": lambda: LCMScheduler(**BETAS),
    "lcm-w": lambda: LCMScheduler(**BETAS),
}  # fmt: skip
UNETS: dict[str, dict[str, Any]] = {"lcm-w": {"time_cond_proj_dim": 10}}
# diffusers' pipeline for LCM takes no network that is not told the guidance; its schedule is in test_schedules.py.
FROM_IMAGES = [kind for kind in SCHEDULERS if kind != "lcm"]
every_kind = pytest.mark.parametrize("kind", list(SCHEDULERS))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each kind; those with the same networks differ in their manifest alone."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("shelf")
    for kind, scheduler in SCHEDULERS.items():
        if kind in ("ddim", *UNETS):
            base = tiny_sd.save(sources / kind, scheduler(), **UNETS.get(kind, {}))
            with pytest.MonkeyPatch.context() as patch:
                builds.lighten(patch)
                build.build_portrait(base, base / "about.toml", folder / kind, "edge-fp32")
        else:
            shutil.copytree(folder / "ddim", folder / kind)
            manifest = json.loads((folder / kind / "bundle.json").read_text(encoding="utf-8"))
            manifest["sampling"]["diffusion"] = asdict(
                stable_diffusion.diffusion(json.loads(scheduler().to_json_string()), {})
            )
            (folder / kind / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def studio(shelf: Path, builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    compiled = tmp_path_factory.mktemp("compiled")
    return Studio(Shelf((shelf, builtin), compiled), tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tokenizer")
    return {kind: tiny_sd.pipeline(folder, make(), **UNETS.get(kind, {})) for kind, make in SCHEDULERS.items()}


@pytest.fixture(autouse=True)
def our_noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """LCM's extra noise in diffusers: ours, counted from a pipeline's first step."""
    counted = {"steps": 0}

    def noise(shape: Any, **how: Any) -> Any:
        counted["steps"] += 1
        return torch.from_numpy(sampler.step_noise(tuple(shape), SEED, counted["steps"]))

    monkeypatch.setattr(scheduling_lcm, "randn_tensor", noise)
    yield


def ours(studio: Studio, request: Generate, folder: Path) -> Any:
    final = list(studio.run(request, folder))[-1]
    assert isinstance(final, Final), final
    return images.read(folder / final.images[0])


def theirs(pipeline: Any, r: Generate) -> Any:
    assert r.width and r.height and r.guidance is not None
    shape = (1, 4, r.height // tiny_sd.STRIDE, r.width // tiny_sd.STRIDE)
    noise = torch.from_numpy(sampler.noise(shape, r.seed))
    latents = noise * 1.0  # the pipeline multiplies by the scheduler's own first level
    with torch.inference_mode():
        picture = pipeline(
            r.prompt, negative_prompt=r.negative or None, latents=latents, height=r.height, width=r.width,
            num_inference_steps=r.steps, guidance_scale=r.guidance + 1, output_type="np",
        ).images[0]  # fmt: skip
    return np.rint(picture * 255).astype(np.uint8)


def compare(studio: Studio, pipeline: Any, request: Generate, folder: Path) -> None:
    mine, other = ours(studio, request, folder), theirs(pipeline, request)
    assert mine.shape == other.shape and mine.std() > 10  # two blank pictures would agree too
    assert psnr_db(mine, other) >= (60 if request.backend == "torch" else 50)


@pytest.mark.parametrize(("steps", "guidance"), [(1, 0.0), (4, 0.0), (4, 6.5)])
@pytest.mark.parametrize("backend", ENGINES)
@every_kind
def test_pictures_are_the_pipelines(
    studio: Studio, pipelines: dict[str, Any], tmp_path: Path, kind: str, backend: str, steps: int, guidance: float
) -> None:
    request = Generate("the portrait", "", 64, 64, steps, guidance, SEED, bundle=kind, backend=backend)
    compare(studio, pipelines[kind], request, tmp_path)


@pytest.mark.parametrize("backend", ENGINES)
@every_kind
def test_what_was_broken_off_goes_on_to_the_same_picture(
    studio: Studio, tmp_path: Path, kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: no sampler remembers the steps before, and their noise is a stream of its own for each of them."""
    monkeypatch.setattr(Saver, "due", True)
    request = Generate("the portrait", "dark", 64, 64, 4, 1.5, SEED, bundle=kind, backend=backend, preview="off")
    whole, kept = ours(studio, request, tmp_path), Kept()
    attempt(studio, request, tmp_path, kept, events=5)
    assert kept.body is not None and Snapshot.unpack(kept.body).step == 3
    final = attempt(studio, request, tmp_path, kept)[-1]
    assert isinstance(final, Final) and np.array_equal(images.read(tmp_path / final.images[0]), whole)


@pytest.mark.parametrize(("width", "height"), [(72, 64), (64, 136), (200, 64), (80, 80)])
@pytest.mark.parametrize("backend", ENGINES)
def test_every_size_is_the_pipelines(
    studio: Studio, pipelines: dict[str, Any], tmp_path: Path, backend: str, width: int, height: int
) -> None:
    """Cells that do not halve evenly three times among them."""
    request = Generate("a man", "", width, height, 2, 1.5, SEED, bundle="ddim", backend=backend)
    compare(studio, pipelines["ddim"], request, tmp_path)


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [("a", "dark"), ("一位女士的肖像 🙂", "模糊, 水印"), ("long hair, " * 60, "blurred, " * 90), ("THE Portrait", " ")],
)
@pytest.mark.parametrize("backend", ENGINES)
def test_words_are_read_as_the_pipeline_reads_them(
    studio: Studio, pipelines: dict[str, Any], tmp_path: Path, backend: str, prompt: str, negative: str
) -> None:
    request = Generate(prompt, negative, 64, 64, 3, 4.0, SEED, bundle="euler", backend=backend)
    compare(studio, pipelines["euler"], request, tmp_path)


def as_a1111(pipeline: Any, words: list[tuple[str, float]]) -> Any:
    """
    The embedding of weighted words, written out after modules/sd_hijack_clip.py: the tokens of each text with its
    weight, what the encoder makes of all, times the weights, with the mean that it had.
    """
    tokenizer, ids, weights = pipeline.tokenizer, [pipeline.tokenizer.bos_token_id], [1.0]
    for text, weight in words:
        some = tokenizer(text, add_special_tokens=False).input_ids
        ids, weights = ids + some, weights + [weight] * len(some)
    ids, weights = ids + [tokenizer.eos_token_id] * (77 - len(ids)), weights + [1.0] * (77 - len(weights))
    with torch.inference_mode():
        rows = pipeline.text_encoder(torch.tensor([ids])).last_hidden_state
        weighed = rows * torch.tensor(weights).reshape(1, 77, 1)
        return weighed * (rows.mean() / weighed.mean())


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("kind", ["euler", "lcm-w"])
def test_weighted_words_are_weighted_as_in_a1111(
    studio: Studio, pipelines: dict[str, Any], tmp_path: Path, kind: str, backend: str
) -> None:
    """Of the negative prompt too, where one is read. Toys that drop the brackets, or read them as text, are far off."""
    pipeline, guidance = pipelines[kind], 3.0
    prompt, negative = "the (portrait:1.8) and [it], 一 (红:0.3)", "(dark:1.6) it"
    asked = Generate(prompt, negative, 64, 64, 3, guidance, SEED, bundle=kind, backend=backend)
    words = [("the", 1.0), ("portrait", 1.8), ("and", 1.0), ("it", 1 / 1.1), (", 一", 1.0), ("红", 0.3)]
    wanted, unwanted = as_a1111(pipeline, words), as_a1111(pipeline, [("dark", 1.6), ("it", 1.0)])
    mine = ours(studio, asked, tmp_path)
    noise = torch.from_numpy(sampler.noise((1, 4, 32, 32), SEED))
    with torch.inference_mode():
        picture = pipeline(
            prompt_embeds=wanted, negative_prompt_embeds=unwanted, latents=noise, height=64, width=64,
            num_inference_steps=3, guidance_scale=guidance + 1, output_type="np",
        ).images[0]  # fmt: skip
    bar = 60 if backend == "torch" else 50
    assert psnr_db(mine, np.rint(picture * 255).astype(np.uint8)) >= bar
    plain = ours(studio, replace(asked, prompt="the portrait and it, 一 红", negative="dark it"), tmp_path)
    assert psnr_db(mine, plain) < bar - 10


@pytest.fixture
def img2img(pipelines: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """diffusers' pipelines from image to image, with our noise and without the autoencoder's own."""

    def noise(shape: Any, **how: Any) -> Any:
        return torch.from_numpy(sampler.noise(tuple(shape), SEED))

    for module in (pipeline_stable_diffusion_img2img, pipeline_latent_consistency_img2img):
        monkeypatch.setattr(module, "randn_tensor", noise)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda drawn, generator=None: drawn.mode())
    made = {}
    for kind, plain in pipelines.items():
        if kind not in FROM_IMAGES:
            continue
        known = LatentConsistencyModelImg2ImgPipeline if kind.startswith("lcm") else StableDiffusionImg2ImgPipeline
        made[kind] = known(**plain.components, requires_safety_checker=False)
        made[kind].set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(("steps", "strength", "size"), [(4, 0.5, (64, 64)), (8, 0.3, (72, 64)), (8, 0.9, (64, 80))])
@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("kind", FROM_IMAGES)
def test_a_photo_as_the_start_is_the_pipelines(
    studio: Studio, img2img: dict[str, Any], tmp_path: Path, kind: str, backend: str, steps: int, strength: float,
    size: tuple[int, int],
) -> None:  # fmt: skip
    images.write_png(tmp_path / "photo.png", waves(*size))
    guidance = 1.5
    request = Generate(
        "the portrait", "", *size, steps, guidance, SEED, bundle=kind, backend=backend,
        start=str(tmp_path / "photo.png"), strength=strength,
    )  # fmt: skip
    with torch.inference_mode(), Image.open(tmp_path / "photo.png") as photo:
        picture = img2img[kind](
            "the portrait", image=photo, strength=strength, num_inference_steps=steps, guidance_scale=guidance + 1,
            output_type="np",
        ).images[0]  # fmt: skip
    mine, other = ours(studio, request, tmp_path), np.rint(picture * 255).astype(np.uint8)
    assert mine.shape == other.shape == (size[1], size[0], 3) and mine.std() > 10
    assert psnr_db(mine, other) >= (60 if backend == "torch" else 50)
    assert psnr_db(ours(studio, replace(request, start=""), tmp_path), other) < 40, "the photo matters"


def test_the_comparison_would_notice(studio: Studio, pipelines: dict[str, Any], tmp_path: Path) -> None:
    first = Generate("a portrait", "", 64, 64, 3, 4.0, SEED, bundle="ddim", backend="torch")
    picture = ours(studio, first, tmp_path)
    for other in (
        Generate("a portrait.", "", 64, 64, 3, 4.0, SEED),
        Generate("a portrait", "dark", 64, 64, 3, 4.0, SEED),
        Generate("a portrait", "", 64, 64, 3, 4.1, SEED),
        Generate("a portrait", "", 64, 64, 3, 4.0, SEED + 1),
        Generate("a portrait", "", 64, 64, 4, 4.0, SEED),
    ):
        assert psnr_db(picture, theirs(pipelines["ddim"], other)) < 60


@every_kind
def test_one_seed_is_one_picture_on_every_engine(studio: Studio, tmp_path: Path, kind: str) -> None:
    pictures = [ours(studio, Generate("a man", seed=5, bundle=kind, backend=name), tmp_path) for name in ENGINES]
    assert len(pictures) >= 2 and all(psnr_db(pictures[0], other) >= 50 for other in pictures[1:])


def test_a_network_that_is_told_the_guidance_heeds_it(studio: Studio, tmp_path: Path) -> None:
    for name in ENGINES:
        weak, strong = (
            ours(studio, Generate("a", seed=5, guidance=g, bundle="lcm-w", backend=name), tmp_path) for g in (0.0, 9.0)
        )
        assert (weak != strong).mean() > 0.1


@every_kind
def test_every_step_can_be_looked_at(studio: Studio, tmp_path: Path, kind: str) -> None:
    """From the tiny decoder; the last preview is what the tiny decoder makes of the finished latents."""
    studio.paces.clear()
    request = Generate("a man", seed=5, steps=4, bundle=kind, backend="ort", preview="live")
    previews = [event for event in studio.run(request, tmp_path) if isinstance(event, Preview)]
    assert previews[0].step == 1 and [event.step for event in previews[-2:]] == [4, 4]
    assert [event.decoder for event in previews[-2:]] == ["tiny", "vae"]
    assert all(images.read(tmp_path / event.image).std() > 1 for event in previews)


@every_kind
def test_finished_latents_are_kept_and_developed(studio: Studio, tmp_path: Path, kind: str) -> None:
    request = Generate("a man", seed=5, steps=2, bundle=kind, backend="ort", preview="only")
    final = list(studio.run(request, tmp_path))[-1]
    assert isinstance(final, Final)
    latents = kept_latents.read(tmp_path, final.images[0]).latents
    assert latents.shape == (1, 4, 32, 32) and latents.dtype == np.float32
    loaded, _ = studio.loaded_bundles.get(kind, "ort")
    full = ours(studio, Generate("a man", seed=5, steps=2, bundle=kind, backend="ort"), tmp_path)
    assert (loaded.decoder.decode(latents) == full).all()


def test_the_text_in_a_picture_names_the_sampler_as_others_do(studio: Studio, tmp_path: Path) -> None:
    final = list(studio.run(Generate("a man", seed=5, guidance=6.5, bundle="euler-v", backend="ort"), tmp_path))[-1]
    assert isinstance(final, Final)
    with Image.open(tmp_path / final.images[0]) as image:
        assert "Sampler: Euler," in image.info["parameters"] and "CFG scale: 7.5," in image.info["parameters"]


def test_a_size_between_two_cells_is_refused(studio: Studio, tmp_path: Path) -> None:
    failed = list(studio.run(Generate("p", width=66, height=64, bundle="ddim"), tmp_path))[-1]
    assert isinstance(failed, Failed) and failed.code == "bad_size" and failed.facts["multiple"] == 4


def test_a_bundle_is_a_source_and_stays_what_it_was(shelf: Path, tmp_path: Path) -> None:
    """Built again from the bundle: same constants, same words, same picture."""
    shutil.copytree(shelf / "lcm-w", tmp_path / "shelf" / "first")
    with pytest.MonkeyPatch.context() as patch:
        builds.lighten(patch)
        again = build.build_portrait(tmp_path / "shelf" / "first", None, tmp_path / "shelf" / "again", "edge-fp32")
    first = Bundle.open(tmp_path / "shelf" / "first")
    assert (again.sampling, again.text, again.sizes) == (first.sampling, first.text, first.sizes)
    studio = Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state")
    one, other = (ours(studio, Generate("a", seed=1, bundle=name), tmp_path) for name in ("first", "again"))
    assert (one == other).all()
