"""Weighted words in a picture: what is computed, what it costs and what is refused; that a weight does what it says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import backends, images, sampler
from engines.bundle import Bundle, Diffusion, Sampling, Shelf
from engines.errors import OptionError, PromptError, TooManyWeights
from engines.images import kept_latents
from engines.images.metrics import psnr_db
from engines.messages import Event, Failed, Final, Generate, Progress
from engines.messages.prompts import read
from engines.studio import Studio, generate
from engines.studio.generate import GenerationPlan
from tests.support.fakes import FakeClock, FakeEngine, target, write_portrait

STEPS = 4
SD = {"family": "sd", "sampling": asdict(Sampling(STEPS, 3.0, 4, 8, 1.0, 0.0, 1.5, Diffusion("ddim")))}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(engine: FakeEngine, tmp_path: Path) -> Studio:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_portrait(tmp_path / "shelf" / "sd", **SD)
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


def draw(studio: Studio, folder: Path, request: Generate) -> Final:
    final = list(studio.run(request, folder))[-1]
    assert isinstance(final, Final), final
    return final


def latents(studio: Studio, folder: Path, request: Generate) -> Any:
    return kept_latents.read(folder, draw(studio, folder, replace(request, preview="only")).images[0]).latents


def test_each_weight_is_a_guidance_of_its_own(studio: Studio, tmp_path: Path) -> None:
    """The loop written out once more, for weights in the prompt and in the negative one."""
    loaded, _ = studio.loaded_bundles.get("portrait", "auto")

    def embedding(text: str) -> Any:
        return loaded.embedding(text, studio.embeddings)

    drawn = latents(
        studio, tmp_path, Generate("a, (b:1.5), (c:0.2), [d:1]", "e, (f:2)", 96, 64, STEPS, 2.0, 17, bundle="portrait")
    )
    x = np.random.default_rng(17).standard_normal((1, 4, 8, 12), dtype=np.float32)
    levels = sampler.sigmas(STEPS, 3.0)
    for now, after in zip(levels[:-1], levels[1:], strict=True):
        v = {
            text: 0.9 * (x - target(x.shape, embedding(text))) / now
            for text in ("a, b, c, d:1", "a, c, d:1", "a, b, d:1", "a, b, c", "e, f", "e")
        }
        words = v["a, b, c, d:1"]
        wanted = (
            words + 0.5 * (words - v["a, c, d:1"]) - 0.8 * (words - v["a, b, d:1"]) - 0.0909 * (words - v["a, b, c"])
        )
        unwanted = v["e, f"] + (v["e, f"] - v["e"])
        x = x + (after - now) * (wanted + 2.0 * (wanted - unwanted))
    assert np.abs(drawn - x).max() <= 1e-4


@pytest.mark.parametrize(
    ("prompt", "negative", "guidance", "runs"),
    [
        ("a, b", "", 0.0, 1),
        ("a, (b:1)", "", 0.0, 1),
        ("a, ([b])", "", 0.0, 1),
        ("a, (b), (c:1.10)", "", 0.0, 2),  # of one weight
        ("a, (b:0.5), (c)", "", 0.0, 3),
        ("a, (b)", "(e:3), (f:0.5)", 0.0, 2),  # nobody reads it
        ("a, (b)", "(e:1.5), f", 1.0, 4),
    ],
)
def test_a_weight_costs_a_run_of_the_network_in_each_step(
    studio: Studio, engine: FakeEngine, tmp_path: Path, prompt: str, negative: str, guidance: float, runs: int
) -> None:
    draw(studio, tmp_path, Generate(prompt, negative, guidance=guidance, preview="off"))
    assert engine.calls.count("denoiser") == runs * STEPS


def test_weights_of_rows_cost_nothing(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    many = ", ".join(f"({letter}:{0.2 * k:.1f})" for k, letter in enumerate("abcdefgh", start=1))
    draw(studio, tmp_path, Generate(many, "(x:0.3), y", bundle="sd", preview="off"))
    assert engine.calls.count("denoiser") == 2 * STEPS and engine.calls.count("text_encoder") == 2


def test_without_a_weight_the_picture_is_what_it_was(studio: Studio, tmp_path: Path) -> None:
    for bundle in ("portrait", "sd"):
        plain = latents(studio, tmp_path, Generate("a, b", "c", seed=3, bundle=bundle))
        for prompt, negative in (("a, (b:1.0)", "c"), ("a, ([b])", "(c:1)")):
            weighed = latents(studio, tmp_path, Generate(prompt, negative, seed=3, bundle=bundle))
            assert (weighed == plain).all(), (bundle, prompt)
        assert (latents(studio, tmp_path, Generate(r"a, \(b\)", "c", seed=3, bundle=bundle)) != plain).any(), "text"


def test_rows_of_weighted_words_are_multiplied(studio: Studio, tmp_path: Path) -> None:
    """The fake's embedding of a token is its id, so its rows can be told."""
    loaded, _ = studio.loaded_bundles.get("sd", "auto")
    plain = loaded.embedding("ab cd", studio.embeddings)
    weighed = loaded.prompt_embedding(read("a(b c:0.5)d"), studio.embeddings)
    rows = plain * np.float32([1, 1, 0.5, 0.5, 0.5, 1, 1]).reshape(1, 7, 1)  # the template's token on both sides
    assert np.abs(weighed.whole - rows * (plain.mean() / rows.mean())).max() <= 1e-6 and weighed.without == ()
    assert weighed.whole.mean() == pytest.approx(plain.mean(), rel=1e-5) and weighed.whole.dtype == np.float32


@pytest.fixture
def bundles(studio: Studio) -> dict[str, Bundle]:
    return {name: studio.loaded_bundles.get(name, "auto")[0].bundle for name in ("portrait", "sd")}


@pytest.mark.parametrize("bundle", ["portrait", "sd"])
@pytest.mark.parametrize("prompt", ["a (b:2.1)", "a (b:-0.5)", "((((((((a))))))))", "(a:9999)"])
def test_a_weight_out_of_range_is_refused(bundles: dict[str, Bundle], bundle: str, prompt: str) -> None:
    with pytest.raises(OptionError) as caught:
        GenerationPlan.of(Generate(prompt), bundles[bundle])
    assert caught.value.facts["field"] == "weight" and caught.value.facts["allowed"] == "0 … 2"
    GenerationPlan.of(Generate("a", prompt, guidance=0.0), bundles[bundle])  # nobody reads it
    with pytest.raises(OptionError):
        GenerationPlan.of(Generate("a", prompt, guidance=1.0), bundles[bundle])


def test_more_weights_than_can_be_drawn_are_refused(bundles: dict[str, Bundle]) -> None:
    four = "(a:1.2), (b:1.3), (c:1.4), (d:1.5), (e:1.2)"
    with pytest.raises(TooManyWeights) as caught:
        GenerationPlan.of(Generate(four), bundles["portrait"])
    assert caught.value.facts == {"count": 4, "most": 3}
    with pytest.raises(TooManyWeights):
        GenerationPlan.of(Generate("a", four, guidance=1.0), bundles["portrait"])
    GenerationPlan.of(Generate(four), bundles["sd"])
    GenerationPlan.of(Generate(four.replace("1.5", "1.2")), bundles["portrait"])


@pytest.mark.parametrize("prompt", ["()", "( )", "[ ]", "(:1.5)"])
def test_brackets_alone_are_no_words(bundles: dict[str, Bundle], prompt: str) -> None:
    with pytest.raises(PromptError):
        GenerationPlan.of(Generate(prompt), bundles["portrait"])


def test_a_prompt_of_weighted_words_alone_is_held_against_none(studio: Studio, tmp_path: Path) -> None:
    asked = Generate("(red hair:0)", seed=5)
    loaded, _ = studio.loaded_bundles.get("portrait", "auto")
    drawn, x = latents(studio, tmp_path, asked), sampler.noise((1, 4, 8, 8), 5)
    wordless = loaded.embedding("", studio.embeddings)
    for now, after in zip(sampler.sigmas(STEPS, 3.0)[:-1], sampler.sigmas(STEPS, 3.0)[1:], strict=True):
        x = x + (after - now) * 0.9 * (x - target(x.shape, wordless)) / now
    assert np.abs(drawn - x).max() <= 1e-4


def test_a_bundle_without_a_text_encoder_says_the_same_of_weighted_words(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "shelf" / "portrait", ("denoiser", "decoder", "preview_decoder"))
    studio = Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", FakeEngine().select)
    said = [list(studio.run(Generate(prompt), tmp_path / "out"))[-1] for prompt in ("a, b", "a, (b:1.5)")]
    assert all(isinstance(event, Failed) for event in said) and said[0] == said[1]
    assert "text_encoder" in getattr(said[0], "detail", "") and bundle.name in getattr(said[0], "detail", "")


def test_the_recipe_has_the_prompt_as_it_was_written(studio: Studio, tmp_path: Path) -> None:
    written = "a, （b：1.5）, \\(c\\)"
    final = draw(studio, tmp_path, Generate(written, "[d]", guidance=1.0))
    with Image.open(tmp_path / final.images[0]) as image:
        assert image.info["parameters"].startswith(f"{written}\nNegative prompt: [d]\n")


def test_the_time_left_counts_every_run(
    studio: Studio, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last job's steps took says how long these take, though they are of more runs; and the other way."""
    clock = FakeClock()
    monkeypatch.setattr(generate, "time", clock)
    engine.slow_s, engine.sleep = {"denoiser": 1.0}, clock.sleep

    def first(prompt: str) -> float:
        events: list[Event] = list(studio.run(Generate(prompt, seed=1, preview="off"), tmp_path))
        return next(e.eta_s or 0.0 for e in events if isinstance(e, Progress) and e.stage == "encode")

    first("a, b")
    assert [first(said) for said in ("a, b", "a, (b:1.5), (c:0.5)", "a, b")] == [STEPS, 3 * STEPS, STEPS]


def redness(picture: Any) -> float:
    """How much redder than green and blue it is on the whole, in levels."""
    red, green, blue = picture.astype(float).mean((0, 1))
    return float(red - (green + blue) / 2)


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [("一位年轻女士，{}，白色衬衫，灰色背景", "红色长发"), ("一位男士，短发，穿{}，灰色背景", "红色毛衣")],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_weight_does_what_it_says(builtin: Path, tmp_path: Path, prompt: str, phrase: str, seed: int) -> None:
    """With the true network: the more weight, the more red; 0 is as if it were not said, 1 as without brackets."""
    studio = Studio(Shelf((builtin,)), tmp_path / "state")
    asked = Generate(prompt, "", 256, 256, 8, seed=seed, backend="ort", preview="off")

    def picture(said: str) -> Any:
        written = replace(asked, prompt=prompt.format(said).replace("，，", "，"))
        return images.read(tmp_path / draw(studio, tmp_path, written).images[0])

    pictures = [picture(f"({phrase}:{weight})") for weight in (0, 0.5, 1, 1.5, 2)]
    reds = [redness(shown) for shown in pictures]
    assert reds == sorted(reds) and reds[2] > reds[0] + 4 and reds[4] > reds[2] + 1, reds
    assert (pictures[2] == picture(phrase)).all()
    assert psnr_db(pictures[0], picture("")) > 40


def test_every_engine_weighs_alike(builtin: Path, tmp_path: Path) -> None:
    drawn = {}
    for backend in backends.names():
        if backends.engine(backend).probe().ok:
            studio = Studio(Shelf((builtin,)), tmp_path / f"state {backend}")
            asked = Generate("一位女士，(戴眼镜:1.6)，(红发:0.4)", "", 256, 256, STEPS, seed=3, backend=backend)
            try:
                drawn[backend] = images.read(tmp_path / draw(studio, tmp_path, asked).images[0])
            finally:
                studio.loaded_bundles.close()
    assert len(drawn) >= 2, "nothing to compare"
    assert all(psnr_db(picture, drawn["ort"]) > 40 for picture in drawn.values())
