"""
LoRAs merged into a denoiser's weights for good, so that every engine can draw with them.

The sum is made in float32 and stored in the recipe's width; matrices that no LoRA changes stay as they are. What a file
holds is engines/networks/lora.py's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engines.bundle import digest
from engines.bundle.loras import LoraFile
from engines.errors import BundleError, LoraError
from engines.messages import Lora
from engines.messages.validation import limits, within
from engines.networks import lora
from engines.toolchain.steps import Say

Pairs = Mapping[str, tuple[Tensor, Tensor]]  # by layer: a, b; its weight grows by b a


@dataclass(frozen=True)
class Addition:
    """One file at one strength; as text, its line of a bundle's lineage."""

    path: Path
    strength: float
    sha256: str

    @classmethod
    def of(cls, text: str) -> Addition:
        """Read `FILE` or `FILE:strength`. LoraError: there is no such file. OptionError: no such strength."""
        return cls.from_file(lora_file(text))

    @classmethod
    def from_file(cls, lora: LoraFile) -> Addition:
        """LoraError: there is no such file. OptionError: no such strength."""
        within("lora", lora.strength, *limits(Lora, "strength"))
        if not lora.path.is_file():
            raise LoraError(lora.name, f"there is no file {lora.path}")
        return cls(lora.path, lora.strength, digest(lora.path))

    def __str__(self) -> str:
        return f"LoRA {self.path.name} at {self.strength:g}, sha256 {self.sha256}"


def lora_file(text: str) -> LoraFile:
    """Read an argument of the command: `FILE`, whose strength is 1, or `FILE:strength`."""
    name, colon, number = text.rpartition(":")
    strength = _number(number)
    return LoraFile(Path(name), strength) if colon and strength is not None else LoraFile(Path(text), 1.0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read(folder: Path, additions: Sequence[Addition], say: Say) -> Pairs:
    """What they add to the layers in this folder of safetensors, together. LoraError: one of them does not fit."""
    shapes = _shapes(folder) if additions else {}
    found = []
    for addition in additions:
        one = lora.read(addition.path, shapes)
        say(f"{addition.path.name} at {addition.strength:g}: {len(one.changes)} layers")
        if one.left_out:
            say(f"left out of {addition.path.name}: {', '.join(one.left_out)}")
        found.append((one, addition.strength))
    return lora.stacked(found)


def _shapes(folder: Path) -> lora.Shapes:
    """Of every matrix, from the headers alone: a large model lies in several files."""
    shapes: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():
                    shape = file.get_slice(key).get_shape()
                    if key.endswith(".weight") and len(shape) == 2:
                        shapes[key.removesuffix(".weight")] = (shape[0], shape[1])
        except (OSError, SafetensorError) as exc:
            raise BundleError(f"{path.name} cannot be read: {exc}", bundle=folder.name) from exc
    return shapes


def merged(state: Mapping[str, Tensor], pairs: Pairs) -> dict[str, Tensor]:
    """The weights with what is added to them: those in float32, whatever they were stored in."""
    return {name: _added(value, pairs.get(name.removesuffix(".weight"))) for name, value in state.items()}


def _added(value: Tensor, pair: tuple[Tensor, Tensor] | None) -> Tensor:
    return value if pair is None else value.float() + pair[1] @ pair[0]
