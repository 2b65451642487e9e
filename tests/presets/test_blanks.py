"""Blanks: what is exchanged in a preset's prompt, and that nothing else is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import combinations, product

import pytest

import presets
from presets import Preset, PresetError
from presets.blanks import choose, fill, offers, read, table
from presets.vocabulary import unknown_words

ALL = presets.load()
NAMES = [preset.name for preset in ALL]
# What the cards asked for before there were blanks: bundles hold embeddings of these texts.
AS_EVER = {
    "natural": "10bb7df823f685d8b12418f3ca47f06d79797592f43be0f8c6f104bbf710d109",
    "attributes": "1b8e4b0aa359e7030a6df84d71b07f41c670f926ed59f489e498bfeb0f9c3341",
}
WORDINGS = list(product(presets.DIALECTS, presets.LANGUAGES))
FAULTS = re.compile(
    r"[{}]|[，、,]\s*[，、,]|  |^[\s，、,]|[\s，、,]$|的的"
    r"|\ba [aeiou]|\ban [^aeiou]|\b(an?|the) (an?|the)\b|\ba (\w+ )*(hair|glasses)\b",
    re.IGNORECASE,
)


def named(name: str) -> Preset:
    return next(preset for preset in ALL if preset.name == name)


def filled(preset: Preset, dialect: str, language: str, **choices: str) -> str:
    wording = preset.wording(dialect)
    return fill(wording.prompt[language], wording.blanks, dialect, language, choices)


def every(preset: Preset, dialect: str, together: int = 1) -> Iterator[dict[str, str]]:
    """Every choice of so many blanks at once."""
    offered = offers(preset.wording(dialect).blanks)
    for blanks in combinations(offered, together):
        for options in product(*(offered[blank] for blank in blanks)):
            yield dict(zip(blanks, options, strict=True))


@pytest.mark.parametrize("dialect", presets.DIALECTS)
def test_without_a_choice_every_text_is_what_it_was_before_there_were_blanks(dialect: str) -> None:
    texts = "\n".join(presets.prompts(dialect))
    assert hashlib.sha256(texts.encode()).hexdigest() == AS_EVER[dialect]
    for preset, language in product(ALL, presets.LANGUAGES):
        assert filled(preset, dialect, language) == preset.wording(dialect).prompt[language]


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_it_has_blanks_and_each_a_choice(self, name: str) -> None:
        for dialect in presets.DIALECTS:
            offered = offers(named(name).wording(dialect).blanks)
            assert len(offered) >= 3 and all(len(set(options)) == len(options) > 1 for options in offered.values())

    def test_every_option_says_something_else_and_reads_well(self, name: str) -> None:
        preset = named(name)
        for dialect, language in WORDINGS:
            texts: dict[str, dict[str, str]] = {}
            for choice in every(preset, dialect):
                ((blank, option),) = choice.items()
                text = texts.setdefault(blank, {})[option] = filled(preset, dialect, language, **choice)
                assert not FAULTS.search(text), text
                assert len(text) < 400
            for blank, said in texts.items():
                assert len(set(said.values())) == len(said), (blank, said)
                assert preset.wording(dialect).prompt[language] in said.values(), "the preset's own is among them"

    def test_the_built_in_network_knows_every_word(self, name: str) -> None:
        for language, choice in product(presets.LANGUAGES, [*every(named(name), "attributes")]):
            text = filled(named(name), "attributes", language, **choice)
            assert unknown_words(text, "attributes") == (), text

    def test_what_was_chosen_is_read_from_the_words(self, name: str) -> None:
        preset = named(name)
        for dialect, language in WORDINGS:
            nothing = read(filled(preset, dialect, language), preset)
            assert nothing is not None and (nothing.dialect, nothing.language) == (dialect, language)
            assert list(nothing.choices) and set(nothing.choices) == set(offers(preset.wording(dialect).blanks))
            for choice in every(preset, dialect, together=2):
                text = filled(preset, dialect, language, **choice)
                assert not FAULTS.search(text), text
                reading = read(text, preset)
                assert reading is not None and reading.choices == {**nothing.choices, **choice}, text

    def test_pressed_again_each_gives_the_own_words_back(self, name: str) -> None:
        preset = named(name)
        for dialect, language in WORDINGS:
            text = preset.wording(dialect).prompt[language]
            own = read(text, preset)
            assert own is not None
            for choice in every(preset, dialect):
                ((blank, option),) = choice.items()
                other = choose(text, preset, blank, option)
                if option == own.choices[blank]:
                    assert other == text
                else:
                    assert other == filled(preset, dialect, language, **choice)
                    assert choose(other, preset, blank, option) == text


def test_all_options_are_used_and_called_in_both_languages() -> None:
    used: dict[str, set[str]] = {}
    for preset, dialect in product(ALL, presets.DIALECTS):
        for blank, options in offers(preset.wording(dialect).blanks).items():
            used.setdefault(blank, set()).update(options)
    for name, blank in table().items():
        assert set(blank.options) <= used[name]
        for title in (blank.title, *(option.title for option in blank.options.values())):
            assert {"zh", "en"} <= set(title) <= {"zh", "en", "zh-TW"} and all(title.values())
        for option in blank.options.values():
            for words in map(option.words, presets.DIALECTS):
                assert set(words) == {"zh", "en"}
                assert all(("{c}" in text) == blank.coloured for text in words.values())


REALISTIC = "一位年轻女性的肖像，棕色波浪长发，微笑，穿白色V领毛衣，灰色背景，柔和影棚光，写实风格"


@pytest.mark.parametrize(
    ("prompt", "blank", "option", "becomes"),
    [
        (REALISTIC, "background", "blue", REALISTIC.replace("灰色背景", "蓝色背景")),
        ("A dog. " + REALISTIC + "！", "background", "blue", "A dog. " + REALISTIC.replace("灰色", "蓝色") + "！"),
        (
            REALISTIC.replace("微笑，", ""),
            "background",
            "blue",
            REALISTIC.replace("微笑，", "").replace("灰色", "蓝色"),
        ),
        ("棕色波浪长发，在雨中", "hair_colour", "pink", "粉色波浪长发，在雨中"),
        ("棕色波浪长发，在雨中", "hair_woman", "bob", "棕色波波头，在雨中"),
        ("在雨中，棕色波浪长发", "glasses", "round", "在雨中，棕色波浪长发，戴圆框眼镜"),
        ("在雨中，棕色波浪长发，", "glasses", "round", "在雨中，棕色波浪长发，戴圆框眼镜"),
        ("在雨中，戴圆框眼镜，棕色波浪长发", "glasses", "round", "在雨中，棕色波浪长发"),
        ("戴圆框眼镜、棕色波浪长发", "glasses", "none", "棕色波浪长发"),
        ("戴圆框眼镜、棕色波浪长发", "glasses", "square", "戴方框眼镜、棕色波浪长发"),
        ("in rain, a young woman of 30", "age_woman", "elder", "in rain, an elderly woman of 30"),
        ("in rain, a young woman of 30", "glasses", "sunglasses", "in rain, a young woman of 30, sunglasses"),
        # taken out, rewritten, or not to be chosen: nothing is changed
        (REALISTIC.replace("灰色背景", "灰墙"), "background", "blue", REALISTIC.replace("灰色背景", "灰墙")),
        ("a cat", "glasses", "round", "a cat"),
        ("", "glasses", "round", ""),
        (REALISTIC, "background", "mars", REALISTIC),
        (REALISTIC, "shoes", "red", REALISTIC),
        (REALISTIC, "age_man", "elder", REALISTIC),
    ],
)
def test_only_the_words_of_the_blank_are_exchanged(prompt: str, blank: str, option: str, becomes: str) -> None:
    assert choose(prompt, named("realistic"), blank, option) == becomes


def test_a_blank_whose_words_are_gone_is_not_offered() -> None:
    preset = named("realistic")
    reading = read(REALISTIC.replace("灰色背景", "灰墙"), preset)
    assert reading is not None and "background" not in reading.choices and "hair_colour" in reading.choices
    assert read("一只猫坐在沙发上", preset) is None
    assert read("", preset) is None


def test_where_both_dialects_say_what_is_there_the_models_own_is_meant() -> None:
    prompt = "戴方框眼镜，在雨中"
    assert choose(prompt, named("business"), "glasses", "sunglasses", "attributes") == "戴墨镜，在雨中"
    assert choose(prompt, named("business"), "glasses", "square", "natural") == "在雨中", "it says nothing of glasses"
    assert choose(prompt, named("business"), "glasses", "square", "attributes") == prompt, "they are its own"


def test_english_words_are_whole_words() -> None:
    reading = read("a manager with square glasses", named("business"))
    assert reading is not None and "age_man" not in reading.choices


def test_a_prompt_as_long_as_may_be_is_read_at_once() -> None:
    assert read("棕色波浪长" * 800, named("realistic")) is None
    assert read("a " * 2000, named("business")) is None


FILE = presets.write(named("realistic"))


@pytest.mark.parametrize(
    ("was", "becomes", "field"),
    [
        ('zh = "灰色背景"', 'zh = "灰墙"', "attributes.blanks.background"),
        ('zh = "灰色背景"', 'zh = "，"', "attributes.blanks.background"),
        ('zh = "灰色背景", ', "", "attributes.blanks.background"),
        ('own = "wavy", ', "", "attributes.blanks.hair_woman"),
        ('own = "wavy"', 'own = "mohawk"', "attributes.blanks.hair_woman"),
        ('colour = "brown"', 'colour = "plaid"', "attributes.blanks.hair_woman"),
        (
            'own = "grey", zh = "灰色背景"',
            'own = "grey", colour = "grey", zh = "灰色背景"',
            "attributes.blanks.background",
        ),
        ("expression = {}", "shoes = {}", "natural.blanks.shoes"),
        ("expression = {}", "hair_colour = {}", "natural.blanks.hair_colour"),
        ("expression = {}", 'expression = { run = "rm" }', "natural.blanks.expression.run"),
        ("expression = {}", 'expression = { options = ["x"] }', "natural.blanks.expression"),
        ("expression = {}", "expression = 5", "natural.blanks.expression"),
    ],
)
def test_a_strangers_blanks_are_looked_through(was: str, becomes: str, field: str) -> None:
    assert was in FILE
    with pytest.raises(PresetError) as caught:
        presets.parse(FILE.replace(was, becomes), "x")
    assert caught.value.field == field and len(str(caught.value)) < 300
