"""
Preset portraits, one TOML file each; the file name is the preset's name.

Knows words and numbers only. A preset is expanded before a job is submitted, so that a stored job needs no preset.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from presets.blanks import Slot, fault

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

STRICT = ConfigDict(extra="forbid")  # a misspelt field is an error, not a default
FOLDER = Path(__file__).parent
DIALECTS, LANGUAGES = ("natural", "attributes"), ("zh", "en")
NAMED_IN = (*LANGUAGES, "zh-TW")  # titles alone: prompts are in the words that the networks were trained with
Words = dict[str, Annotated[str, Field(max_length=4000)]]  # language -> text
Px = Annotated[int, Field(ge=16, le=4096)]
Strength = Annotated[float, Field(ge=-2.0, le=2.0)]
MOST_BYTES = 16_384  # of a file: strangers send some
MOST_LORAS = 8
# A line of more dots than names of fields have, which tomllib would follow for seconds. The texts of the fields, which
# may have any, stand behind `name =`.
DEEP = re.compile(r"^(?![ \t]*[\w-]+[ \t]*=)(?:[^.\n]*\.){17}", re.MULTILINE)


class PresetError(ValueError):
    """
    A preset file does not say what it must. The message names the file and the field. `fault`: what pydantic says of
    it; None: it is no TOML at all.
    """

    def __init__(self, detail: str, field: str = "", fault: ErrorDetails | None = None) -> None:
        super().__init__(detail)
        self.field, self.fault = field, fault


@dataclass(frozen=True, config=STRICT)
class Wording:
    """
    What to draw, in the words that one dialect of bundles understands. guidance None: the bundle's own. `blanks`: what
    of the prompt can be exchanged at a press (presets/blanks.py).
    """

    prompt: Words
    negative: Words
    guidance: Annotated[float | None, Field(ge=0.0, le=10.0)] = None
    blanks: dict[str, Slot] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Lora:
    """A LoRA file to be worn, by its name."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    strength: Strength


@dataclass(frozen=True, config=STRICT)
class Preset:
    """`attributes` may be left out of a file: then they are as `natural`."""

    name: str
    order: Annotated[int, Field(ge=0, le=9999)]
    title: Words  # zh-TW only where it differs from zh
    width: Px
    height: Px
    steps: Annotated[int, Field(ge=1, le=50)]
    lora_strength: Strength  # of AWPortrait-Z or whatever portrait LoRA the bundle has
    natural: Wording  # for networks that read sentences
    attributes: Wording  # for the built-in drawings, which know a list of attributes
    thumbnail_seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1  # of the card's picture (training/thumbnails.py)
    bundle: Annotated[str, Field(max_length=100)] = ""  # with which it was saved: its steps and LoRAs hold, too
    loras: Annotated[tuple[Lora, ...], Field(max_length=MOST_LORAS)] = ()

    def wording(self, dialect: str) -> Wording:
        return self.attributes if dialect == "attributes" else self.natural

    @property
    def thumbnail(self) -> Path:
        return FOLDER / "thumbnails" / f"{self.name}.webp"


ADAPTER = TypeAdapter(Preset)


@cache
def load(folder: Path = FOLDER) -> tuple[Preset, ...]:
    """Read all presets, in their order. PresetError: a file is not one."""
    presets = (_read(path) for path in folder.glob("*.toml"))
    return tuple(sorted(presets, key=lambda preset: (preset.order, preset.name)))


def named(name: str) -> Preset | None:
    """Return the one that has this name. None: there is none."""
    return next((preset for preset in load() if preset.name == name), None)


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
        return parse(path.read_text(encoding="utf-8"), path.stem)
    except (UnicodeDecodeError, PresetError) as exc:
        raise PresetError(f"presets/{path.name}: {exc}") from exc


def parse(text: str, name: str) -> Preset:
    """Read a preset file, a stranger's too. PresetError: it is none."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise PresetError(f"larger than {MOST_BYTES} bytes")
    if DEEP.search(text):
        raise PresetError("nested too deeply")
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # TOMLDecodeError is a ValueError, as is a number of 5000 digits
        raise PresetError(f"no TOML: {exc}") from exc
    if "name" in values:
        raise PresetError("name: the file's own", "name")
    if "natural" in values:
        values.setdefault("attributes", values["natural"])
    try:
        preset = ADAPTER.validate_python({**values, "name": name})
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_input=False)  # what was given may be endless
        said = "; ".join(f"{_path(fault)}: {fault['msg']}" for fault in faults[:9])
        raise PresetError(said[:600], _path(faults[0]), faults[0]) from exc
    _check_languages(preset)
    _check_blanks(preset)
    return preset


def _path(fault: ErrorDetails) -> str:
    return ".".join(map(str, fault["loc"]))[:60]


def _check_languages(preset: Preset) -> None:
    if not set(LANGUAGES) <= set(preset.title) <= set(NAMED_IN) or not all(preset.title.values()):
        raise PresetError("title: must be there in zh and in en, and may be in zh-TW", "title")
    texts: dict[str, Words] = {}
    for dialect in DIALECTS:
        wording = preset.wording(dialect)
        texts |= {f"{dialect}.prompt": wording.prompt, f"{dialect}.negative": wording.negative}
    for field, words in texts.items():
        if set(words) != set(LANGUAGES):
            raise PresetError(f"{field}: every text must be there in zh and in en", field)


def _check_blanks(preset: Preset) -> None:
    for dialect in DIALECTS:
        wording = preset.wording(dialect)
        for name, slot in wording.blanks.items():
            if wrong := fault(name, slot, wording.prompt):
                where = f"{dialect}.blanks.{name}"[:60]
                raise PresetError(f"{where}: {wrong}", where)


def write(preset: Preset) -> str:
    """Return the file of a preset, which `parse` reads as the same one."""
    lines = [
        f"order = {preset.order}",
        "title = { " + ", ".join(f"{key} = {_quoted(text)}" for key, text in preset.title.items()) + " }",
        *(f"{field} = {getattr(preset, field)!r}" for field in ("width", "height", "steps", "lora_strength")),
        f"thumbnail_seed = {preset.thumbnail_seed}",
        *([f"bundle = {_quoted(preset.bundle)}"] if preset.bundle else []),
    ]
    for dialect in DIALECTS if preset.attributes != preset.natural else DIALECTS[:1]:
        wording = preset.wording(dialect)
        lines += ["", f"[{dialect}]"] + ([] if wording.guidance is None else [f"guidance = {wording.guidance!r}"])
        for field, words in (("prompt", wording.prompt), ("negative", wording.negative)):
            lines += ["", f"[{dialect}.{field}]", *(f"{key} = {_quoted(words[key])}" for key in LANGUAGES)]
        if wording.blanks:
            lines += ["", f"[{dialect}.blanks]", *(f"{name} = {_table(slot)}" for name, slot in wording.blanks.items())]
    for lora in preset.loras:
        lines += ["", "[[loras]]", f"name = {_quoted(lora.name)}", f"strength = {lora.strength!r}"]
    return "\n".join(lines) + "\n"


def titled(preset: Preset, title: str) -> Preset:
    """Return it under this title, in both languages."""
    return replace(preset, title=dict.fromkeys(LANGUAGES, title))


def _table(slot: Slot) -> str:
    """Of what it says; lists of names are written in JSON as in TOML."""
    said = {part.name: getattr(slot, part.name) for part in fields(slot) if getattr(slot, part.name)}
    pairs = [
        f"{key} = {_quoted(value) if isinstance(value, str) else json.dumps(value)}" for key, value in said.items()
    ]
    return "{ " + ", ".join(pairs) + " }" if pairs else "{}"


def _quoted(text: str) -> str:
    """A basic string: TOML has JSON's escapes, and wants one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def nearest_size(width: int, height: int, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """
    Choose among the sizes that a bundle draws well the one of the closest shape; of equal shapes the first. Without
    sizes: the size itself.
    """
    return min(sizes, key=lambda size: abs(size[0] * height - size[1] * width) / size[1], default=(width, height))
