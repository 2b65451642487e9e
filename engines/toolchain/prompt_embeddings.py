"""Embeddings of given prompts, stored in the bundle: for presets the text encoder is never loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.roles.loaded import LoadedBundle, stored_name


def write(loaded: LoadedBundle, prompts: Sequence[str], path: Path) -> None:
    """Write an array (1, T, D) for each prompt, as the bundle's text encoder gives it, under stored_name."""
    embeddings = {stored_name(prompt): loaded.text_encoder.encode(prompt) for prompt in prompts}
    np.savez(path, allow_pickle=False, **embeddings)
