"""The sampler: diffusers' schedule and steps, and the little algebra that previews and guidance rest on."""

from __future__ import annotations

import numpy as np
import pytest

from engines import sampler


def drawn(seed: int, shape: tuple[int, ...] = (1, 4, 6, 8)) -> sampler.Latents:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_the_schedule_is_diffusers(shift: float) -> None:
    pytest.importorskip("diffusers", reason="compares with diffusers")
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

    for steps in range(1, 51):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(steps, sigmas=get_default_z_image_sigmas(steps))
        ours = sampler.sigmas(steps, shift)
        assert ours.dtype == np.float32 and ours.shape == (steps + 1,)
        assert np.abs(ours - scheduler.sigmas.numpy()).max() <= 1e-6


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_the_steps_are_diffusers(steps: int, shift: float) -> None:
    torch = pytest.importorskip("torch", reason="compares with diffusers")
    pytest.importorskip("diffusers", reason="compares with diffusers")
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps, sigmas=get_default_z_image_sigmas(steps))
    levels = sampler.sigmas(steps, shift)
    ours, theirs = drawn(0), torch.from_numpy(drawn(0))
    for i, t in enumerate(scheduler.timesteps):
        velocity = drawn(i + 1)
        ours = sampler.step(ours, velocity, float(levels[i]), float(levels[i + 1]))
        theirs = scheduler.step(torch.from_numpy(velocity), t, theirs, return_dict=False)[0]
        assert np.abs(ours - theirs.numpy()).max() <= 1e-6 * max(1.0, np.abs(ours).max())
    assert ours.dtype == np.float32


@pytest.mark.parametrize(("steps", "shift"), [(1, 3.0), (8, 1.0), (8, 3.0), (50, 6.0)])
def test_levels_fall_from_noise_to_picture(steps: int, shift: float) -> None:
    levels = sampler.sigmas(steps, shift)
    assert levels[0] == 1 and levels[-1] == 0
    assert (np.diff(levels) < 0).all()


def test_a_shift_spends_more_steps_at_high_noise() -> None:
    assert np.median(sampler.sigmas(20, 6.0)) > np.median(sampler.sigmas(20, 3.0)) > np.median(sampler.sigmas(20, 1.0))


def test_one_seed_is_one_noise() -> None:
    shape = (1, 16, 32, 32)
    first = sampler.noise(shape, 7)
    assert first.dtype == np.float32 and first.shape == shape
    assert (first == sampler.noise(shape, 7)).all()
    assert (first != sampler.noise(shape, 8)).mean() > 0.99
    assert abs(first.mean()) < 0.03 and abs(first.std() - 1) < 0.03


def test_noise_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Pictures are shared by their seed: these numbers may never change."""
    expected = [1.5219693183898926, -1.1441057920455933, 1.150161623954773, -1.7846531867980957]
    assert sampler.noise((1, 1, 2, 2), 7).ravel().tolist() == expected


@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.05])
def test_the_clean_guess_is_where_one_step_to_zero_would_end(sigma: float) -> None:
    x, velocity = drawn(0), drawn(1)
    assert np.abs(sampler.pred_x0(x, velocity, sigma) - sampler.step(x, velocity, sigma, 0.0)).max() <= 1e-6


@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.05])
def test_the_clean_guess_of_a_perfect_network_is_the_picture(sigma: float) -> None:
    """x = (1 - sigma) * clean + sigma * noise, so dx / dsigma = noise - clean."""
    clean, noise = drawn(0), drawn(1)
    x = np.float32(1 - sigma) * clean + np.float32(sigma) * noise
    assert np.abs(sampler.pred_x0(x, noise - clean, sigma) - clean).max() <= 1e-6


def test_the_noise_of_prompts_is_a_stream_of_its_own() -> None:
    shape = (1, 1, 2, 4)
    streams = [
        sampler.noise(shape, 7),
        sampler.prompt_noise(shape, 7),
        *(sampler.step_noise(shape, 7, k) for k in (1, 2)),
    ]
    assert len({stream.tobytes() for stream in streams}) == 4
    assert (sampler.prompt_noise(shape, 7) == sampler.prompt_noise(shape, 7)).all()
    expected = np.random.default_rng((7, 0, 1)).standard_normal(3, dtype=np.float32)
    assert (sampler.prompt_noise((1, 1, 3), 7) == expected).all(), "pictures are shared: it may never change"


def test_variety_is_relative_to_each_row() -> None:
    """A network with larger numbers is varied as much as one with smaller ones; and a row of nothings stays one."""
    rows = np.random.default_rng(0).standard_normal((1, 3, 4000), dtype=np.float32) * np.float32([[[1], [300], [0]]])
    for variety, share in ((100, 1.5), (50, 0.75)):
        varied = sampler.vary(rows, 5, variety)
        change = np.sqrt(np.mean((varied - rows) ** 2, -1))[0]
        assert varied.dtype == np.float32 and varied.shape == rows.shape
        assert change[:2] / np.sqrt(np.mean(rows**2, -1))[0, :2] == pytest.approx([share, share], rel=0.05)
        assert change[2] == 0
    assert (sampler.vary(rows, 5, 0) == rows).all() and (sampler.vary(rows, 6, 50) != sampler.vary(rows, 5, 50)).any()


@pytest.mark.parametrize(("steps", "varied"), [(1, 1), (2, 1), (4, 1), (5, 2), (8, 2), (9, 3), (50, 13)])
def test_the_first_quarter_of_the_steps_varies(steps: int, varied: int) -> None:
    assert sampler.varied_steps(steps) == varied


def test_a_weight_is_of_what_words_change() -> None:
    whole, less, other = drawn(0), drawn(1), drawn(2)
    assert sampler.weigh(whole, []) is whole
    assert np.abs(sampler.weigh(whole, [(0.0, less)]) - less).max() <= 1e-6, "as if they were not there"
    assert (sampler.weigh(whole, [(1.0, less)]) == whole).all()
    both = sampler.weigh(whole, [(1.5, less), (0.2, other)])
    assert np.abs(both - (whole + 0.5 * (whole - less) - 0.8 * (whole - other))).max() <= 1e-5
    assert both.dtype == np.float32


def test_weighted_rows_have_the_mean_that_they_had() -> None:
    rows = np.float32([[[1, 2], [3, 4], [5, 9]]])
    weighed = sampler.weigh_rows(rows, np.float32([1, 2, 0]))
    assert np.abs(weighed - np.float32([[[1, 2], [6, 8], [0, 0]]]) * (24 / 17)).max() <= 1e-5  # sums
    assert weighed.dtype == np.float32


def test_guidance_counts_from_zero() -> None:
    positive, negative = drawn(0), drawn(1)
    assert (sampler.guide(positive, negative, 0.0) == positive).all()
    assert np.abs(sampler.guide(positive, negative, 1.5) - (2.5 * positive - 1.5 * negative)).max() <= 1e-5
    assert sampler.guide(positive, negative, 1.5).dtype == np.float32
    assert np.abs(sampler.guide(positive, positive, 9.0) - positive).max() <= 1e-5
