"""
Words to token ids: the bundle's tokenizer.json under its prompt template, and what its text encoder wants round them.
Uses `tokenizers`, never transformers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.bundle import Text
from engines.errors import BundleError, PromptError


class Tokens:
    def __init__(self, root: Path, text: Text) -> None:
        """Open a bundle's tokenizer. BundleError: it cannot be read, or lacks a token that the manifest names."""
        try:
            self.tokenizer = Tokenizer.from_str((root / text.tokenizer).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise BundleError(f"{root.name}/{text.tokenizer}: {exc}", bundle=root.name) from exc
        self.template, self.max_tokens = text.template, text.max_tokens
        self.begin, self.end, self.pad = (self._named(root, token) for token in (text.begin, text.end, text.pad))

    def _named(self, root: Path, token: str) -> list[int]:
        """Return a token's id, in a list that is empty for no token."""
        token_id = self.tokenizer.token_to_id(token) if token else None
        if token and token_id is None:
            raise BundleError(f"{root.name}: its tokenizer has no {token}", bundle=root.name)
        return [] if token_id is None else [token_id]

    def ids(self, prompt: str) -> NDArray[np.int64]:
        """
        Return the prompt's token ids (1, T), 1 <= T <= max_tokens; what is beyond is cut off at the end, as diffusers'
        pipelines do. PromptError: there is none.
        """
        encoded = self.tokenizer.encode(self.template.replace("{prompt}", prompt), add_special_tokens=False)
        room = self.max_tokens - len(self.begin) - len(self.end)
        ids = [*self.begin, *encoded.ids[:room], *self.end]
        if not ids:
            raise PromptError("no words, and the template of this bundle adds none")
        return np.array([ids + self.pad * (self.max_tokens - len(ids))], dtype=np.int64)
