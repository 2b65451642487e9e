"""What the parts of a drawing cost here, and how often one may look at it therefore. Knows no engine and no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engines.studio.rough_preview import RoughDecoder

PREVIEW_SHARE = 0.1  # of a step's time may go into looking at it


@dataclass
class Timings:
    """
    What each thing last cost, in seconds; 0 = not yet known. Remembered between jobs, for honest estimates; so is how
    to look at latents for next to nothing.
    """

    step_s: float = 0.0
    decode_s: float = 0.0
    preview_s: float = 0.0
    rough_s: float = 0.0
    rough: RoughDecoder | None = None
    runs: int = 1  # of the denoiser in the step that was measured

    def expect(self, runs: int) -> None:
        """Expect steps of so many runs of the denoiser: guidance and weighted words take some more."""
        self.step_s *= runs / self.runs
        self.runs = runs

    def eta_s(self, steps: int, decodes: int) -> float | None:
        return round(steps * self.step_s + decodes * self.decode_s, 2) if self.step_s else None

    def preview_every(self) -> int:
        return self._every(self.preview_s)

    def rough_every(self) -> int:
        return self._every(self.rough_s)

    def _every(self, cost_s: float) -> int:
        return max(1, math.ceil(cost_s / (PREVIEW_SHARE * self.step_s))) if self.step_s else 1
