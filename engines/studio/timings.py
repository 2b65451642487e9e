"""What the parts of a drawing cost here, and how often one may look at it therefore. Knows no engine and no clock."""

from __future__ import annotations

from dataclasses import dataclass

from engines.jobs import previews
from engines.studio.rough_preview import RoughDecoder


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

    def eta_s(self, steps: int, decodes: int, looks: int = 0) -> float | None:
        """Return how long so many steps, decodes and previews will take. None: no step was measured yet."""
        if not self.step_s:
            return None
        return round(steps * self.step_s + decodes * self.decode_s + looks * self.preview_s, 2)

    def preview_every(self) -> int:
        return previews.every(self.step_s, self.preview_s)

    def preview_steps(self, steps: int) -> frozenset[int]:
        """Return after which steps of a picture the tiny decoder shows it."""
        return previews.preview_steps(steps, self.preview_every())

    def rough_every(self) -> int:
        return previews.every(self.step_s, self.rough_s)
