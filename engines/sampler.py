"""
Noise, guidance and the shape of a schedule, in numpy; and flow matching by Euler steps, the schedule that needs no
table. One schedule and one seed give one picture on every engine. No state; knows no network.

In flow matching the noise level `sigma` is 1 for pure noise and 0 for the clean latent: x = (1 - sigma) * clean + sigma
* noise. A velocity is dx / dsigma. Schedule and step equal diffusers' FlowMatchEulerDiscreteScheduler, given
ZImagePipeline's sigmas. Other schedules are their families'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32]  # (1, C, h, w)


class Step(Protocol):
    """One step of a schedule: what the network is shown of x, and what becomes of x and what the network told."""

    @property
    def level(self) -> float:
        """How noisy x is, as the family tells the network."""

    @property
    def noisy(self) -> bool:
        """Whether the step adds noise of its own."""

    def shown(self, x: Latents) -> Latents: ...

    def guess(self, x: Latents, told: Latents) -> Latents:
        """The network's present guess of the clean latents: what a preview shows."""

    def next(self, x: Latents, told: Latents, fresh: Latents | None) -> Latents:
        """x at the next level. `fresh` is noise, for a step that is noisy."""


@dataclass(frozen=True)
class Schedule:
    """
    `start`: what pure noise is multiplied by. `kept`: how much of a photo's latents is added to it; 0: the schedule
    begins with noise alone. `extras`: feeds of the network that do not change from step to step. `words`: how other
    programs call it, for the text in a picture.
    """

    steps: tuple[Step, ...]
    start: float = 1.0
    kept: float = 0.0
    guidance: float = 0.0  # 0: the network is run once a step, and no negative prompt is read
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def begin(self, noise: Latents, photo: Latents | None = None) -> Latents:
        """x before the first step. `photo`: clean latents, for a schedule that keeps something of them."""
        x = noise * np.float32(self.start)
        return x if photo is None else x + photo * np.float32(self.kept)


def noise(shape: tuple[int, ...], seed: int) -> Latents:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def fresh(shape: tuple[int, ...], seed: int, step: int) -> Latents:
    """
    What step `step` of a picture adds, counted from 1: a stream of its own for each step, so that a step can be done
    again without those before it. (To numpy the seeds `seed` and `(seed, 0)` are the same, hence from 1.)
    """
    return np.random.default_rng((seed, step)).standard_normal(shape, dtype=np.float32)


def guide(positive: Latents, negative: Latents, guidance: float) -> Latents:
    """Classifier-free guidance as ZImagePipeline counts it: 0 is none. (Ho & Salimans 2022, equation 6)"""
    return positive + np.float32(guidance) * (positive - negative)


def sigmas(steps: int, shift: float) -> NDArray[np.float32]:
    """steps + 1 levels from 1 down to 0; a shift above 1 spends more steps at high noise. (Esser et al. 2024, section
    5.3.2)
    """
    even = np.linspace(1.0, 1.0 / steps, steps)
    return np.append(shift * even / (1 + (shift - 1) * even), 0.0).astype(np.float32)


def step(x: Latents, velocity: Latents, sigma: float, sigma_next: float) -> Latents:
    return x + np.float32(sigma_next - sigma) * velocity


def clean(x: Latents, velocity: Latents, sigma: float) -> Latents:
    """Where the straight path through x ends: the network's present guess of the clean latent."""
    return x - np.float32(sigma) * velocity


@dataclass(frozen=True)
class FlowStep:
    """From noise level `level` to `after`, by a velocity."""

    level: float
    after: float

    @property
    def noisy(self) -> bool:
        return False

    def shown(self, x: Latents) -> Latents:
        return x

    def guess(self, x: Latents, told: Latents) -> Latents:
        return clean(x, told, self.level)

    def next(self, x: Latents, told: Latents, fresh: Latents | None) -> Latents:
        return step(x, told, self.level, self.after)
