"""
Z-Image: what its denoiser's numbers mean. Settled here and nowhere else; checked against diffusers' ZImagePipeline
and ZImageImg2ImgPipeline.

Flow matching: levels are sigmas. The network counts time from 0 (noise) to 1 (picture), so time = 1 - sigma, and its
output points from noise to picture, so the velocity dx / dsigma is its negative. Latents are patchified two by two
cells: picture sides are multiples of two cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np

from engines import sampler
from engines.bundle import Sampling
from engines.bundle.signatures import Array
from engines.sampler import FlowStep, Schedule

size_multiple_cells = 2
weighs: Final = "guidance"  # of each row of an embedding the network takes the direction alone (cap_embedder: RMSNorm)


def schedule(sampling: Sampling, steps: int, guidance: float, strength: float = 1.0) -> Schedule:
    """Return flow matching's schedule; a strength below 1 begins in its middle, with so much noise on a photo."""
    first = min(int(steps - steps * strength), steps - 1)
    levels = [float(level) for level in sampler.sigmas(steps, sampling.shift)[first:]]
    flow = tuple(FlowStep(sigma, after) for sigma, after in pairwise(levels))
    return Schedule(flow, levels[0], 1 - levels[0], guidance)


def feeds(latents: Array, level: float, prompt: Array) -> dict[str, Array]:
    """Return the graph's inputs: latents (1, C, h, w), level = sigma in (0, 1], prompt (1, T, D)."""
    return {"latents": latents, "time": np.array([1.0 - level], dtype=np.float32), "prompt": prompt}


def velocity(outputs: Mapping[str, Array]) -> Array:
    """Return dx / dsigma (1, C, h, w) of the graph's outputs."""
    return -outputs["velocity"]
