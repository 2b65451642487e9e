"""
The words of the front doors, in Chinese and English, from locales/*.toml: flat keys, the same in every file.

Labels of components are translated in the browser, which falls back to English (page.py); sentences made on the server
follow the Accept-Language of the request, and fall back the same way.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engines.errors import Fact

LOCALES = Path(__file__).parent / "locales"
LANGUAGES = ("zh", "en")
OURS = ("allowed", "what", "why")  # facts of errors that are phrases of the program, never a stranger's words
WEIGHT = re.compile(r"[01](\.\d{0,3})?")


@dataclass(frozen=True)
class Words:
    language: str
    table: Mapping[str, str]

    def __call__(self, key: str, **facts: Fact) -> str:
        """Return the sentence for a key, with its {facts} filled in. KeyError: no such key, or a fact is missing."""
        return self.table[key].format(**facts)

    def error(self, code: str, facts: Mapping[str, Fact]) -> str:
        """Say what happened and what to do. An error without words of its own gets the general sentence."""
        template = self.table.get(f"error_{code}", self.table["error_internal"])
        phrased = {name: self.phrase(str(fact)) if name in OURS else fact for name, fact in facts.items()}
        return template.format_map(_Facts(phrased))

    def phrase(self, text: str) -> str:
        """Put the few phrases of an engine's reason, which is English, into this language."""
        for key, english in words("en").table.items():
            if key.startswith("phrase_"):
                text = re.sub(rf"\b{re.escape(english)}\b", self.table[key], text)
        return text


class _Facts(dict[str, Fact]):
    """A job of an older version may lack a fact that today's sentence mentions."""

    def __missing__(self, key: str) -> str:
        return "?"


@cache
def words(language: str) -> Words:
    text = (LOCALES / f"{language}.toml").read_text(encoding="utf-8")
    return Words(language, tomllib.loads(text))


def spoken(accept_language: str | None) -> Words:
    """
    The language of ours that a browser likes best; English for other languages, Chinese when nothing is said.
    (RFC 9110, section 12.5.4: tags with weights, 1 where none is given, 0 for "not this one")
    """
    if not accept_language:
        return words(LANGUAGES[0])
    weighed = [_weighed(tag) for tag in accept_language.split(",")]
    ours = [(weight, language) for weight, language in weighed if language in LANGUAGES and weight > 0]
    return words(max(ours, key=lambda pair: pair[0])[1] if ours else "en")  # of equals, the one named first


def _weighed(tag: str) -> tuple[float, str]:
    """`zh-CN;q=0.9` -> (0.9, "zh"); a weight that is no number counts as 0"""
    name, _, parameters = tag.partition(";")
    weight = parameters.strip().removeprefix("q=") or "1"
    return float(weight) if WEIGHT.fullmatch(weight) else 0.0, name.strip().lower().split("-")[0]
