"""
Weighted words in prompts, in the syntax of A1111's web UI (modules/prompt_parser.py): `(word:1.3)`, `(word)` = 1.1,
`((word))` = 1.21, `[word]` = 1/1.1. Weights of brackets in each other multiply; with a backslash before it a bracket is
the character itself. Knows text only: what a weight does is its family's.

Two things are not as there. A bracket that is never closed, or never opened, is text; A1111 lets the first weigh all
that follows, and who forgets a bracket would pay for that. And what a Chinese keyboard types: （微笑：1.3） is a weight
as (微笑:1.3) is, in any mixture of the signs, but （微笑） without a number is text, since in Chinese that is how one
writes brackets. Other uses that A1111 has for `[]`, changes and turns of words, are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np

ROUND, SQUARE = 1.1, 1 / 1.1
SIGN = re.compile(
    r"\\(?P<escaped>[()\[\]（）])"
    r"|(?P<open>[(（\[])"
    r"|[:：]\s*(?P<number>[+-]?(?:\d{1,4}(?:\.\d{0,6})?|\.\d{1,6}))\s*[)）]"
    r"|(?P<close>[)）\]])"
    r"|(?P<text>[^\\()（）\[\]:：]+|.)",
    re.DOTALL,
)
BLANKS = " \t\r\n\u3000"
COMMAS = ",，、;；。"


@dataclass(frozen=True)
class Span:
    """Letters `start` to `end` of a plain text, and their weight."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Prompt:
    """`text` is plain: what a text encoder reads. `spans` are those of a weight that is not 1, in order."""

    text: str
    spans: tuple[Span, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """The different weights, in the order of their first words."""
        return tuple(dict.fromkeys(span.weight for span in self.spans))

    def without(self, weight: float) -> str:
        """Return the text without the words of this weight, and without a comma that they leave over."""
        rest, end = "", 0
        for span in self.spans:
            if span.weight == weight:
                rest, end = _joined(rest, self.text[end : span.start]), span.end
        return _joined(rest, self.text[end:]).strip(BLANKS + COMMAS)


def _joined(before: str, after: str) -> str:
    """Join what stood on both sides of words that are left out."""
    if before.rstrip(BLANKS)[-1:] in ("", *COMMAS):
        return before + after.lstrip(BLANKS + COMMAS)
    return before + (after.lstrip(BLANKS) if before[-1] in BLANKS else after)


@lru_cache(maxsize=256)
def read(prompt: str) -> Prompt:
    """Read a prompt as it was written. Without brackets it is its own text."""
    pieces: list[str] = []
    factors: list[tuple[int, int, float]] = []  # the pieces from, to, and by how much
    rounds: list[int] = []  # brackets that are open, as pieces
    squares: list[int] = []
    for sign in SIGN.finditer(prompt):
        written, kind = sign[0], sign.lastgroup
        pieces.append(sign["escaped"] or written)
        here = len(pieces) - 1
        if kind == "open":
            (squares if written == "[" else rounds).append(here)
        elif kind == "number" and rounds:
            factors.append((rounds.pop(), here, float(sign["number"])))
        elif written == "]" and squares:
            factors.append((squares.pop(), here, SQUARE))
        elif written in (")", "）") and rounds:
            opened = rounds.pop()
            if written == ")" and pieces[opened] == "(":
                factors.append((opened, here, ROUND))
    return _weighed(pieces, factors)


def _weighed(pieces: list[str], factors: Iterable[tuple[int, int, float]]) -> Prompt:
    weights = np.ones(len(pieces))
    with np.errstate(over="ignore"):
        for opened, closed, factor in factors:
            pieces[opened] = pieces[closed] = ""
            weights[opened:closed] *= factor
    text, spans = "", []
    weighed = [(piece, round(float(weight), 9)) for piece, weight in zip(pieces, weights, strict=True) if piece]
    for weight, group in groupby(weighed, key=lambda pair: pair[1]):
        words = "".join(piece for piece, _ in group)
        if weight != 1 and words.strip(BLANKS + COMMAS):
            spans.append(Span(len(text), len(text) + len(words), weight))
        text += words
    return Prompt(text, tuple(spans))
