"""
Which words of a prompt a network was never shown. The "attributes" of the built-in drawings are a few hundred words
(dialects/attributes.txt, written by training); of a network that knows "natural" language nothing is said. Traditional
characters are read as the simplified ones (dialects/traditional.txt: each before its simplified one), as the tokenizer
of the built-in drawings reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "dialects"
LONGEST = 8  # letters of a Chinese phrase
RUN = re.compile(r"[a-z]?[\u3400-\u9fff]+|[a-z][a-z']*")  # of Chinese, as T恤 and V领 are too; or an English word
# What joins words and shows nothing itself, or cannot but be so in a portrait.
JOINING = frozenset(
    "the is are has have having at on to her his she he it its it's very some this that one person people face head "
    "eye skin light color colour colored coloured style lighting cute sitting standing "
    "和 与 及 在 有 是 她 他 它 了 着 地 得 很 位 个 名 张 幅 副 顶 件 留着 留 人 人物 人的 脸 头 眼 眼睛 皮肤 光 光线 "
    "色 颜色 风格 画 画面 画像 一张 一副 一顶 一件 一只 只 带 带着 拥有 上 里 中 的 "
    "穿 戴 系 打 扎 坐 坐在 站 站在 一名 可爱".split()
)


@cache
def vocabulary(dialect: str) -> frozenset[str]:
    """Return the words of a dialect; none: it is no short list."""
    path = FOLDER / f"{dialect}.txt"
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()


@cache
def traditional() -> Mapping[str, str]:
    """Return the simplified character of each traditional one that the words of the dialects are written with."""
    return {pair[0]: pair[1] for pair in (FOLDER / "traditional.txt").read_text(encoding="utf-8").split()}


def unknown_words(prompt: str, dialect: str) -> tuple[str, ...]:
    """Return the words, Chinese ones as they stand together, that are not of the dialect, each once, in order."""
    words = vocabulary(dialect)
    if not words:
        return ()
    return tuple(dict.fromkeys(_unknown(prompt, words | JOINING)))


def _unknown(prompt: str, words: frozenset[str]) -> Iterator[str]:
    typed = prompt.lower()
    simplified = typed.translate({ord(character): plain for character, plain in traditional().items()})
    for match in RUN.finditer(simplified):
        begin, text = match.start(), match[0]
        if not text.isascii():
            yield from (typed[begin + at : begin + end] for at, end in _rests(text, words))
        elif not _english(text, words):
            yield text


def _english(word: str, words: frozenset[str]) -> bool:
    """In the singular too."""
    return len(word) == 1 or word in words or word.removesuffix("'s").removesuffix("s") in words


def _rests(text: str, words: frozenset[str]) -> Iterator[tuple[int, int]]:
    """
    Yield where that begins and ends which is left of Chinese text when the longest words that are at each place are
    taken away. What is unknown swallows a word of one letter behind it, as 沙 does in 沙发, unless that joins.
    """
    begin = at = 0  # of what is unknown, and of what is looked at
    while at < len(text):
        length = next((n for n in range(min(LONGEST, len(text) - at), 0, -1) if text[at : at + n] in words), 0)
        if begin < at and length == 1 and text[at] not in JOINING:
            length = 0
        if length:
            if begin < at:
                yield begin, at
            begin = at + length
        at += length or 1
    if begin < at:
        yield begin, at
