"""What the denoiser is given of a prompt, and of its weighted words. Arrays only; loaded.py has their source."""

from __future__ import annotations

from dataclasses import dataclass

from engines import sampler
from engines.bundle.signatures import Array


@dataclass(frozen=True)
class PromptEmbedding:
    """
    `whole`: the prompt's embedding (1, T, D), its rows weighted where the family weighs rows. `without`: where it
    weighs by guidance, each weight and the embedding (1, T', D) of the prompt without the words of this weight.
    """

    whole: Array
    without: tuple[tuple[float, Array], ...] = ()

    def varied(self, seed: int, variety: int) -> PromptEmbedding:
        """
        Return it as a picture of this seed begins with it. The same noise lies on all of it, row by row, so that what a
        phrase changes is still what differs between them.
        """
        if not variety:
            return self
        without = tuple((weight, sampler.vary(less, seed, variety)) for weight, less in self.without)
        return PromptEmbedding(sampler.vary(self.whole, seed, variety), without)
