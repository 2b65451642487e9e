"""Stable Diffusion's schedules: whole trajectories against diffusers' schedulers, and what can be said without them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import sampler
from engines.bundle import Diffusion, Sampling
from engines.errors import BundleError, OptionError
from engines.families import FAMILIES, sd
from engines.sampler import Latents, Schedule

SHAPE = (1, 4, 6, 8)
SEED = 21
COUNTS = range(1, 51)
every_scheduler = pytest.mark.parametrize("scheduler", ["lcm", "ddim", "euler"])


def drawn(seed: int) -> Latents:
    return np.random.default_rng((3, seed)).standard_normal(SHAPE, dtype=np.float32)


def network(shown: Latents, i: int) -> Latents:
    """What it tells at step i: about as much of what it is shown as a true one would, so that nothing grows."""
    return np.float32(0.9) * shown + np.float32(0.4) * drawn(i)


def sampling(**how: Any) -> Sampling:
    return Sampling(4, 1.0, 4, 8, 0.18215, 0.0, 1.5, Diffusion(**how))


def ours(schedule: Schedule, photo: Latents | None = None) -> list[tuple[Latents, Latents, Latents]]:
    """By step: what the network is shown, the guess, the next x."""
    x, found = schedule.begin(sampler.noise(SHAPE, SEED), photo), []
    for i, step in enumerate(schedule.steps, start=1):
        shown = step.model_input(x)
        told = network(shown, i)
        fresh = sampler.step_noise(SHAPE, SEED, i) if step.noisy else None
        guess, x = step.pred_x0(x, told), step.next(x, told, fresh)
        found.append((shown, guess, x))
    return found


def theirs(scheduler: Any, steps: int) -> list[tuple[Latents, Latents, Latents]]:
    import torch

    scheduler.set_timesteps(steps)
    x = torch.from_numpy(sampler.noise(SHAPE, SEED)) * scheduler.init_noise_sigma
    return their_steps(scheduler, scheduler.timesteps, x)


def theirs_from(photo: Latents, scheduler: Any, steps: int, strength: float) -> list[tuple[Latents, Latents, Latents]]:
    """As their pipelines from image to image begin and go on, by their own functions."""
    import torch
    from diffusers import LCMScheduler, StableDiffusionImg2ImgPipeline

    if isinstance(scheduler, LCMScheduler):  # LatentConsistencyModelImg2ImgPipeline
        scheduler.set_timesteps(steps, strength=strength)
        timesteps = scheduler.timesteps
    else:
        scheduler.set_timesteps(steps)
        pipeline: Any = SimpleNamespace(scheduler=scheduler)
        timesteps, left = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
        assert left == len(timesteps)
    clean, noise = torch.from_numpy(photo), torch.from_numpy(sampler.noise(SHAPE, SEED))
    return their_steps(scheduler, timesteps, scheduler.add_noise(clean, noise, timesteps[:1]))


def their_steps(scheduler: Any, timesteps: Any, x: Any) -> list[tuple[Latents, Latents, Latents]]:
    import torch

    found = []
    for i, t in enumerate(timesteps, start=1):
        shown = scheduler.scale_model_input(x, t)
        x, guess = scheduler.step(torch.from_numpy(network(shown.numpy(), i)), t, x, return_dict=False)
        found.append(tuple(value.numpy() for value in (shown, guess, x)))
    return found


@pytest.fixture
def our_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers' LCM draws from a generator of torch's; here it gets what our steps add."""
    torch = pytest.importorskip("torch", reason="compares with diffusers")
    lcm = pytest.importorskip("diffusers.schedulers.scheduling_lcm", reason="compares with diffusers")
    counted = {"steps": 0}

    def noise(shape: Any, **how: Any) -> Any:
        counted["steps"] += 1
        return torch.from_numpy(sampler.step_noise(tuple(shape), SEED, counted["steps"]))

    plain = lcm.LCMScheduler.set_timesteps

    def begin(self: Any, *args: Any, **how: Any) -> None:
        counted["steps"] = 0
        plain(self, *args, **how)

    monkeypatch.setattr(lcm, "randn_tensor", noise)
    monkeypatch.setattr(lcm.LCMScheduler, "set_timesteps", begin)


LEADING, SHIFTED, TRAILING, EVEN = (
    {"spacing": "leading"},
    {"spacing": "leading", "steps_offset": 1},
    {"spacing": "trailing"},
    {"spacing": "linspace"},
)
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("lcm", {}),
    ("lcm", {"original_steps": 100, "boundary_scale": 1.0}),
    ("ddim", LEADING),
    ("ddim", {**SHIFTED, "alpha_to_one": False}),
    ("ddim", TRAILING),
    ("ddim", {**EVEN, "alpha_to_one": False}),
    *(("euler", how) for how in (LEADING, SHIFTED, TRAILING, EVEN)),
]
NAMES = {
    "spacing": "timestep_spacing", "alpha_to_one": "set_alpha_to_one", "original_steps": "original_inference_steps",
    "boundary_scale": "timestep_scaling",
}  # fmt: skip


def made_by_diffusers(scheduler: str, how: dict[str, Any], prediction: str) -> Any:
    import diffusers

    name = {"lcm": "LCMScheduler", "ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler"}[scheduler]
    plain = {} if scheduler == "euler" else {"clip_sample": False}
    constants = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", **plain}
    changes = {NAMES.get(key, key): value for key, value in how.items()}
    return getattr(diffusers, name)(prediction_type=prediction, **constants, **changes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("scheduler", "how"), KINDS)
def test_whole_trajectories_are_diffusers(
    our_noise: None, scheduler: str, how: dict[str, Any], prediction: str
) -> None:
    """Of 1 to 50 steps: what the network is shown and told, every guess, every step."""
    reference = made_by_diffusers(scheduler, how, prediction)
    for steps in COUNTS:
        schedule = sd.schedule(sampling(scheduler=scheduler, prediction=prediction, **how), steps, 0.0)
        pairs = list(zip(ours(schedule), theirs(reference, steps), strict=True))
        assert len(pairs) == steps
        assert np.abs([step.level for step in schedule.steps] - reference.timesteps.numpy()).max() <= 1e-4
        for mine, other in pairs:
            for a, b in zip(mine, other, strict=True):
                assert a.dtype == np.float32 and np.abs(a - b).max() <= 1e-4, steps


def test_guidance_is_the_pipelines() -> None:
    """diffusers: negative + scale * (positive - negative), and scale is ours plus one."""
    positive, negative = drawn(0), drawn(1)
    expected = negative + np.float32(7.5) * (positive - negative)
    assert np.abs(sampler.guide(positive, negative, 6.5) - expected).max() <= 1e-5


@every_scheduler
def test_a_network_that_is_told_the_guidance_runs_once_a_step(scheduler: Any) -> None:
    schedule = sd.schedule(sampling(scheduler=scheduler, guidance_embedded=True), 4, 7.0)
    assert schedule.guidance == 0 and schedule.extras["guidance"].tolist() == [7.0]
    assert schedule.extras["guidance"].dtype == np.float32
    plain = sd.schedule(sampling(scheduler=scheduler), 4, 7.0)
    assert plain.guidance == 7 and not plain.extras
    assert plain.words["CFG scale"] == schedule.words["CFG scale"] == "8"


def test_only_lcm_adds_noise_and_not_at_its_last_step() -> None:
    for scheduler, noisy in {"lcm": [True, True, False], "ddim": [False] * 3, "euler": [False] * 3}.items():
        schedule = sd.schedule(sampling(scheduler=scheduler), 3, 0.0)
        assert [step.noisy for step in schedule.steps] == noisy
    assert not any(step.noisy for step in FAMILIES["zimage"].schedule(sampling(scheduler="lcm"), 3, 0.0).steps)


def test_every_step_adds_noise_of_its_own() -> None:
    """The same on every machine and in every version: these numbers may never change."""
    first, second = sampler.step_noise((1, 1, 2, 2), 7, 1), sampler.step_noise((1, 1, 2, 2), 7, 2)
    assert (first != second).all() and (first != sampler.noise((1, 1, 2, 2), 7)).all()
    assert (first != sampler.step_noise((1, 1, 2, 2), 8, 1)).all() and first.dtype == np.float32
    assert (first == sampler.step_noise((1, 1, 2, 2), 7, 1)).all()


@every_scheduler
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_network_ends_at_its_picture(scheduler: Any, prediction: Any) -> None:
    """It tells the noise, or v, that is truly in x; so every guess is the picture, and the end too."""
    clean, how = drawn(5) * np.float32(0.5), Diffusion(scheduler, prediction)
    schedule, a = sd.schedule(sampling(scheduler=scheduler, prediction=prediction), 8, 0.0), sd.alphas(how)
    x = sampler.noise(SHAPE, SEED) * np.float32(schedule.noise_scale)
    for i, step in enumerate(schedule.steps, start=1):
        share = a[round(step.level)]
        inside = step.model_input(x) if scheduler == "euler" else x
        noise = (inside - share**0.5 * clean) / (1 - share) ** 0.5
        told = noise if prediction == "epsilon" else share**0.5 * noise - (1 - share) ** 0.5 * clean
        fresh = sampler.step_noise(SHAPE, SEED, i) if step.noisy else None
        assert np.abs(step.pred_x0(x, told.astype(np.float32)) - clean).max() <= 1e-3
        x = step.next(x, told.astype(np.float32), fresh)
    assert np.abs(x - clean).max() <= 1e-3


@pytest.mark.parametrize(("scheduler", "steps"), [("lcm", 51), ("lcm", 0), ("ddim", 1001), ("euler", 0)])
def test_more_steps_than_there_are_is_the_askers_mistake(scheduler: str, steps: int) -> None:
    with pytest.raises(OptionError, match="steps"):
        sd.schedule(sampling(scheduler=scheduler), steps, 0.0)


def test_a_bundle_that_says_nothing_about_diffusion_is_refused() -> None:
    with pytest.raises(BundleError, match="diffusion"):
        sd.schedule(Sampling(4, 1.0, 4, 8, 0.18215, 0.0), 4, 0.0)


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (8, 3.0), (50, 6.0)])
def test_flow_matching_is_the_samplers_own_steps(steps: int, shift: float) -> None:
    schedule = FAMILIES["zimage"].schedule(Sampling(8, shift, 4, 8, 1.0, 0.0), steps, 2.0)
    levels = [float(level) for level in sampler.sigmas(steps, shift)]
    assert [step.level for step in schedule.steps] == levels[:-1]
    assert schedule.noise_scale == 1 and schedule.guidance == 2
    x, told = drawn(0), drawn(1)
    for step, after in zip(schedule.steps, levels[1:], strict=True):
        assert (step.next(x, told, None) == sampler.step(x, told, step.level, after)).all()
        assert (step.pred_x0(x, told) == sampler.pred_x0(x, told, step.level)).all() and step.model_input(x) is x


# ---- a photo as the start


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("scheduler", "how"), KINDS)
def test_a_photo_is_the_start_of_diffusers_trajectories(
    our_noise: None, scheduler: str, how: dict[str, Any], prediction: str
) -> None:
    """How many steps, which levels, how much noise over the photo, and where it ends."""
    reference, photo, counts = made_by_diffusers(scheduler, how, prediction), drawn(77), []
    for steps in (1, 2, 7, 8, 25, 50):
        for strength in (0.04, 0.125, 0.3, 0.5, 0.6, 0.7, 0.9, 0.99):
            enough = strength * how.get("original_steps", 50) >= steps if scheduler == "lcm" else strength * steps >= 1
            if not enough:  # there they refuse, or do nothing
                continue
            schedule = sd.schedule(sampling(scheduler=scheduler, prediction=prediction, **how), steps, 0.0, strength)
            mine, other = ours(schedule, photo), theirs_from(photo, reference, steps, strength)
            for a, b in zip(mine, other, strict=True):
                assert all(np.abs(x - y).max() <= 1e-4 for x, y in zip(a, b, strict=True)), (steps, strength)
            counts.append(len(mine))
    assert len(counts) > 20 and min(counts) < max(counts)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_a_photo_is_the_start_of_z_images_trajectories(shift: float) -> None:
    torch = pytest.importorskip("torch", reason="compares with diffusers")
    diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    photo, noise = drawn(77), sampler.noise(SHAPE, SEED)
    for steps in (1, 2, 8, 10, 50):
        for strength in (0.01, 0.125, 0.3, 0.6, 0.7, 0.9, 1.0):
            schedule = FAMILIES["zimage"].schedule(Sampling(8, shift, 4, 8, 1.0, 0.0), steps, 0.0, strength)
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
            pipeline: Any = SimpleNamespace(scheduler=scheduler)
            timesteps, left = diffusers.ZImageImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
            clean, pure = torch.from_numpy(photo), torch.from_numpy(noise)
            x = scheduler.scale_noise(clean, timesteps[:1], pure)
            mine = schedule.begin(noise, photo)
            assert np.abs(mine - x.numpy()).max() <= 1e-5
            assert len(schedule.steps) == left == len(timesteps)
            for i, (t, step) in enumerate(zip(timesteps, schedule.steps, strict=True)):
                told = network(mine, i)
                assert abs(step.level - float(t) / 1000) <= 1e-6
                x = scheduler.step(torch.from_numpy(told), t, x, return_dict=False)[0]
                mine = step.next(mine, told, None)
                assert np.abs(mine - x.numpy()).max() <= 1e-4, (steps, strength)


every_family = pytest.mark.parametrize("scheduler", ["lcm", "ddim", "euler", "flow"])


def of_family(scheduler: Any, steps: int, strength: float) -> Schedule:
    if scheduler == "flow":
        return FAMILIES["zimage"].schedule(Sampling(8, 3.0, 4, 8, 1.0, 0.0), steps, 0.0, strength)
    return sd.schedule(sampling(scheduler=scheduler), steps, 0.0, strength)


@every_family
@pytest.mark.parametrize("steps", [1, 8, 50])
def test_the_full_strength_is_no_photo_at_all(scheduler: str, steps: int) -> None:
    plain, whole = of_family(scheduler, steps, 1.0), of_family(scheduler, steps, 0.99999)
    assert plain.photo_scale == 0 and len(plain.steps) == steps >= len(whole.steps)
    noise = sampler.noise(SHAPE, SEED)
    assert (plain.begin(noise, drawn(1)) == plain.begin(noise)).all()


@every_family
@pytest.mark.parametrize("steps", [1, 4, 8, 50])
def test_the_less_strength_the_more_photo_and_one_step_at_least(scheduler: str, steps: int) -> None:
    schedules = [of_family(scheduler, steps, k / 40) for k in range(41)]
    noise_shares = [
        schedule.noise_scale / np.hypot(schedule.noise_scale, schedule.photo_scale) for schedule in schedules
    ]
    assert noise_shares == sorted(noise_shares)
    assert len(schedules[0].steps) == 1 and schedules[0].photo_scale > 0 or steps == 1
    assert all(1 <= len(schedule.steps) <= steps for schedule in schedules)


@every_family
def test_strength_that_tends_to_nothing_gives_the_photo_back(scheduler: str) -> None:
    """Before any network is asked: what it is shown is the photo, but for a trace of noise."""
    schedule = of_family(scheduler, 50, 0.0)
    shown = schedule.begin(sampler.noise(SHAPE, SEED), drawn(1)) / np.float32(schedule.photo_scale)
    assert np.corrcoef(shown.ravel(), drawn(1).ravel())[0, 1] > 0.98
    assert schedule.steps[0].level < (0.06 if scheduler == "flow" else 21)
