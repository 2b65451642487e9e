"""Drawing: what a plan fills in and refuses, when previews are made, and the order of steps."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import sampler
from engines.bundle import Bundle, Shelf
from engines.errors import BundleError, OptionError, PromptError, RequestError, SizeError
from engines.images import kept_latents
from engines.messages import MAX_SEED, Event, Final, Generate, Lora, Preview, PreviewMode, Progress
from engines.roles import to_pixels
from engines.studio import Studio, generate
from engines.studio.generate import GenerationPlan
from engines.studio.timings import Timings
from tests.support.fakes import PORTRAIT_ROLES, STRIDE, FakeClock, FakeEngine, target, write_portrait


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_portrait(tmp_path / "shelf" / "portrait")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What drawing goes by."""
    clock = FakeClock()
    monkeypatch.setattr(generate, "time", clock)
    return clock


@pytest.fixture
def studio(bundle: Bundle, engine: FakeEngine, tmp_path: Path) -> Studio:
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


def draw(studio: Studio, folder: Path, request: Generate) -> list[Event]:
    events = list(studio.run(request, folder))
    assert isinstance(events[-1], Final), events[-1]
    return events


def pixels(folder: Path, name: str) -> Any:
    with Image.open(folder / name) as image:
        return np.array(image.convert("RGB")).astype(int)


def test_a_plan_leaves_nothing_open(bundle: Bundle) -> None:
    plan = GenerationPlan.of(Generate("p"), bundle)
    assert (plan.width, plan.height, plan.steps, plan.guidance) == (64, 64, 4, 0.0)
    assert 0 <= plan.seed <= MAX_SEED
    plan = GenerationPlan.of(Generate("p", "", 96, 128, 9, 2.5, 7), bundle)
    assert (plan.width, plan.height, plan.steps, plan.guidance, plan.seed) == (96, 128, 9, 2.5, 7)
    assert (
        GenerationPlan.of(Generate("p", width=96), bundle).width,
        GenerationPlan.of(Generate("p", width=96), bundle).height,
    ) == (96, 64)


def test_guidance_may_be_switched_off(tmp_path: Path) -> None:
    sampling = {
        "steps": 4,
        "shift": 3.0,
        "latent_channels": 4,
        "latent_stride": 8,
        "latent_scale": 1,
        "latent_shift": 0,
    }
    bundle = write_portrait(tmp_path / "g", sampling={**sampling, "guidance": 1.5})
    assert GenerationPlan.of(Generate("p"), bundle).guidance == 1.5
    assert GenerationPlan.of(Generate("p", guidance=0.0), bundle).guidance == 0.0


def test_seeds_are_drawn_by_lot_and_follow_each_other(bundle: Bundle) -> None:
    assert len({GenerationPlan.of(Generate("p"), bundle).seed for _ in range(20)}) > 15
    plan = GenerationPlan.of(Generate("p", seed=MAX_SEED, count=3), bundle)
    assert [plan.seed_of(k) for k in range(3)] == [MAX_SEED, 0, 1]


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 2048), (2048, 64), (80, 112)])
def test_sizes_that_a_bundle_draws(bundle: Bundle, width: int, height: int) -> None:
    plan = GenerationPlan.of(Generate("p", width=width, height=height), bundle)
    assert (plan.width, plan.height) == (width, height)


@pytest.mark.parametrize(
    ("width", "height"), [(0, 64), (64, 0), (-64, 64), (48, 64), (72, 64), (64, 100), (2064, 64), (64, 10**9)]
)
def test_sizes_that_it_does_not(bundle: Bundle, width: int, height: int) -> None:
    """Two latent cells of 8 px: multiples of 16. No side is 0 by accident: None means the bundle's own."""
    with pytest.raises(RequestError) as caught:
        GenerationPlan.of(Generate("p", width=width, height=height), bundle)
    if isinstance(caught.value, SizeError):
        assert caught.value.facts == {"width": width, "height": height, "multiple": 16, "low": 64, "high": 2048}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Generate(""), PromptError),
        (Generate(" \n\t　"), PromptError),
        (Generate("p", loras=(Lora("skin"),)), OptionError),
    ],
)
def test_what_cannot_be_drawn_is_refused(bundle: Bundle, request_: Generate, error: type[RequestError]) -> None:
    with pytest.raises(error):
        GenerationPlan.of(request_, bundle)


def test_preview_only_needs_a_preview_decoder(tmp_path: Path) -> None:
    bundle = write_portrait(tmp_path / "no-preview", PORTRAIT_ROLES[:3])
    with pytest.raises(OptionError):
        GenerationPlan.of(Generate("p", preview="only"), bundle)
    GenerationPlan.of(Generate("p", preview="live"), bundle)


@pytest.mark.parametrize("change", [{"sampling": None}, {"sizes": []}, {"family": "unheard-of"}])
def test_a_bundle_that_does_not_say_how_to_draw_is_a_bundle_error(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        GenerationPlan.of(Generate("p"), write_portrait(tmp_path / "odd", **change))


@pytest.mark.parametrize(
    ("step_s", "preview_s", "every"),
    [(0.0, 9.0, 1), (1.0, 0.0, 1), (1.0, 0.1, 1), (1.0, 0.101, 2), (1.0, 0.2, 2), (1.0, 1.0, 10), (0.1, 1.0, 100)],
)
def test_looking_takes_a_tenth_of_the_time_at_most(step_s: float, preview_s: float, every: int) -> None:
    assert Timings(step_s, 0.0, preview_s).preview_every() == every


def test_the_time_left_is_that_of_steps_and_decodes() -> None:
    assert Timings().eta_s(8, 1) is None
    assert Timings(step_s=0.5, decode_s=2.0).eta_s(8, 1) == 6.0
    assert Timings(step_s=0.5, decode_s=2.0).eta_s(0, 0) == 0.0
    assert Timings(step_s=0.5, decode_s=2.0, preview_s=0.25).eta_s(8, 1, 4) == 7.0


class Measured(Timings):
    """Whatever this machine takes: a step 1 s, a decode 10 s, a preview 100 s."""

    def eta_s(self, steps: int, decodes: int, looks: int = 0) -> float:
        return steps + 10.0 * decodes + 100.0 * looks


@pytest.mark.parametrize(
    ("preview", "expected"),
    [
        ("off", [28, 27, 26, 25, 24, 24, 13, 12, 11, 10, 10]),
        ("live", [828, 727, 626, 525, 424, 424, 313, 212, 111, 10, 10]),
    ],
)
def test_all_that_is_still_to_be_made_is_in_the_time_left(
    studio: Studio, tmp_path: Path, preview: PreviewMode, expected: list[float]
) -> None:
    """Of two pictures of 4 steps, each shown after each: before anything, at each step, and before each decode."""
    studio.paces = defaultdict(Measured)
    events = draw(studio, tmp_path / "out", Generate("p", steps=4, seed=1, count=2, preview=preview))
    assert [event.eta_s for event in events if isinstance(event, Progress) and event.stage != "load"] == expected


class EveryThird(Timings):
    def preview_every(self) -> int:
        return 3


class Never(Timings):
    """A tiny decoder that takes longer than all the steps."""

    def preview_every(self) -> int:
        return 1000


class EveryOne(Timings):
    def preview_every(self) -> int:
        return 1


def preview_steps(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, Preview) and event.decoder == "tiny"]


@pytest.mark.parametrize(
    ("pace", "steps", "expected"),
    [
        (EveryOne, 5, [1, 2, 3, 4, 5]),
        (EveryThird, 1, [1]),
        (EveryThird, 2, [1, 2]),
        (EveryThird, 7, [1, 2, 4, 6, 7]),
        (EveryThird, 8, [1, 2, 4, 6, 7, 8]),
        (Never, 8, [1, 2, 4, 6, 8]),
        (Never, 16, [1, 4, 8, 12, 16]),
    ],  # fmt: skip
)
def test_previews_keep_their_pace(
    studio: Studio, tmp_path: Path, pace: type[Timings], steps: int, expected: list[int]
) -> None:
    """The first step and the end of each quarter are always shown, however dear that is."""
    studio.paces = defaultdict(pace)
    assert preview_steps(draw(studio, tmp_path / "out", Generate("p", steps=steps, seed=1))) == expected


def test_dear_previews_are_made_less_often(
    studio: Studio, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    engine.slow_s, engine.sleep = {"preview_decoder": 5.0, "denoiser": 1.0}, clock.sleep
    studio.loaded_bundles.get("portrait", "auto")[0].load_all()
    for _ in range(2):
        assert preview_steps(draw(studio, tmp_path / "out", Generate("p", steps=9, seed=1))) == [1, 3, 5, 7, 9]


def test_previews_show_what_the_picture_will_be_not_the_noise(studio: Studio, tmp_path: Path) -> None:
    """The fake network pulls nine tenths of the way at once: its clean guess shows the slope from the first step on."""
    studio.paces = defaultdict(EveryOne)
    events = draw(studio, tmp_path, Generate("p", steps=6, seed=3))
    prompt = studio.loaded_bundles.get("portrait", "auto")[0].embedding("p", studio.embeddings)
    slope = np.repeat(
        np.repeat(-target((1, 4, 8, 8), prompt)[:, :3], STRIDE, 2), STRIDE, 3
    )  # the tiny decoder turns it
    expected = to_pixels(slope).astype(int)
    for event in events:
        if isinstance(event, Preview) and event.decoder == "tiny":
            shown = pixels(tmp_path, event.image)
            assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.9, event


def test_the_loop_is_the_samplers(studio: Studio, tmp_path: Path) -> None:
    """Written out once more, in this test's own words."""
    final = draw(studio, tmp_path, Generate("a man", "dark", 96, 64, 5, 2.0, 17, preview="only"))[-1]
    assert isinstance(final, Final)
    loaded, _ = studio.loaded_bundles.get("portrait", "auto")
    words, others = (loaded.embedding(text, studio.embeddings) for text in ("a man", "dark"))
    x = np.random.default_rng(17).standard_normal((1, 4, 8, 12), dtype=np.float32)
    levels = sampler.sigmas(5, 3.0)
    for now, after in zip(levels[:-1], levels[1:], strict=True):
        towards = [0.9 * (x - target(x.shape, prompt)) / now for prompt in (words, others)]
        x = x + (after - now) * (towards[0] + 2.0 * (towards[0] - towards[1]))
    assert np.abs(kept_latents.read(tmp_path, final.images[0]).latents - x).max() <= 1e-4


@pytest.mark.parametrize(("guidance", "captions", "forwards"), [(0.0, 1, 4), (1.0, 2, 8)])
def test_without_guidance_nobody_reads_the_negative_prompt(
    studio: Studio, engine: FakeEngine, tmp_path: Path, guidance: float, captions: int, forwards: int
) -> None:
    draw(studio, tmp_path, Generate("p", "dark", guidance=guidance, preview="off"))
    assert engine.calls.count("text_encoder") == captions and engine.calls.count("denoiser") == forwards


def test_several_pictures_have_several_seeds(studio: Studio, tmp_path: Path) -> None:
    several = draw(studio, tmp_path, Generate("p", seed=40, count=3))[-1]
    assert isinstance(several, Final) and several.seed == 40 and len(set(several.images)) == 3
    for k, name in enumerate(several.images):
        alone = draw(studio, tmp_path, Generate("p", seed=40 + k))[-1]
        assert isinstance(alone, Final)
        assert (pixels(tmp_path, name) == pixels(tmp_path, alone.images[0])).all()
        with Image.open(tmp_path / name) as image:
            assert f"Seed: {40 + k}," in image.info["parameters"]
    assert (pixels(tmp_path, several.images[0]) != pixels(tmp_path, several.images[1])).any()


def test_the_caption_is_read_once_for_all_pictures(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    draw(studio, tmp_path, Generate("p", seed=1, count=4, preview="off"))
    assert engine.calls == ["text_encoder", *(["denoiser"] * 4 + ["decoder"]) * 4]


def test_the_time_left_falls(studio: Studio, engine: FakeEngine, clock: FakeClock, tmp_path: Path) -> None:
    engine.slow_s, engine.sleep = {"denoiser": 1.0, "decoder": 1.0}, clock.sleep
    draw(studio, tmp_path, Generate("p", seed=1))
    events = draw(studio, tmp_path, Generate("p", seed=1, steps=8, count=2))
    told = [event.eta_s for event in events if isinstance(event, Progress) and event.stage in ("encode", "denoise")]
    assert len(told) == 1 + 16 and all(eta is not None and eta >= 0 for eta in told)
    quarters = [np.mean([eta or 0.0 for eta in told[i : i + 4]]) for i in (0, 4, 8, 12)]
    assert quarters == sorted(quarters, reverse=True) and quarters[0] > 1.5 * quarters[3]


def test_the_first_estimate_is_not_made_up(studio: Studio, tmp_path: Path) -> None:
    first = [event for event in draw(studio, tmp_path, Generate("p")) if isinstance(event, Progress)]
    assert [event.eta_s for event in first if event.stage in ("load", "encode")] == [None, None]
    assert all(event.eta_s is not None for event in first if event.stage == "denoise")
