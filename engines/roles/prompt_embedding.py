"""What the denoiser is given of a prompt, and of its weighted words. Arrays only; loaded.py has their source."""

from __future__ import annotations

from dataclasses import dataclass

from engines.bundle.signatures import Array


@dataclass(frozen=True)
class PromptEmbedding:
    """
    `whole`: the prompt's embedding (1, T, D), its rows weighted where the family weighs rows. `without`: where it
    weighs by guidance, each weight and the embedding (1, T', D) of the prompt without the words of this weight.
    """

    whole: Array
    without: tuple[tuple[float, Array], ...] = ()
