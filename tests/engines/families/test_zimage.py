"""
Our whole way from words to a picture against diffusers' ZImagePipeline: same weights, same noise, same latents, same
picture.

This is what says that sign, time, schedule, guidance, padding, caption and latent scaling are right. It runs the studio
itself; the latents are those it keeps beside a picture made with preview="only".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import images, sampler
from engines.backends import Session
from engines.bundle import Sampling, Shelf
from engines.bundle.signatures import Array
from engines.families import FAMILIES
from engines.images import kept_latents
from engines.messages import Final, Generate
from engines.roles import Decoder
from engines.studio import Studio
from tests.support.fakes import waves

torch = pytest.importorskip("torch", reason="compares with diffusers")
pytest.importorskip("diffusers", reason="compares with diffusers")

SEED = 11


@dataclass
class Recorder:
    """A session that remembers what it returned last."""

    session: Session
    returned: dict[str, Array]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.returned = self.session.run(feeds)
        return self.returned

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def plain(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a template that adds nothing, so that a caption can be one token long."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(built, folder, dirs_exist_ok=True)
    manifest = json.loads((folder / "portrait" / "bundle.json").read_text(encoding="utf-8"))
    manifest["text"]["template"] = "{prompt}"
    (folder / "portrait" / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pipeline(plain: Path) -> Iterator[Any]:
    """diffusers' pipeline over the bundle's own weights."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import PreTrainedTokenizerFast, Qwen3Model

    from tests.support import tiny

    root = plain / "portrait"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(root / "tokenizer.json"), pad_token="<|im_end|>")
    tokenizer.chat_template = "{{ messages[0].content }}"
    float32 = {"torch_dtype": torch.float32}
    made = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny.vae_of(root),
        text_encoder=Qwen3Model.from_pretrained(root / "text_encoder", dtype=torch.float32),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel.from_pretrained(root / "denoiser", **float32),
    )
    made.set_progress_bar_config(disable=True)
    yield made


@pytest.fixture(scope="module")
def studio(plain: Path, builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Shelf((plain, builtin)), tmp_path_factory.mktemp("state"))


def ours(studio: Studio, request: Generate, folder: Path) -> tuple[Array, Array]:
    """The sampler's last latents, and the full decoder's picture as it left the network."""
    final = list(studio.run(request, folder))[-1]
    assert isinstance(final, Final), final
    latents = kept_latents.read(folder, final.images[0]).latents
    loaded, _ = studio.loaded_bundles.get(request.bundle, request.backend)
    recorder = Recorder(loaded.decoder.session, {})
    Decoder(recorder, loaded.sampling).decode(latents)
    return latents, recorder.returned["image"]


def theirs(pipeline: Any, r: Generate) -> tuple[Array, Array]:
    assert r.width and r.height
    noise = torch.from_numpy(sampler.noise((1, 16, r.height // 2, r.width // 2), r.seed))
    how = {"height": r.height, "width": r.width, "num_inference_steps": r.steps, "guidance_scale": r.guidance}
    with torch.inference_mode():
        latents = pipeline(r.prompt, negative_prompt=r.negative, latents=noise, output_type="latent", **how).images
        scaled = latents / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
        return latents.numpy(), pipeline.vae.decode(scaled).sample.numpy()


def compare(studio: Studio, pipeline: Any, request: Generate, folder: Path) -> None:
    latents, image = ours(studio, request, folder)
    their_latents, their_image = theirs(pipeline, request)
    assert latents.shape == their_latents.shape and image.shape == their_image.shape
    assert np.abs(latents - their_latents).max() <= 1e-4
    assert np.abs(image - their_image).max() <= 1e-4
    assert image.std() > 0.05  # two blank pictures would agree too


# Token counts of the picture: 256; 272, 400 and 528 (no multiples of 32); 512.
@pytest.mark.parametrize(
    ("backend", "width", "height"),
    [
        ("pytorch", 64, 64),
        ("pytorch", 64, 68),
        ("pytorch", 100, 64),
        ("pytorch", 64, 132),
        ("pytorch", 128, 64),
        ("edge", 68, 64),
        ("edge", 64, 132),
    ],
)
def test_every_size_is_the_pipelines(
    studio: Studio, pipeline: Any, tmp_path: Path, backend: str, width: int, height: int
) -> None:
    request = Generate("a portrait", "", width, height, 3, 0.0, SEED, backend=backend, preview="only")
    compare(studio, pipeline, request, tmp_path)


@pytest.mark.parametrize(
    ("backend", "tokens"),
    [("pytorch", 1), ("pytorch", 31), ("pytorch", 32), ("pytorch", 33), ("pytorch", 500), ("edge", 1), ("edge", 33)],
)
def test_every_length_of_caption_is_the_pipelines(
    studio: Studio, pipeline: Any, tmp_path: Path, backend: str, tokens: int
) -> None:
    prompt = ("red hair, blue shirt; " * 30)[:tokens]
    assert studio.loaded_bundles.get("portrait", backend)[0].text_encoder.tokens.ids(prompt).shape == (1, tokens)
    request = Generate(prompt, "", 64, 68, 2, 0.0, SEED, backend=backend, preview="only")
    compare(studio, pipeline, request, tmp_path)


# Guidance enlarges what float32 rounds away: most of it is the pipeline's (1000 - t) / 1000; ours is nearer to float64.
@pytest.mark.parametrize(
    ("prompt", "negative", "guidance"),
    [("a man", "x", 0.5), ("x" * 31, "blurred, dark" * 4, 1.0), ("一位女士" * 9, "模糊", 1.5)],
)
@pytest.mark.parametrize("backend", ["pytorch", "edge"])
def test_guidance_is_the_pipelines(
    studio: Studio, pipeline: Any, tmp_path: Path, backend: str, prompt: str, negative: str, guidance: float
) -> None:
    """The pipeline runs both captions in one batch, padded and masked; we run one after the other."""
    request = Generate(prompt, negative, 68, 64, 3, guidance, SEED, backend=backend, preview="only")
    compare(studio, pipeline, request, tmp_path)


@pytest.mark.parametrize("steps", [1, 8])
def test_every_number_of_steps_is_the_pipelines(studio: Studio, pipeline: Any, tmp_path: Path, steps: int) -> None:
    """n steps are n forwards."""
    compare(studio, pipeline, Generate("x", "", 64, 64, steps, 0.0, SEED, preview="only"), tmp_path)


def test_a_caption_that_is_too_long_is_cut_as_the_pipeline_cuts_it(
    studio: Studio, pipeline: Any, tmp_path: Path
) -> None:
    request = Generate("long hair, " * 60, "", 64, 64, 2, 0.0, SEED, preview="only")
    compare(studio, pipeline, request, tmp_path)


def test_the_comparison_would_notice(studio: Studio, pipeline: Any, tmp_path: Path) -> None:
    """Other words, another seed, a half per cent of guidance: each moves the latents by more than the tolerance."""
    r = Generate("a portrait", "", 64, 64, 3, 0.0, SEED, preview="only")
    latents, _ = ours(studio, r, tmp_path)
    for other in (
        Generate("a portrait.", "", 64, 64, 3, 0.0, SEED),
        Generate("a portrait", "", 64, 64, 3, 0.0, SEED + 1),
        Generate("a portrait", "dark", 64, 64, 3, 0.005, SEED),
        Generate("a portrait", "", 64, 64, 4, 0.0, SEED),
    ):
        assert np.abs(latents - theirs(pipeline, other)[0]).max() > 1e-4


@pytest.fixture
def img2img(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """diffusers' pipeline from image to image, with our noise and without the autoencoder's own."""
    from diffusers import ZImageImg2ImgPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from diffusers.pipelines.z_image import pipeline_z_image_img2img

    def noise(shape: tuple[int, ...], **how: Any) -> Any:
        return torch.from_numpy(sampler.noise(shape, SEED))

    monkeypatch.setattr(pipeline_z_image_img2img, "randn_tensor", noise)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda drawn, generator=None: drawn.mode())
    made = ZImageImg2ImgPipeline(**pipeline.components)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("backend", ["pytorch", "edge"])
@pytest.mark.parametrize(
    ("width", "height", "steps", "strength", "guidance"),
    [
        (64, 64, 3, 0.6, 0.0),
        (68, 64, 8, 0.3, 0.0),
        (64, 100, 8, 0.9, 0.0),
        (64, 64, 5, 0.05, 0.5),
        (64, 64, 3, 1.0, 0.0),
    ],
)
def test_a_photo_as_the_start_is_the_pipelines(
    studio: Studio, img2img: Any, tmp_path: Path, backend: str, width: int, height: int, steps: int, strength: float,
    guidance: float,
) -> None:  # fmt: skip
    images.write_png(tmp_path / "photo.png", waves(width, height))
    start = {"start": str(tmp_path / "photo.png"), "strength": strength}
    request = Generate("a man", "x", width, height, steps, guidance, SEED, backend=backend, preview="only", **start)
    latents, _ = ours(studio, request, tmp_path)
    with torch.inference_mode():
        expected = img2img(
            "a man", Image.open(tmp_path / "photo.png"), strength, negative_prompt="x", height=height, width=width,
            num_inference_steps=steps, guidance_scale=guidance, output_type="latent",
        ).images.numpy()  # fmt: skip
    assert latents.shape == expected.shape and np.abs(latents - expected).max() <= 1e-4
    images.write_png(tmp_path / "photo.png", waves(width, height)[::-1])
    other, _ = ours(studio, request, tmp_path)
    assert (np.abs(latents - other).max() > 1e-2) == (steps * (1 - strength) >= 1), "the photo matters"


@pytest.mark.parametrize("sigma", [1.0, 0.25])
def test_time_and_sign_of_z_image(sigma: float) -> None:
    family = FAMILIES["zimage"]
    x, prompt = np.ones((1, 2, 4, 4), np.float32), np.ones((1, 3, 5), np.float32)
    feeds = family.feeds(x, sigma, prompt)
    assert feeds["time"].dtype == np.float32 and feeds["time"].tolist() == [1 - sigma]
    assert feeds["latents"] is x and feeds["prompt"] is prompt
    assert (family.velocity({"velocity": x}) == -x).all()


def test_the_decoder_takes_latents_as_its_autoencoder_was_trained() -> None:
    class Echo:
        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            return {"image": feeds["latents"][:, :3]}

        def close(self) -> None: ...

    latents = np.linspace(-0.3, 0.3, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    pixels = Decoder(Echo(), Sampling(8, 3.0, 3, 1, 0.5, 0.1)).decode(latents)
    assert np.abs(pixels / 127.5 - 1 - (latents[0].transpose(1, 2, 0) / 0.5 + 0.1)).max() <= 0.5 / 127.5 + 1e-6
