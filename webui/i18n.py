"""
The words of the front doors, a language a file, from locales/*.toml: flat keys, the same in every file.

Which language a request gets is decided here alone: the one that was chosen on the page, which its cookie says, or else
the one that its browser likes best. The page is sent in it (gradio_patches/template.py), and so are sentences made on
the server.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import cookie_parser

from engines.errors import Fact
from engines.messages.cautions import Caution
from engines.settings.installation import called

LOCALES = Path(__file__).parent / "locales"
# Called after their files, Chinese first.
LANGUAGES = tuple(sorted((path.stem for path in LOCALES.glob("*.toml")), key=lambda name: (name[:2] != "zh", name)))
COOKIE = "language"  # holds the tag of one of them
BOTH = ("zh", "en")  # for who names no language: whoever reads zh-TW reads one of them
OURS = ("allowed", "what", "why")  # facts of errors that are phrases of the program, never a stranger's words
WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class Words:
    language: str
    table: Mapping[str, str]

    @property
    def tag(self) -> str:
        """The language, as HTML, browsers and Gradio call it."""
        return self("language_tag")

    def __call__(self, key: str, **facts: Fact) -> str:
        """Return the sentence for a key, with its {facts} filled in. KeyError: no such key, or a fact is missing."""
        return self.table[key].format(**facts)

    def error(self, code: str, facts: Mapping[str, Fact]) -> str:
        """Say what happened and what to do. An error without words of its own gets the general sentence."""
        template = self.table.get(f"error_{code}", self.table["error_internal"])
        phrased = {name: self.phrase(str(fact)) if name in OURS else fact for name, fact in facts.items()}
        return template.format_map(_Facts(phrased))

    def caution(self, caution: Caution) -> str:
        """Say what is not as somebody may think, of a result that is there."""
        return self(f"warning_{caution.code}", **caution.facts)

    def choose(self, texts: Mapping[str, str]) -> str:
        """Return that one of the texts, by their languages, which its reader understands best; "": there is none."""
        near = (self.language, self.language.partition("-")[0], "en")
        return next((texts[language] for language in near if language in texts), "")

    def phrase(self, text: str) -> str:
        """Put the phrases of the program's in a reason, which is English, into this language."""
        for pattern, key in _phrases():
            text = pattern.sub(lambda match, key=key: self.table[key], text)  # type: ignore[misc]
        return text


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return what finds each English phrase, and its key; the longest first, as a shorter one may lie in it."""
    phrases = {key: english for key, english in words("en").table.items() if key.startswith("phrase_")}
    longest_first = sorted(phrases, key=lambda key: -len(phrases[key]))
    return tuple((re.compile(rf"\b{re.escape(phrases[key])}\b"), key) for key in longest_first)


class _Facts(dict[str, Fact]):
    """A job of an older version may lack a fact that today's sentence mentions."""

    def __missing__(self, key: str) -> str:
        return "?"


@cache
def words(language: str) -> Words:
    text = (LOCALES / f"{language}.toml").read_text(encoding="utf-8")
    return Words(language, tomllib.loads(called(text)))


def tags() -> tuple[str, ...]:
    return tuple(words(language).tag for language in LANGUAGES)


def in_both(code: str, facts: Mapping[str, Fact]) -> str:
    """Return the sentence of an error for who names no language."""
    return " ".join(words(language).error(code, facts) for language in BOTH)


def preferred(headers: Mapping[str, str]) -> str | None:
    """
    Return what a request's headers ask for, as an Accept-Language: what was chosen on the page comes before what the
    browser says.
    """
    chosen = cookie_parser(headers.get("cookie") or "").get(COOKIE)
    return chosen if chosen in tags() else headers.get("accept-language")


def spoken(accept_language: str | None) -> Words:
    """
    The language of ours that a browser likes best; English for other languages, Chinese when nothing is said.
    (RFC 9110, section 12.5.4: tags with weights, 1 where none is given, 0 for "not this one")
    """
    if not accept_language:
        return words(LANGUAGES[0])
    weighed = [_weighed(tag) for tag in accept_language.split(",")]
    ours = [(weight, language) for weight, language in weighed if language and weight > 0]
    return words(max(ours, key=lambda pair: pair[0])[1] if ours else "en")  # of equals, the one named first


def _weighed(tag: str) -> tuple[float, str]:
    """`zh-Hant-HK;q=0.9` -> (0.9, "zh-TW"); a weight that is no number counts as 0; a language not ours is empty"""
    name, _, parameters = tag.partition(";")
    weight = parameters.strip().lower().removeprefix("q=") or "1"
    return float(weight) if WEIGHT.fullmatch(weight) else 0.0, _looked_up(name.strip().lower())


def _looked_up(tag: str) -> str:
    """Look a tag up as RFC 4647, section 3.4, says: shorter and shorter, until it is there."""
    first, _, rest = tag.partition("-")
    second = rest.partition("-")[0]  # ours have no more
    return _ranges().get(f"{first}-{second}") or _ranges().get(first, "")


@cache
def _ranges() -> Mapping[str, str]:
    """Return which tags get which language, in lower case."""
    said = {language: words(language)("language_ranges").lower().split() for language in LANGUAGES}
    return {tag: language for language, ranges in said.items() for tag in ranges}
