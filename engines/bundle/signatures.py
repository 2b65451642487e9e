"""
One signature per role: the named arrays that every engine takes and gives, and that an exported graph has. The contract
of the house.

Axes that are names vary from call to call. All arrays are float32 except token ids (int64). One picture at a time. An
optional input is there in graphs whose network takes it, and then it must be fed. What a denoiser gives is called
velocity; what its numbers mean (a velocity, noise ...) is its family's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from engines.bundle import Role
from engines.errors import EngineError

Array = NDArray[Any]
Axes = tuple[str | int, ...]
LONGEST_PX = 2048  # side of a picture


@dataclass(frozen=True)
class Signature:
    inputs: Mapping[str, Axes]
    output: str
    output_axes: Axes
    optional: Mapping[str, Axes] = field(default_factory=dict)

    def ranks(self, names: Iterable[str]) -> dict[str, int]:
        """Return the number of axes of every input, and of the optional ones among `names`."""
        given = {name: self.optional[name] for name in names if name in self.optional}
        return {name: len(axes) for name, axes in {**self.inputs, **given}.items()}


SIGNATURES: Mapping[Role, Signature] = {
    "text_encoder": Signature({"ids": (1, "T")}, "prompt", (1, "T", "D")),
    "denoiser": Signature(
        {"latents": (1, "C", "h", "w"), "time": (1,), "prompt": (1, "T", "D")},
        "velocity",
        (1, "C", "h", "w"),
        {"guidance": (1,)},  # of networks that take it as a number
    ),
    "decoder": Signature({"latents": (1, "C", "h", "w")}, "image", (1, 3, "H", "W")),  # image in [-1, 1]
    "preview_decoder": Signature({"latents": (1, "C", "h", "w")}, "image", (1, 3, "H", "W")),
    "encoder": Signature({"image": (1, 3, "H", "W")}, "latents", (1, "C", "h", "w")),  # the decoder's way back
    "face_detector": Signature({"picture": (1, 3, "H", "W")}, "candidates", (1, "n", "K")),  # RGB levels 0..255
    "restorer": Signature({"face": (1, 3, "N", "N")}, "restored", (1, 3, "N", "N")),  # both in [-1, 1]
}


def check_words(feeds: Mapping[str, Array], limits: Mapping[str, int], label: str) -> None:
    """
    Check ids for engines that would not notice: `limits` says how many rows the table of an input of ids has, and
    `label` begins with the engine's name. EngineError: an id is not in its table.
    """
    for name, limit in limits.items():
        ids = feeds.get(name)
        if ids is not None and ids.size and not 0 <= ids.min() <= ids.max() < limit:
            raise EngineError(f"{label}: {name} beyond {limit}", engine=label.partition(":")[0])


def check_output(role: Role, feeds: Mapping[str, Array], output: Array, label: str) -> None:
    """
    Check the shape of what a role gave, for engines that would not notice: axes are as long as those of the same name
    in the feeds, and no axis is empty. `label` begins with the engine's name. EngineError: it is another shape.
    """
    signature = SIGNATURES[role]
    named = {**signature.inputs, **signature.optional}
    lengths = {axis: n for name, array in feeds.items() for axis, n in zip(named[name], array.shape, strict=True)}
    wanted = tuple(lengths.get(axis, axis) for axis in signature.output_axes)
    fits = len(wanted) == output.ndim and output.size > 0
    if not fits or any(isinstance(n, int) and n != got for n, got in zip(wanted, output.shape, strict=True)):
        raise EngineError(f"{label}: gave {output.shape}, not {wanted}", engine=label.partition(":")[0])
