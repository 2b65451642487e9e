"""
Blanks: words of a preset's prompt that are exchanged at a press, and what for (dialects/blanks.toml). A preset's text
is whole without them: each of its blanks names the words that it exchanges, so nothing chosen is the text itself.

What was chosen is read from a prompt, not remembered: a prompt that was edited by hand keeps all but the words of the
blank that is pressed, and a blank whose words are gone is no longer offered.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from presets import Preset

FILE = Path(__file__).parent / "dialects" / "blanks.toml"
STRICT = ConfigDict(extra="forbid")
COLOUR = "hair_colour"  # the blank that shares the words of those that are `coloured`
BARE = {"zh": "{c}头发", "en": "{c} hair"}  # of a colour alone, where the preset says nothing of hair
SEPARATOR = {"zh": "，", "en": ", "}
BEFORE, BEHIND = re.compile(r"\s*[，、,]\s*$"), re.compile(r"^\s*[，、,]\s*")
Texts = dict[str, str]  # language -> text
Choices = Mapping[str, str]  # blank -> option; "": the preset's own words, where no option says the same
Picks = tuple[tuple[str, str], ...]  # blanks that share their words, each with its option


@dataclass(frozen=True, config=STRICT)
class Option:
    """`attributes` may be left out of the file: then they are as `natural`. Both empty: nothing is said."""

    title: Texts
    natural: Texts
    attributes: Texts | None = None

    def words(self, dialect: str) -> Texts:
        return self.attributes if dialect == "attributes" and self.attributes is not None else self.natural


@dataclass(frozen=True, config=STRICT)
class Blank:
    """`coloured`: its words have a {c}, for the colour."""

    title: Texts
    options: dict[str, Option]
    coloured: bool = False


@dataclass(frozen=True, config=STRICT)
class Slot:
    """
    What a preset says of a blank: its own words, which stand in its prompt once, and of which option they are. No
    words: it says nothing, and what is chosen comes to the end. `options`, `colours`: those that suit; none named: all.
    """

    own: str = ""
    zh: str = ""
    en: str = ""
    options: tuple[str, ...] = ()
    colour: str = ""
    colours: tuple[str, ...] = ()

    def words(self, language: str) -> str:
        return self.zh if language == "zh" else self.en


Slots = Mapping[str, Slot]  # by the name of their blank


@plain_dataclass(frozen=True)
class Reading:
    """What a prompt has chosen, and by which words."""

    dialect: str
    language: str
    phrases: Mapping[str, str]  # slot -> the words that stand in the prompt; "": none
    choices: Choices


@cache
def table() -> Mapping[str, Blank]:
    """Return all blanks, in their order."""
    return TypeAdapter(dict[str, Blank]).validate_python(tomllib.loads(FILE.read_text(encoding="utf-8")))


def offers(slots: Slots) -> dict[str, tuple[str, ...]]:
    """Return the options of each blank, in the order of the table."""
    said = {blank: options for name, slot in slots.items() for blank, options in _offered(name, slot).items()}
    return {blank: said[blank] for blank in table() if blank in said}


def fault(name: str, slot: Slot, prompt: Texts) -> str:
    """Return what is wrong with a slot of a preset with this prompt; "": nothing."""
    blank = table().get(name)
    if blank is None or name == COLOUR:
        return "no such blank"
    colours = table()[COLOUR].options
    if not {slot.own, *slot.options} <= {"", *blank.options} or not {slot.colour, *slot.colours} <= {"", *colours}:
        return "no such option"
    if not blank.coloured and (slot.colour or slot.colours):
        return "has no colour"
    if bool(slot.zh) != bool(slot.en) or (blank.coloured and bool(slot.own) != bool(slot.zh)):
        return "its own words and their option belong together, in zh and in en"
    for language in SEPARATOR if slot.zh else ():
        if len(_pattern(slot.words(language)).findall(prompt[language])) != 1:
            return f"its words do not stand in the prompt in {language} just once"
    return ""


def fill(text: str, slots: Slots, dialect: str, language: str, choices: Choices) -> str:
    """Return a preset's text with what was chosen; what was not is as the preset has it."""
    for name, slot in slots.items():
        picks = tuple((blank, choices.get(blank, own)) for blank, own in _own(name, slot))
        text = _exchanged(text, slot.words(language), _phrases(name, slot, dialect, language)[picks], language)
    return text


def read(prompt: str, preset: Preset, dialect: str = "natural") -> Reading | None:
    """
    Return what a prompt that began as this preset's has chosen. None: nothing in it is the preset's. Blanks whose words
    were taken out or rewritten are not among the choices. `dialect`: which is meant if both say what is there.
    """

    def fits(reading: Reading) -> tuple[bool, int, bool]:
        phrases = sum(map(bool, reading.phrases.values()))
        return prompt == _said(preset, reading, reading.choices), phrases, reading.dialect == dialect

    readings = (
        _read(prompt, preset.wording(each).blanks, each, language)
        for each in ("natural", "attributes")
        for language in SEPARATOR
    )
    best = max(readings, key=fits)
    return best if any(best.phrases.values()) else None


def choose(prompt: str, preset: Preset, blank: str, option: str, dialect: str = "natural") -> str:
    """
    Return the prompt with another option, or with the preset's own words, if that one is chosen already. What cannot be
    chosen changes nothing. `dialect`: as in `read`.
    """
    reading = read(prompt, preset, dialect)
    if reading is None or blank not in reading.choices:
        return prompt
    slots = preset.wording(reading.dialect).blanks
    if option not in offers(slots)[blank]:
        return prompt
    name = next(name for name, slot in slots.items() if blank in _offered(name, slot))
    own = dict(_own(name, slots[name]))
    chosen = {**reading.choices, blank: own[blank] if option == reading.choices[blank] else option}
    if prompt == _said(preset, reading, reading.choices):  # not edited by hand: back in its own order, too
        return _said(preset, reading, chosen)
    picks = tuple((each, chosen[each]) for each in own)
    phrase = _phrases(name, slots[name], reading.dialect, reading.language)[picks]
    return _exchanged(prompt, reading.phrases[name], phrase, reading.language)


def _said(preset: Preset, reading: Reading, choices: Choices) -> str:
    wording = preset.wording(reading.dialect)
    return fill(wording.prompt[reading.language], wording.blanks, reading.dialect, reading.language, choices)


def _own(name: str, slot: Slot) -> Picks:
    return ((name, slot.own), (COLOUR, slot.colour)) if table()[name].coloured else ((name, slot.own),)


def _offered(name: str, slot: Slot) -> dict[str, tuple[str, ...]]:
    """Return the options of each of its blanks; first the preset's own words, where no option says the same."""
    suiting = {name: slot.options, COLOUR: slot.colours}
    options = {blank: (own, suiting[blank] or tuple(table()[blank].options)) for blank, own in _own(name, slot)}
    return {blank: every if own in every else (own, *every) for blank, (own, every) in options.items()}


@lru_cache(1024)
def _phrases(name: str, slot: Slot, dialect: str, language: str) -> Mapping[Picks, str]:
    """Return what the slot's words are for each choice."""
    offered = _offered(name, slot)
    every = (tuple(zip(offered, each, strict=True)) for each in product(*offered.values()))
    return {picks: _phrase(slot, picks, dialect, language) for picks in every}


def _phrase(slot: Slot, picks: Picks, dialect: str, language: str) -> str:
    own = slot.words(language)
    (name, option), *rest = picks
    colour = rest[0][1] if rest else ""
    if (option, colour) == (slot.own, slot.colour):
        return own
    words = table()[name].options[option].words(dialect)[language] if option else BARE[language]
    said = table()[COLOUR].options[colour].words(dialect)[language] if colour else ""
    return _shaped(" ".join(words.format(c=said).split()), own)


def _shaped(words: str, own: str) -> str:
    """Return English words with an article and a capital letter, if those that they stand for have them."""
    if words and own.startswith(("a ", "an ")):
        words = ("an " if words[0] in "aeiou" else "a ") + words
    return words[:1].upper() + words[1:] if own[:1].isupper() else words


def _read(prompt: str, slots: Slots, dialect: str, language: str) -> Reading:
    phrases: dict[str, str] = {}
    choices: dict[str, str] = {}
    for name, slot in slots.items():
        said = _phrases(name, slot, dialect, language)
        hits = [(phrase, picks) for picks, phrase in said.items() if not phrase or _at(prompt, phrase) is not None]
        if hits:  # of several the longest: there is a girl in a little girl
            phrases[name], picks = max(hits, key=lambda hit: len(hit[0]))
            choices |= dict(picks)
    return Reading(dialect, language, phrases, choices)


def _at(text: str, phrase: str) -> int | None:
    """Return where a phrase stands in a text; an English one as whole words. None: nowhere."""
    match = _pattern(phrase).search(text) if phrase in text else None
    return match.start() if match else None


@lru_cache(8192)
def _pattern(phrase: str) -> re.Pattern[str]:
    whole = re.escape(phrase)
    return re.compile(rf"(?<![A-Za-z]){whole}(?![A-Za-z])" if phrase.isascii() else whole)


def _exchanged(text: str, old: str, new: str, language: str) -> str:
    """Return a text in which one phrase became another; one that was not there comes to the end."""
    if old == new:
        return text
    at = _at(text, old) if old else None
    if at is None:
        return BEFORE.sub("", text) + SEPARATOR[language] + new if text.strip() else new
    before, behind = text[:at], text[at + len(old) :]
    if new:
        return before + new + behind
    return BEFORE.sub("", before) + behind if BEFORE.search(before) else before + BEHIND.sub("", behind)
