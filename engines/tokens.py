"""Words to token ids: the bundle's tokenizer.json under its prompt template. Uses `tokenizers`, never transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.bundle import Text
from engines.errors import BundleError, PromptError


class Tokens:
    def __init__(self, root: Path, text: Text) -> None:
        try:
            self.tokenizer = Tokenizer.from_str((root / text.tokenizer).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise BundleError(f"{root.name}/{text.tokenizer}: {exc}", bundle=root.name) from exc
        self.template, self.max_tokens = text.template, text.max_tokens

    def ids(self, prompt: str) -> NDArray[np.int64]:
        """(1, T), 1 <= T <= max_tokens; what is beyond is cut off at the end, as ZImagePipeline does."""
        encoded = self.tokenizer.encode(self.template.replace("{prompt}", prompt), add_special_tokens=False)
        if not encoded.ids:
            raise PromptError("no words, and the template of this bundle adds none")
        return np.array([encoded.ids[: self.max_tokens]], dtype=np.int64)
