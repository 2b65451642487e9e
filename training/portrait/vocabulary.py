"""
The words that captions are made of, for the page, which says of others that the network never saw them:
`python -m training.portrait.vocabulary` writes presets/dialects/attributes.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.portrait import words

FILE = Path(__file__).parents[2] / "presets" / "dialects" / "attributes.txt"
# What captions.py puts between them.
JOINTS = (
    "portrait", "of", "a", "an", "with", "and", "wearing", "in", "hair", "striped", "tie", "background", "hat", "bangs",
    "freckles", "makeup", "肖像", "人像照片", "的", "一位", "一个", "穿", "穿着", "身穿", "戴", "戴着", "头戴", "帽子",
    "打领带", "系领带", "条纹", "背景", "头发", "发", "刘海", "雀斑", "化妆",
)  # fmt: skip


def vocabulary() -> list[str]:
    """Return English words and Chinese phrases, each once, in order."""
    return sorted({piece.lower() for text in (*JOINTS, *_texts()) for piece in _pieces(text)})


def _texts() -> Iterator[str]:
    tables = [value for name, value in vars(words).items() if name.isupper()]
    for table in tables:
        for synonyms in table.values() if isinstance(table, dict) else [table]:
            yield from synonyms


def _pieces(text: str) -> list[str]:
    pieces = text.replace("{c}", " ").split()
    return [part for piece in pieces for part in (piece.split("-") if piece.isascii() else [piece])]


if __name__ == "__main__":
    FILE.write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
