"""
What a denoiser's numbers mean, one family a file: its schedule, how it is given the level, the sign of its output.
Pure functions between our conventions and a network's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from engines.bundle import Sampling
from engines.bundle.signatures import Array
from engines.families import sd, zimage
from engines.sampler import Schedule

Weighs = Literal["rows", "guidance"]


class Family(Protocol):
    """What a module of this package gives."""

    size_multiple_cells: int  # picture sides are multiples of this many latent cells
    # How words are weighted: "rows" of the embedding are multiplied; or by "guidance", where the network evens rows
    # out, and each weight takes a run of the network more (sampler.weigh_rows, sampler.weigh).
    weighs: Weighs

    def schedule(self, sampling: Sampling, steps: int, guidance: float, strength: float = 1.0) -> Schedule:
        """
        Return the steps for this many, this guidance (0: none) and this `strength`, 0..1, of the noise that a photo is
        covered with. Below 1 the schedule begins in its middle, where diffusers' pipelines from image to image do, and
        its last step is always done. OptionError: the network cannot take so many steps.
        """

    def feeds(self, latents: Array, level: float, prompt: Array) -> dict[str, Array]:
        """Return the graph's inputs for latents (1, C, h, w) at a step's level, and a prompt (1, T, D)."""

    def velocity(self, outputs: Mapping[str, Array]) -> Array:
        """Return what a step takes of the graph's outputs. (1, C, h, w)"""


FAMILIES: Mapping[str, Family] = {"zimage": zimage, "sd": sd}
