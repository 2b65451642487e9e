"""
Flow matching by Euler steps, in numpy. One schedule and one seed give one picture on every engine. No state; knows no
network.

The noise level `sigma` is 1 for pure noise and 0 for the clean latent: x = (1 - sigma) * clean + sigma * noise. A
velocity is dx / dsigma. Schedule and step equal diffusers' FlowMatchEulerDiscreteScheduler, given ZImagePipeline's
sigmas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32]  # (1, C, h, w)


def noise(shape: tuple[int, ...], seed: int) -> Latents:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


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


def guide(positive: Latents, negative: Latents, guidance: float) -> Latents:
    """Classifier-free guidance as ZImagePipeline counts it: 0 is none. (Ho & Salimans 2022, equation 6)"""
    return positive + np.float32(guidance) * (positive - negative)
