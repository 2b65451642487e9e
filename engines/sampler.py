"""
Noise, guidance and the shape of a schedule, in numpy; and flow matching by Euler steps, the schedule that needs no
table. One schedule and one seed give one picture on every engine. No state; knows no network.

In flow matching the noise level `sigma` is 1 for pure noise and 0 for the clean latent: x = (1 - sigma) * clean + sigma
* noise. A velocity is dx / dsigma. Schedule and step equal diffusers' FlowMatchEulerDiscreteScheduler, given
ZImagePipeline's sigmas. Other schedules are their families'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VARIETY = 1.5  # times a row; by 2.0 the built-in network loses the background of a prompt in one picture of six
Latents = NDArray[np.float32]  # (1, C, h, w)


class Step(Protocol):
    """One step of a schedule: what the network is given of x, and what becomes of x by the network's output."""

    @property
    def level(self) -> float:
        """How noisy x is, in the numbers that the network is given."""

    @property
    def noisy(self) -> bool:
        """Whether the step adds noise of its own."""

    def model_input(self, x: Latents) -> Latents:
        """Return x as the network takes it. (diffusers: scale_model_input)"""

    def pred_x0(self, x: Latents, output: Latents) -> Latents:
        """Return the prediction of the clean latents: what a preview shows. (diffusers: pred_original_sample)"""

    def next(self, x: Latents, output: Latents, step_noise: Latents | None) -> Latents:
        """Return x at the next level. `step_noise`: standard normal, for a step that is noisy."""


@dataclass(frozen=True)
class Schedule:
    """
    The steps from noise to a picture. `noise_scale`: what pure noise is multiplied by before the first (diffusers:
    init_noise_sigma). `photo_scale`: how much of a photo's latents is added to it; 0: the schedule begins with noise
    alone. `extras`: feeds of the network that do not change from step to step. `words`: how other programs call it, for
    the text in a picture.
    """

    steps: tuple[Step, ...]
    noise_scale: float = 1.0
    photo_scale: float = 0.0
    guidance: float = 0.0  # 0: the network is run once a step, and no negative prompt is read
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def begin(self, noise: Latents, photo: Latents | None = None) -> Latents:
        """Return x before the first step. `photo`: clean latents, for a schedule that begins with some of them."""
        x = noise * np.float32(self.noise_scale)
        return x if photo is None else x + photo * np.float32(self.photo_scale)


def noise(shape: tuple[int, ...], seed: int) -> Latents:
    """Return the standard normal noise that a picture of this seed begins with."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def step_noise(shape: tuple[int, ...], seed: int, step: int) -> Latents:
    """
    Return the standard normal noise that step `step` of a picture adds, counted from 1: a stream of its own for each
    step, so that a step can be done again without those before it. (To numpy the seeds `seed` and `(seed, 0)` are the
    same, hence from 1.)
    """
    return np.random.default_rng((seed, step)).standard_normal(shape, dtype=np.float32)


def prompt_noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return the standard normal noise that varies the prompt of a picture: a stream apart from those above."""
    return np.random.default_rng((seed, 0, 1)).standard_normal(shape, dtype=np.float32)


def vary(embedding: NDArray[np.float32], seed: int, variety: int) -> NDArray[np.float32]:
    """
    Return a prompt's embedding (1, T, D) with noise on it: at a `variety` of 100 VARIETY times as strong as each row
    is, in root mean squares, so that it means the same for every text encoder.
    """
    rms = np.sqrt(np.mean(np.square(embedding), axis=-1, keepdims=True))
    varied: NDArray[np.float32] = embedding + np.float32(VARIETY * variety / 100) * rms * prompt_noise(
        embedding.shape, seed
    )
    return varied


def varied_steps(steps: int) -> int:
    """Return how many of the first steps are drawn by the varied prompt: a quarter, where composition is settled."""
    return math.ceil(steps / 4)


def guide(positive: Latents, negative: Latents, guidance: float) -> Latents:
    """Apply classifier-free guidance as ZImagePipeline counts it: 0 is none. (Ho & Salimans 2022, equation 6)"""
    return positive + np.float32(guidance) * (positive - negative)


def weigh(whole: Latents, without: Sequence[tuple[float, Latents]]) -> Latents:
    """
    Weigh words by what they change: `without` has a weight and what the network gives without the words of this weight.
    Weight 0 is as if they were not there, 1 changes nothing, 2 doubles what they do. (Liu et al. 2022, section 4: the
    conjunction of concepts, each by its own guidance)
    """
    weighed = whole
    for weight, less in without:
        weighed = weighed + np.float32(weight - 1) * (whole - less)
    return weighed


def weigh_rows(embedding: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Multiply the rows of a prompt's embedding (1, T, D) by the weights of its tokens (T,), and bring the mean back to
    what it was. (A1111, modules/sd_hijack_clip.py and sd_emphasis.py: "Original")
    """
    weighed = embedding * weights[None, :, None]
    restored: NDArray[np.float32] = (weighed * (embedding.mean() / weighed.mean())).astype(np.float32)
    return restored


def sigmas(steps: int, shift: float) -> NDArray[np.float32]:
    """
    Return steps + 1 levels from 1 down to 0; a shift above 1 spends more steps at high noise. (Esser et al. 2024,
    section 5.3.2)
    """
    even = np.linspace(1.0, 1.0 / steps, steps)
    return np.append(shift * even / (1 + (shift - 1) * even), 0.0).astype(np.float32)


def step(x: Latents, velocity: Latents, sigma: float, sigma_next: float) -> Latents:
    """Return x at `sigma_next`, by one Euler step along the velocity at `sigma`."""
    return x + np.float32(sigma_next - sigma) * velocity


def pred_x0(x: Latents, velocity: Latents, sigma: float) -> Latents:
    """Return where the straight path through x ends: the prediction of the clean latents."""
    return x - np.float32(sigma) * velocity


@dataclass(frozen=True)
class FlowStep:
    """A step from noise level `level` to `after`, by a velocity."""

    level: float
    after: float

    @property
    def noisy(self) -> bool:
        return False

    def model_input(self, x: Latents) -> Latents:
        return x

    def pred_x0(self, x: Latents, output: Latents) -> Latents:
        return pred_x0(x, output, self.level)

    def next(self, x: Latents, output: Latents, step_noise: Latents | None) -> Latents:
        return step(x, output, self.level, self.after)
