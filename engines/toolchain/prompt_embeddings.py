"""Embeddings of given prompts, stored in the bundle: for presets the text encoder is never loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.families import FAMILIES
from engines.messages.prompts import read
from engines.roles.loaded import LoadedBundle, stored_name


def write(loaded: LoadedBundle, prompts: Sequence[str], path: Path) -> None:
    """
    Write an array (1, T, D) for each prompt, as the bundle's text encoder gives it, under stored_name: without its
    brackets, as it is looked up, and where weights are a matter of guidance, without the words of each weight too.
    """
    guided = FAMILIES[loaded.bundle.family].weighs == "guidance"
    texts = [text for p in map(read, prompts) for text in (p.text, *(map(p.without, p.weights) if guided else ()))]
    embeddings = {stored_name(text): loaded.text_encoder.encode(text) for text in dict.fromkeys(texts)}
    np.savez(path, allow_pickle=False, **embeddings)
