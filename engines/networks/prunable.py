"""
Which units of a denoiser can be pruned without a change to what stands around it, and how a pruned one is opened.

A unit is what goes as a whole: an attention head, a channel of a feed-forward layer or of the time embedding, a group
of channels under one GroupNorm. Units lie inside a block, so that the width of what blocks hand to each other stays,
and what is left of a norm sees what it saw. Without a unit the network is the one whose weights out of that unit are
zero. The classes' configs cannot say such widths. So config.json of a pruned network has one more entry, PRUNED, with
the facts of it; the widths are the tensors' own, read from the header of the file. Knows no importance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engines.networks.tensors import read_shapes, read_tensors

PRUNED = "pruned"
Kind = Literal["heads", "feed-forward", "channels", "time"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Place:
    """Where units stand in a tensor: along an axis, from a channel on. Along axis 1 a layer takes them in."""

    tensor: str
    axis: int  # 0 or 1
    start: int = 0


@dataclass(frozen=True)
class Group:
    """`count` units of `size` channels each, the same ones in every place."""

    name: str
    kind: Kind
    count: int
    size: int
    places: tuple[Place, ...]

    def channels(self, units: Tensor, place: Place) -> Tensor:
        """Return the units' indices along the place's axis. (n,) -> (n * size,)"""
        return (place.start + units[:, None] * self.size + torch.arange(self.size)).flatten()


def groups(net: nn.Module) -> list[Group]:
    """Return what can be pruned of Z-Image's transformer or Stable Diffusion's U-Net, in the order of its blocks."""
    from diffusers.models.attention import FeedForward as Geglu
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_z_image import FeedForward as Swiglu
    from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

    readers = {Attention: _heads, Swiglu: _swiglu, Geglu: _geglu, ResnetBlock2D: _resnet, TimestepEmbedder: _time}
    modules = dict(net.named_modules())
    return [
        group
        for name, module in modules.items()
        for kind, read in readers.items()
        if type(module) is kind
        for group in read(name, module, modules)
    ]


Modules = Mapping[str, nn.Module]


def _heads(name: str, attention: Any, modules: Modules) -> Iterator[Group]:
    """Yield the heads: each has its rows in the three projections and its columns in the output's."""
    layers = [(f"{name}.{layer}", 0) for layer in ("to_q", "to_k", "to_v")]
    places = _places([*layers, (f"{name}.to_out.0", 1)], modules)
    yield Group(name, "heads", attention.heads, attention.inner_dim // attention.heads, places)


def _swiglu(name: str, layer: Any, modules: Modules) -> Iterator[Group]:
    """Yield the hidden channels of w2(silu(w1 x) * w3 x). (Shazeer 2020)"""
    places = _places([(f"{name}.w1", 0), (f"{name}.w3", 0), (f"{name}.w2", 1)], modules)
    yield Group(name, "feed-forward", layer.w2.in_features, 1, places)


def _geglu(name: str, layer: Any, modules: Modules) -> Iterator[Group]:
    """Yield the hidden channels; the first matrix gives their values, then their gates. (Shazeer 2020)"""
    width, both = layer.net[2].in_features, [(f"{name}.net.0.proj", 0)]
    places = (*_places(both, modules), *_places(both, modules, width), *_places([(f"{name}.net.2", 1)], modules))
    yield Group(name, "feed-forward", width, 1, places)


def _resnet(name: str, block: Any, modules: Modules) -> Iterator[Group]:
    """
    Yield the groups of channels between the two convolutions, each under one group of norm2. ValueError: the time
    scales its channels, which no Stable Diffusion 1 or 2 does.
    """
    if block.time_embedding_norm != "default":
        raise ValueError(f"{name} is told the time by {block.time_embedding_norm}")
    inner = ("conv1", "time_emb_proj", "norm2")
    places = _places([*((f"{name}.{layer}", 0) for layer in inner), (f"{name}.conv2", 1)], modules)
    norm = block.norm2
    yield Group(name, "channels", norm.num_groups, norm.num_channels // norm.num_groups, places)


def _time(name: str, embedder: Any, modules: Modules) -> Iterator[Group]:
    """Yield the channels between the embedder and every layer that it modulates."""
    modulated = [(key, 1) for key, m in modules.items() if "adaLN_modulation" in key and isinstance(m, nn.Linear)]
    yield Group(name, "time", embedder.mlp[2].out_features, 1, _places([(f"{name}.mlp.2", 0), *modulated], modules))


def _places(layers: list[tuple[str, int]], modules: Modules, start: int = 0) -> tuple[Place, ...]:
    return tuple(
        Place(f"{layer}.{tensor}", axis, start)
        for layer, axis in layers
        for tensor in (("weight", "bias") if axis == 0 else ("weight",))
        if getattr(modules[layer], tensor) is not None
    )


# ---- a pruned network


def without(state: Mapping[str, Tensor], cut: Mapping[Group, Tensor]) -> dict[str, Tensor]:
    """Return the state dict without these units (n,) of each group."""
    gone: dict[tuple[str, int], list[Tensor]] = {}
    for group, units in cut.items():
        for place in group.places:
            gone.setdefault((place.tensor, place.axis), []).append(group.channels(units, place))
    pruned = dict(state)
    for (tensor, axis), channels in gone.items():
        mask = torch.ones(pruned[tensor].shape[axis], dtype=torch.bool)
        mask[torch.cat(channels)] = False
        pruned[tensor] = pruned[tensor].index_select(axis, mask.nonzero()[:, 0]).contiguous()
    return pruned


def fit(net: nn.Module, shapes: Shapes) -> None:
    """Give the layers these shapes; their contents are undefined then. ValueError: a tensor is missing or unknown."""
    if odd := sorted(shapes.keys() ^ net.state_dict().keys()):
        raise ValueError(f"{len(odd)} tensors are missing or unknown, {odd[0]} for one")
    for group in groups(net):
        if units := _units(group, _shapes(net), shapes):
            _set_units(net.get_submodule(group.name), group, units)
    for name, value in list(net.named_parameters()):
        if value.shape != shapes[name]:
            layer, _, kind = name.rpartition(".")
            setattr(net.get_submodule(layer), kind, nn.Parameter(value.new_empty(shapes[name])))
            _set_shape(net.get_submodule(layer), shapes[name])


def _shapes(net: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def _units(group: Group, old: Shapes, new: Shapes) -> int:
    """
    Return how many units are left; 0 if none is gone. ValueError: its places do not agree, or no whole number is left.
    """
    places = Counter((place.tensor, place.axis) for place in group.places)
    gone = {(old[name][axis] - new[name][axis]) / times / group.size for (name, axis), times in places.items()}
    units = group.count - max(gone)
    if len(gone) > 1 or units < 1 or units > group.count or not units.is_integer():
        raise ValueError(f"{group.name}: its tensors leave {units:g} units of {group.count}")
    return int(units) if units < group.count else 0


def _set_units(owner: Any, group: Group, units: int) -> None:
    """Set what a block, rather than its layers, says of its units."""
    if group.kind == "heads":
        owner.heads = owner.sliceable_head_dim = units
        owner.inner_dim = owner.inner_kv_dim = units * group.size
    elif group.kind == "channels":
        owner.norm2.num_groups = units


def _set_shape(layer: Any, shape: tuple[int, ...]) -> None:
    """Set a layer's own numbers of channels, which it shows and which exporters read."""
    if isinstance(layer, nn.Linear) and len(shape) == 2:
        layer.out_features, layer.in_features = shape
    elif isinstance(layer, nn.Conv2d) and len(shape) == 4:
        layer.out_channels, layer.in_channels = shape[:2]
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = shape[0]


def is_pruned(folder: Path) -> bool:
    """Tell whether the network in `folder` has fewer units than its class makes of its config."""
    return PRUNED in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def sketch(kind: Any, folder: Path) -> Any:
    """Return the network in `folder`, with shapes and without weights (on torch's device "meta")."""
    config = {name: value for name, value in kind.load_config(folder).items() if name != PRUNED}
    with torch.device("meta"):
        net = kind.from_config(config)
    fit(net, read_shapes(folder))
    return net


def load(kind: Any, folder: Path, width: torch.dtype) -> Any:
    """
    Open the pruned network in `folder`, its weights in this type. ValueError: tensors are missing, unknown, or of
    shapes that do not go together.
    """
    net = sketch(kind, folder)
    for path in sorted(folder.glob("*.safetensors")):
        state = {name: value.to(width) for name, value in read_tensors(path).items()}
        net.load_state_dict(state, strict=False, assign=True)
    return net
