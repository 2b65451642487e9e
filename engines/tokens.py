"""
Words to token ids: the bundle's tokenizer.json under its prompt template, and what its text encoder wants round them.
Uses `tokenizers`, never transformers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from engines.bundle import Text
from engines.errors import BundleError, PromptError
from engines.messages.prompts import Prompt


class Tokens:
    def __init__(self, root: Path, text: Text) -> None:
        """Open a bundle's tokenizer. BundleError: it cannot be read, or lacks a token that the manifest names."""
        try:
            self.tokenizer = Tokenizer.from_str((root / text.tokenizer).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise BundleError(f"{root.name}/{text.tokenizer}: {exc}", bundle=root.name) from exc
        self.template, self.max_tokens = text.template, text.max_tokens
        self.begin, self.end, self.pad = (self._named(root, token) for token in (text.begin, text.end, text.pad))
        self.room = self.max_tokens - len(self.begin) - len(self.end)

    def _named(self, root: Path, token: str) -> list[int]:
        """Return a token's id, in a list that is empty for no token."""
        token_id = self.tokenizer.token_to_id(token) if token else None
        if token and token_id is None:
            raise BundleError(f"{root.name}: its tokenizer has no {token}", bundle=root.name)
        return [] if token_id is None else [token_id]

    def weights(self, prompt: Prompt) -> NDArray[np.float32]:
        """
        Return the weight of each of its tokens (T,), as many as `ids` has: that of the letter it ends with. What stands
        round the prompt weighs 1.
        """
        text = self.template.replace("{prompt}", prompt.text)
        letters = np.ones(len(text), dtype=np.float32)
        before = self.template.find("{prompt}")
        for span in prompt.spans:
            letters[before + span.start : before + span.end] = span.weight
        weights = np.ones(self.ids(prompt.text).shape[1], dtype=np.float32)
        for row, (start, end) in enumerate(self._encoded(prompt.text).offsets[: self.room], start=len(self.begin)):
            if start < end:
                weights[row] = letters[end - 1]
        return weights

    def ids(self, prompt: str) -> NDArray[np.int64]:
        """
        Return the prompt's token ids (1, T), 1 <= T <= max_tokens; what is beyond is cut off at the end, as diffusers'
        pipelines do. PromptError: there is none.
        """
        ids = [*self.begin, *self._encoded(prompt).ids[: self.room], *self.end]
        if not ids:
            raise PromptError("no words, and the template of this bundle adds none")
        return np.array([ids + self.pad * (self.max_tokens - len(ids))], dtype=np.int64)

    def _encoded(self, prompt: str) -> Encoding:
        return self.tokenizer.encode(self.template.replace("{prompt}", prompt), add_special_tokens=False)
