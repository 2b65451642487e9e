"""
One signature per role: the named arrays that every engine takes and gives, and that an exported graph has. The contract
of the house.

Axes that are names vary from call to call. All arrays are float32 except token ids (int64). One picture at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engines.bundle import Role

Array = NDArray[Any]
Axes = tuple[str | int, ...]


@dataclass(frozen=True)
class Signature:
    inputs: Mapping[str, Axes]
    output: str
    output_axes: Axes

    @property
    def ranks(self) -> dict[str, int]:
        return {name: len(axes) for name, axes in self.inputs.items()}


SIGNATURES: Mapping[Role, Signature] = {
    "text_encoder": Signature({"ids": (1, "T")}, "prompt", (1, "T", "D")),
    "denoiser": Signature(
        {"latents": (1, "C", "h", "w"), "time": (1,), "prompt": (1, "T", "D")}, "velocity", (1, "C", "h", "w")
    ),
    "decoder": Signature({"latents": (1, "C", "h", "w")}, "image", (1, 3, "H", "W")),  # image in [-1, 1]
    "preview_decoder": Signature({"latents": (1, "C", "h", "w")}, "image", (1, 3, "H", "W")),
    "restorer": Signature({"face": (1, 3, "N", "N")}, "restored", (1, 3, "N", "N")),  # both in [-1, 1]
}
