"""
LoRAs merged into a denoiser's weights for good, so that every engine can draw with them.

The sum is made in float32 and stored in the recipe's width; matrices that no LoRA changes stay as they are. What a file
holds is engines/networks/lora.py's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from engines.bundle import digest
from engines.bundle.loras import LoraFile
from engines.errors import BundleError, LoraError
from engines.messages import Lora
from engines.messages.validation import limits, within
from engines.networks import lora
from engines.networks.tensors import read_shapes
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
    """
    Return what they add to the layers in this folder of safetensors, together. LoraError: one of them does not fit.
    """
    shapes = _shapes(folder) if additions else {}
    loras = []
    for addition in additions:
        file = lora.read(addition.path, shapes)
        say(f"{addition.path.name} at {addition.strength:g}: {len(file.changes)} layers")
        if file.left_out:
            say(f"left out of {addition.path.name}: {', '.join(file.left_out)}")
        loras.append((file, addition.strength))
    return lora.stacked(loras)


def _shapes(folder: Path) -> lora.Shapes:
    """Return the shape of every matrix, by its layer. BundleError: a file cannot be read."""
    try:
        shapes = read_shapes(folder)
    except (OSError, ValueError) as exc:
        raise BundleError(f"{folder.name} cannot be read: {exc}", bundle=folder.name) from exc
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    }


def merged(state: Mapping[str, Tensor], pairs: Pairs) -> dict[str, Tensor]:
    """Return the weights with what is added to them: those in float32, whatever they were stored in."""
    by_weight = {f"{layer}.weight": pair for layer, pair in pairs.items()}
    return {
        name: value.float() + by_weight[name][1] @ by_weight[name][0] if name in by_weight else value
        for name, value in state.items()
    }
