"""
Preset portraits, one TOML file each; the file name is the preset's name.

Knows words and numbers only. A preset is expanded before a job is submitted, so that a stored job needs no preset.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")  # a misspelt field is an error, not a default
FOLDER = Path(__file__).parent
DIALECTS, LANGUAGES = ("natural", "attributes"), ("zh", "en")
Words = dict[str, str]  # language ("zh", "en") -> text


class PresetError(ValueError):
    """A preset file does not say what it must. The message names the file and the field."""


@dataclass(frozen=True, config=STRICT)
class Wording:
    """What to draw, in the words that one dialect of bundles understands. guidance None: the bundle's own."""

    prompt: Words
    negative: Words
    guidance: float | None = None


@dataclass(frozen=True, config=STRICT)
class Preset:
    name: str
    order: int
    title: Words
    width: int  # px
    height: int  # px
    steps: int
    lora_strength: float  # of AWPortrait-Z or whatever portrait LoRA the bundle has
    natural: Wording  # for networks that read sentences
    attributes: Wording  # for the built-in drawings, which know a list of attributes
    thumbnail_seed: int = 1  # with which the card's picture was drawn (training/thumbnails.py)

    def wording(self, dialect: str) -> Wording:
        return self.attributes if dialect == "attributes" else self.natural

    @property
    def thumbnail(self) -> Path:
        return FOLDER / "thumbnails" / f"{self.name}.webp"


@cache
def load(folder: Path = FOLDER) -> tuple[Preset, ...]:
    """Read all presets, in their order. PresetError: a file is not one."""
    presets = (_read(path) for path in folder.glob("*.toml"))
    return tuple(sorted(presets, key=lambda preset: (preset.order, preset.name)))


def prompts(*dialects: str) -> tuple[str, ...]:
    """
    List all that the cards can ask for in these dialects, or in both, each once: a bundle that has read them needs no
    text encoder for them.
    """
    wordings = [preset.wording(name) for preset in load() for name in dialects or DIALECTS]
    texts = (said[language] for w in wordings for said in (w.prompt, w.negative) for language in LANGUAGES)
    return tuple(dict.fromkeys(text for text in texts if text))


def _read(path: Path) -> Preset:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        preset: Preset = TypeAdapter(Preset).validate_python({**values, "name": path.stem})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as exc:
        raise PresetError(f"presets/{path.name}: {exc}") from exc
    said = (preset.natural.prompt, preset.natural.negative, preset.attributes.prompt, preset.attributes.negative)
    for words in (preset.title, *said):
        if set(words) != set(LANGUAGES):
            raise PresetError(f"presets/{path.name}: every text must be there in zh and in en")
    return preset


def nearest_size(width: int, height: int, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """
    Choose among the sizes that a bundle draws well the one of the closest shape; of equal shapes the first. Without
    sizes: the size itself.
    """
    return min(sizes, key=lambda size: abs(size[0] * height - size[1] * width) / size[1], default=(width, height))
