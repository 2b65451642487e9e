"""
What a denoiser's numbers mean, one family a file: its schedule, how it is told the level, the sign of what it tells.
Pure functions between our conventions and a network's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engines.bundle import Sampling
from engines.bundle.signatures import Array
from engines.families import sd, zimage
from engines.sampler import Schedule


class Family(Protocol):
    """Signature of a family module."""

    size_multiple_cells: int  # picture sides are multiples of this many latent cells

    def schedule(self, sampling: Sampling, steps: int, guidance: float, strength: float = 1.0) -> Schedule:
        """
        `strength`: of the noise that a photo is covered with, 0..1. Below 1 the schedule begins in its middle, where
        diffusers' pipelines from image to image do, and its last step is always done.
        """

    def feeds(self, latents: Array, level: float, prompt: Array) -> dict[str, Array]: ...

    def velocity(self, outputs: Mapping[str, Array]) -> Array: ...


FAMILIES: Mapping[str, Family] = {"zimage": zimage, "sd": sd}
