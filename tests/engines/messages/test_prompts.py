"""Weighted words: A1111's syntax, what Chinese keyboards type, and that a prompt without brackets is its own text."""

from __future__ import annotations

import time

import pytest

import presets
from engines.messages.prompts import Prompt, read
from engines.toolchain.quantize.calibration import PROMPTS


def pairs(prompt: str) -> list[tuple[str, float]]:
    """The weighted words and their weights, to four digits."""
    plain = read(prompt)
    return [(plain.text[span.start : span.end], round(span.weight, 4)) for span in plain.spans]


@pytest.mark.parametrize(
    ("prompt", "text", "weighted"),
    [
        ("a (word:1.3) here", "a word here", [("word", 1.3)]),
        ("a (word) here", "a word here", [("word", 1.1)]),
        ("((word))", "word", [("word", 1.21)]),
        ("[word]", "word", [("word", 0.9091)]),
        ("[[word]]", "word", [("word", 0.8264)]),
        ("((a:1.5) b:1.2)", "a b", [("a", 1.8), (" b", 1.2)]),
        ("(a [b] c)", "a b c", [("a ", 1.1), (" c", 1.1)]),  # 1.1 / 1.1
        ("(a:0)", "a", [("a", 0.0)]),
        ("(a:.5)", "a", [("a", 0.5)]),
        ("(a : 1.5 )", "a ", [("a ", 1.5)]),
        ("(a:-1)", "a", [("a", -1.0)]),
        ("(a:1.3, b:1.2)", "a:1.3, b", [("a:1.3, b", 1.2)]),
        ("(a)(b)", "ab", [("ab", 1.1)]),
        (r"\(a\) \[b\] (c\)d)", "(a) [b] c)d", [("c)d", 1.1)]),
        ("(two\nlines:1.5)", "two\nlines", [("two\nlines", 1.5)]),
        ("(a [b) c]", "a b c", [("a ", 1.1), (" c", 0.9091)]),  # as A1111: of two kinds, each by itself
    ],
)
def test_the_syntax_of_a1111(prompt: str, text: str, weighted: list[tuple[str, float]]) -> None:
    assert (read(prompt).text, pairs(prompt)) == (text, weighted)


@pytest.mark.parametrize(
    ("prompt", "text", "weighted"),
    [
        ("一位女士，（微笑：1.3）", "一位女士，微笑", [("微笑", 1.3)]),
        ("（微笑:1.3）", "微笑", [("微笑", 1.3)]),
        ("(微笑：1.3）", "微笑", [("微笑", 1.3)]),
        ("（微笑：1.3)", "微笑", [("微笑", 1.3)]),
        ("一位女士（微笑），红发", "一位女士（微笑），红发", []),
        ("（外面(里面)）", "（外面里面）", [("里面", 1.1)]),
        ("((红发)，（微笑：1.5）)", "红发，微笑", [("红发", 1.21), ("，", 1.1), ("微笑", 1.65)]),
        (r"\（微笑：1.3）", "（微笑：1.3）", []),
        ("（a)", "（a)", []),
        ("【红发】", "【红发】", []),
    ],
)
def test_what_a_chinese_keyboard_types(prompt: str, text: str, weighted: list[tuple[str, float]]) -> None:
    assert read(prompt).text == text
    assert pairs(prompt) == [pair for pair in weighted if pair[0] != "，"], "a comma has no weight"


@pytest.mark.parametrize(
    "prompt",
    [
        "", "a woman", "a, b: c", ":)", "(", ")", "[", "]", "a (b", "a b)", "(a]", "[a)", "a:1.3)", "（", "a（b",
        "：1.3）", "back\\slash \\\\ \\n", "一位女士：红发", "🙂 {prompt} %s", "( )", "()", "[,]",
    ],
)  # fmt: skip
def test_what_weighs_nothing_is_text(prompt: str) -> None:
    plain = read(prompt)
    assert plain.spans == ()
    if prompt not in ("( )", "()", "[,]"):
        assert plain.text == prompt


@pytest.mark.parametrize("prompt", [*presets.prompts(), *PROMPTS])
def test_no_preset_has_a_weight(prompt: str) -> None:
    """Pictures of presets, and what engines are calibrated by, are as they were."""
    assert read(prompt) == Prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "weight", "without"),
    [
        ("一位女士，(微笑:1.5)，红发", 1.5, "一位女士，红发"),
        ("(微笑:1.5)，红发", 1.5, "红发"),
        ("红发，(微笑:1.5)", 1.5, "红发"),
        ("红发 (微笑:1.5)", 1.5, "红发"),
        ("a woman, (smile:1.5), red hair", 1.5, "a woman, red hair"),
        ("a (smiling:1.5) woman", 1.5, "a woman"),
        ("(红色:1.5)的头发", 1.5, "的头发"),
        ("(微笑:1.5)", 1.5, ""),
        ("(a:1.5), (b:0.5), (c:1.5), d", 1.5, "b, d"),
        ("(a:1.5), (b:0.5), (c:1.5), d", 0.5, "a, c, d"),
        ("(a, b,:1.5) c", 1.5, "c"),
    ],
)
def test_a_prompt_without_its_weighted_words(prompt: str, weight: float, without: str) -> None:
    assert read(prompt).without(weight) == without


def test_words_of_one_weight_go_together() -> None:
    assert read("(a:1.5), (b:0.5), (c:1.5), (d)").weights == (1.5, 0.5, 1.1)


@pytest.mark.parametrize(
    "prompt",
    [
        "(" * 4000,
        "(" * 2000 + ")" * 2000,
        "(a:1.9" * 600,
        "[(" * 1000 + "a" + ")]" * 1000,
        "(a:9999)" * 500,
        "(" * 700 + ":9999)" * 500,
        "\\" * 4000,
        ":" * 4000,
    ],  # fmt: skip
)
def test_what_somebody_made_up_is_read_at_once(prompt: str) -> None:
    begun = time.process_time()
    assert isinstance(read(prompt), Prompt)
    assert time.process_time() - begun < 1.0
