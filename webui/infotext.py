"""
How a picture was made, as its file says: the text that A1111's web UI, and this program, write into PNG files. It comes
from a stranger's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engines.errors import RequestError
from engines.messages import Generate, parse

MOST = 16_000  # letters: a long prompt, and as much again that it must not have
# A1111, modules/infotext_utils.py: `Name: value` or `Name: "value, with a comma"`, between commas, in the last line.
VALUE = re.compile(r'\s*(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
LORA = re.compile(r"(.+) (-?\d+(?:\.\d+)?)")
NEGATIVE = "Negative prompt:"


@dataclass(frozen=True)
class Infotext:
    """`values`: of the last line, by their names; what they mean is their program's."""

    prompt: str
    negative: str
    values: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        return {"Credit", "Engine", "Model"} <= self.values.keys()

    @property
    def is_restoration(self) -> bool:
        return "Steps" not in self.values

    @property
    def began_with_a_photo(self) -> bool:
        return "Denoising strength" in self.values

    def request(self, family: str = "") -> Generate:
        """
        Return what draws it, for a model of that family. Of what another program drew, its words and its size: seed,
        steps and guidance are its model's. RequestError: it is no such request.
        """
        fields: dict[str, object] = {"prompt": self.prompt, "negative": self.negative}
        if size := re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.values.get("Size", "")):
            fields |= {"width": int(size[1]), "height": int(size[2])}
        if self.is_ours:
            scale = float(self._number("CFG scale", 0.0))
            fields |= {"bundle": self.values["Model"], "loras": self._loras()}
            fields |= {"steps": self._number("Steps", 1), "seed": self._number("Seed", -1)}
            fields["variety"] = self._number("Seed variety", 0)
            fields |= {"guidance": round(scale - 1, 3) if family == "sd" else scale}  # as engines.families write it
        return parse(Generate, fields)

    def _number(self, name: str, otherwise: float) -> float:
        text = self.values.get(name, "")
        return float(text) if "." in text and re.fullmatch(r"\d{1,4}\.\d{1,6}", text) else _whole(text, otherwise)

    def _loras(self) -> list[dict[str, object]]:
        parts = filter(None, self.values.get("LoRA", "").split(" + "))
        pairs = [match for part in parts if (match := LORA.fullmatch(part))]
        return [{"name": name, "strength": float(strength)} for name, strength in (pair.groups() for pair in pairs)]


def _whole(text: str, otherwise: float) -> float:
    return int(text) if re.fullmatch(r"\d{1,10}", text) else otherwise


def read(text: str) -> Infotext:
    """RequestError: it says nothing of how a picture was made."""
    lines = text[:MOST].strip().split("\n")
    values = {name: _bare(value) for name, value in VALUE.findall(lines[-1])}
    if not {"Steps", "Engine"} & values.keys():
        raise RequestError("no parameters in it")
    words = "\n".join(lines[:-1])
    prompt, _, negative = words.partition(f"\n{NEGATIVE}") if not words.startswith(NEGATIVE) else ("", "", words)
    return Infotext(prompt.strip(), negative.removeprefix(NEGATIVE).strip(), values)


def _bare(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') and value.endswith('"') else value.strip()
