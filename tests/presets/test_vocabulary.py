"""Which words of a prompt the built-in network does not know."""

from __future__ import annotations

import pytest

import presets
from presets.vocabulary import unknown_words, vocabulary


def test_every_preset_speaks_in_words_that_are_known() -> None:
    for preset in presets.load():
        for text in preset.wording("attributes").prompt.values():
            assert unknown_words(text, "attributes") == (), text


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("一只猫", ["猫"]),
        ("一只可爱的猫坐在沙发上", ["猫", "沙发"]),
        ("a cat on a sofa", ["cat", "sofa"]),
        ("穿红裙子的女孩在海边跳舞", ["跳舞"]),
        ("穿白色T恤的男孩", []),
        ("戴眼镜的长发女孩,蓝色背景", []),
        ("戴 red hat 的女孩, playing 钢琴", ["playing", "钢琴"]),
        ("Elon Musk, with a beard; elon again", ["elon", "musk", "again"]),
        ("a boy's portrait, two boys with hats", ["two"]),
        ("portrait of a young woman, long brown hair, smiling", []),
        ("1girl, 4K, (masterpiece:1.2), <lora:x:1>", ["lora"]),
        ("猫" * 3000, ["猫" * 3000]),
        ("一隻貓坐在沙發上,戴眼鏡", ["貓", "沙發"]),
        ("戴著圓框眼鏡的長髮女孩,瀏海,藍色背景", []),
        ("кошка 😀 ねこ", []),  # letters that are not looked at
        ("", []),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_named(prompt: str, unknown: list[str]) -> None:
    assert unknown_words(prompt, "attributes") == tuple(unknown)


def test_of_networks_that_know_language_nothing_is_said() -> None:
    assert vocabulary("natural") == frozenset() and unknown_words("一只猫", "natural") == ()
    assert vocabulary("../attributes") == frozenset()


def test_a_prompt_as_long_as_may_be_is_looked_through() -> None:
    assert unknown_words("穿红裙子的猫" * 700, "attributes") == ("猫",)
    assert len(unknown_words("丂" * 4000, "attributes")) == 1
