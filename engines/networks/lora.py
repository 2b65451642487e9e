"""
LoRA files: what they change in a network, whichever trainer wrote them; and a network to which some are applied.

A LoRA holds two matrices of low rank for each Linear that it changes: weight + strength * alpha / rank * B A (Hu et al.
2021). A layer's name may have any of PREFIXES, and dots or underscores alike. Z-Image's first code calls some layers
otherwise and has q, k and v in one: ORIGINAL and FUSED are from `convert_z_image_transformer_checkpoint_to_diffusers`
(diffusers/loaders/single_file_utils.py). Where a file has a layer both ways it says the same twice, as
`_convert_non_diffusers_z_image_lora_to_diffusers` knows (lora_conversion_utils.py). Knows no bundle and no engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from engines import files
from engines.bundle.loras import LoraFile
from engines.errors import LoraError
from engines.networks.faults import LOADER_FAULTS
from engines.networks.tensors import read_metadata, read_tensors

Shapes = Mapping[str, tuple[int, int]]  # of every Linear, by name: outputs, inputs
Stamp = tuple[Path, int, int]
PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "lora_unet_")
TEXT = ("text_encoder", "lora_te")  # begin the names of a text encoder's layers, which is not changed
# .default is PEFT's name for an adapter without one.
FACTOR = re.compile(
    r"(?P<layer>.+?)\.(?P<side>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|alpha)(\.default)?(\.weight)?"
)
SIDES = {"lora_A": "a", "lora_down": "a", "lora.down": "a", "lora_B": "b", "lora_up": "b", "lora.up": "b"}
OTHERS = {"dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", ".lokr_": "LoKr", ".hada_": "LoHa", ".oft_": "OFT"}
ORIGINAL = (("all_final_layer.2-1.", "final_layer."), ("all_x_embedder.2-1", "x_embedder"), (".to_out.0", ".out"))
FUSED = (("to_q", "to_k", "to_v"), "qkv")
CONFIG = "lora_adapter_metadata"  # in the header of a file that diffusers wrote
UNSUPPORTED = ", which is not supported: save it as a plain LoRA"


@dataclass(frozen=True)
class Config:
    """What counts of PEFT's LoraConfig. A pattern is the end of a layer's name, or all of it after `^`."""

    lora_alpha: float | None = None
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    use_dora: bool = False
    use_rslora: bool = False

    def alpha(self, layer: str) -> float | None:
        """Return the alpha of a layer that has none among the tensors; None if the config says none either."""
        for pattern, alpha in self.alpha_pattern.items():
            if layer == pattern.removeprefix("^") or layer.endswith(f".{pattern}"):
                return alpha
        return self.lora_alpha


@dataclass(frozen=True)
class Change:
    """The change of one Linear: its weight (out, in) grows by scale * b a, at a strength of 1. Float32."""

    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)
    scale: float  # alpha / rank


@dataclass(frozen=True)
class Lora:
    """
    What a file changes, by layer. `left_out` are layers, as the file calls them, that are a text encoder's or that the
    network has not.
    """

    changes: Mapping[str, Change]
    left_out: tuple[str, ...] = ()


def read(path: Path, shapes: Shapes) -> Lora:
    """
    Read what the file changes in a network of these shapes. LoraError: it cannot be read, is another kind of adapter,
    or is made for another network.
    """
    factors, left_out = _sorted_out(path)
    config, by_spelling = _config(path), spellings(shapes)
    own = {_flat(layer) for layer in shapes}
    changes: dict[str, Change] = {}
    for theirs in sorted(factors, key=lambda name: (_flat(name) not in own, name)):
        layers = by_spelling.get(_flat(theirs), ())
        if not layers:
            left_out.append(theirs)
        elif not changes.keys() & set(layers):  # or it is the twin of what was there under the layers' own names
            change = _change(path.stem, theirs, factors[theirs], config)
            changes.update(_fitted(path.stem, theirs, change, layers, shapes))
    if not changes:
        raise LoraError(path.stem, "it fits no layer of this model")
    return Lora(changes, tuple(sorted(left_out)))


def _sorted_out(path: Path) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return a, b and alpha by layer, as the file calls it; and the layers that are a text encoder's."""
    factors: dict[str, dict[str, Tensor]] = {}
    text = set()
    for key, value in _tensors(path).items():
        other = next((kind for word, kind in OTHERS.items() if word in key), "")
        if other:
            raise LoraError(path.stem, f"it is a {other}{UNSUPPORTED}")
        if (match := FACTOR.fullmatch(key)) is None:
            raise LoraError(path.stem, f"it holds {key[:80]}, which no plain LoRA has")
        if key.startswith(TEXT):
            text.add(match["layer"])
        else:
            factors.setdefault(_bare(match["layer"]), {})[SIDES.get(match["side"], "alpha")] = value.float()
    return factors, list(text)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except LOADER_FAULTS as exc:
        raise LoraError(path.stem, _unreadable(exc)) from exc


def _unreadable(exc: Exception) -> str:
    """Say why a file cannot be read, without its path, which is nobody's business."""
    why = type(exc).__name__ if isinstance(exc, OSError) else next(iter(str(exc).splitlines()), type(exc).__name__)
    return f"it cannot be read, {why}"


def _config(path: Path) -> Config:
    try:
        fields = json.loads(read_metadata(path).get(CONFIG, "{}"))
        config = files.validate(Config, {k.removeprefix("transformer."): v for k, v in fields.items()})
    except LOADER_FAULTS as exc:
        raise LoraError(path.stem, _unreadable(exc)) from exc
    if config.use_dora:
        raise LoraError(path.stem, f"it is a DoRA{UNSUPPORTED}")
    return config


def _bare(layer: str) -> str:
    for prefix in PREFIXES:
        layer = layer.removeprefix(prefix)
    return layer


def _flat(name: str) -> str:
    return name.replace(".", "_")


def spellings(layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what files may call these layers, flat, and the layers meant: several where a file has them as one."""
    names = set(layers)
    by_spelling: dict[str, tuple[str, ...]] = {}
    parts, together = FUSED
    for layer in names:
        block = layer.removesuffix(parts[0])
        if layer.endswith(f".{parts[0]}") and names.issuperset(fused := tuple(block + part for part in parts)):
            by_spelling[_flat(block + together)] = fused
        for ours, theirs in ORIGINAL:
            by_spelling[_flat(layer.replace(ours, theirs))] = (layer,)
    return {**by_spelling, **{_flat(layer): (layer,) for layer in names}}


def _change(name: str, layer: str, parts: Mapping[str, Tensor], config: Config) -> Change:
    if not {"a", "b"} <= parts.keys():
        raise LoraError(name, f"{layer} lacks one of its two matrices")
    a, b = parts["a"], parts["b"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not len(a):
        raise LoraError(name, f"the two matrices of {layer}, {_size(b)} and {_size(a)}, make none together")
    rank, usual = len(a), config.alpha(layer)
    alpha = parts.get("alpha", torch.tensor(float(rank if usual is None else usual)))
    if alpha.numel() != 1 or not all(value.isfinite().all() for value in (a, b, alpha)):
        raise LoraError(name, f"{layer} has values that are not numbers")
    return Change(a, b, alpha.item() / (rank**0.5 if config.use_rslora else rank))


def _fitted(
    name: str, theirs: str, change: Change, layers: Sequence[str], shapes: Shapes
) -> Iterator[tuple[str, Change]]:
    """Yield the change of each layer, where the file has several as one: their outputs stand below each other."""
    outputs = [shapes[layer][0] for layer in layers]
    given, wanted = (len(change.b), change.a.shape[1]), (sum(outputs), shapes[layers[0]][1])
    if given != wanted:
        raise LoraError(name, f"{theirs} is {given[0]} x {given[1]}, in this model {wanted[0]} x {wanted[1]}")
    for layer, b in zip(layers, torch.split(change.b, outputs), strict=True):
        yield layer, replace(change, b=b)


def _size(matrix: Tensor) -> str:
    return " x ".join(map(str, matrix.shape))


def stacked(loras: Iterable[tuple[Lora, float]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return several LoRAs at their strengths as one pair (a, b) for each layer: weight + b a."""
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for lora, strength in loras:
        for layer, change in lora.changes.items():
            pairs.setdefault(layer, []).append((change.a, change.b * (strength * change.scale)))
    return {
        layer: (torch.cat([a for a, _ in each]), torch.cat([b for _, b in each], 1)) for layer, each in pairs.items()
    }


class ActiveLoras:
    """
    The LoRAs that are applied to a network. A layer's output gets what its LoRAs add, beside its weight, which is never
    touched: without them, nothing is left of them. Files are read when they are first applied, and dropped when they no
    longer are.
    """

    def __init__(self, network: nn.Module) -> None:
        self.layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
        self.shapes = {name: (layer.out_features, layer.in_features) for name, layer in self.layers.items()}
        self.held: dict[Stamp, Lora] = {}
        self.active: list[tuple[Stamp, float]] = []
        self.hooks: list[RemovableHandle] = []

    def set(self, wanted: Sequence[LoraFile]) -> tuple[LoraError, ...]:
        """Apply these from now on, and no others; return why some cannot be applied."""
        held: dict[Stamp, Lora] = {}
        active: list[tuple[Stamp, float]] = []
        refused: list[LoraError] = []
        for file in wanted:
            try:
                stamp = _stamp(file)
                held[stamp] = self.held.get(stamp) or held.get(stamp) or read(file.path, self.shapes)
                active.append((stamp, file.strength))
            except LoraError as exc:
                refused.append(exc)
        if active != self.active:
            self._change(stacked((held[stamp], strength) for stamp, strength in active))
        self.held, self.active = held, active
        return tuple(refused)

    def _change(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = [
            layer.register_forward_hook(_adding(a.to(layer.weight.device), b.to(layer.weight.device)))
            for layer, (a, b) in ((self.layers[name], pair) for name, pair in pairs.items())
        ]


def _stamp(file: LoraFile) -> Stamp:
    """Return what tells a file from one that was there before it under its name."""
    try:
        stat = file.path.stat()
    except OSError as exc:
        raise LoraError(file.name, _unreadable(exc)) from exc
    return file.path, stat.st_mtime_ns, stat.st_size


def _adding(a: Tensor, b: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a forward hook that adds b a x to a layer's output; `a` and `b` lie on the layer's device."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + F.linear(F.linear(inputs[0], a), b)

    return hook
