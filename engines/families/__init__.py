"""What a denoiser's numbers mean, one family a file: sign, time, scaling. Pure functions between our conventions and a
network's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engines.families import zimage
from engines.signatures import Array


class Family(Protocol):
    """Signature of a family module."""

    size_multiple_cells: int  # picture sides are multiples of this many latent cells

    def feeds(self, latents: Array, sigma: float, prompt: Array) -> dict[str, Array]: ...

    def velocity(self, outputs: Mapping[str, Array]) -> Array: ...


FAMILIES: Mapping[str, Family] = {"zimage": zimage}
