"""
What a bundle is made from: a folder in diffusers' layout, a GPEN checkpoint (safetensors, .pth, ONNX), or a bundle that
carries its source. Read here into one shape; nothing is converted yet.

A .pth is a pickle: it is read with weights_only, which builds tensors and nothing else, and there is no other way.
"""

from __future__ import annotations

import json
import pickle
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engines.bundle import Bundle, Face, Role, Sampling
from engines.errors import BundleError
from engines.networks.gpen import Spec

FOLDERS: Mapping[Role, str] = {
    "text_encoder": "text_encoder",
    "denoiser": "transformer",
    "decoder": "vae",
    "preview_decoder": "preview_decoder",
}
WRAPPERS = ("g_ema", "params_ema", "params", "state_dict")  # under which trainers hide a state dict
# How a file begins that torch before 1.6 wrote, as upstream's may be: no zip, and so it cannot be mapped into memory.
OLD_PTH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
# What the loaders of torch and safetensors raise for files that are missing, cut off or another's.
FAULTS = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, struct.error, SafetensorError,
    pickle.UnpicklingError,
)  # fmt: skip
FOREIGN = "see the licence of the source"
QWEN_TEMPLATE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"  # Qwen3's, thinking enabled


@dataclass(frozen=True)
class About:
    """What weights cannot say of themselves. The defaults are Z-Image-Turbo's, and an official GPEN's."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = ""
    title: dict[str, str] = field(default_factory=dict)
    dialect: str = "natural"
    sizes: tuple[tuple[int, int], ...] = ((512, 512), (768, 768), (1024, 1024))
    steps: int = 8
    guidance: float = 0.0
    template: str = QWEN_TEMPLATE
    licence: str = FOREIGN
    lineage: tuple[str, ...] = ()
    residual: float = 0.0

    @classmethod
    def read(cls, path: Path | None) -> About:
        """BundleError: the file says something else."""
        if path is None:
            return cls()
        try:
            return TypeAdapter(cls).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as exc:  # no text, no TOML, or not these fields
            raise BundleError(f"{path.name}: {exc}", bundle=path.name) from exc


@dataclass(frozen=True)
class Source:
    """`parts` are folders of config.json and safetensors, or one file. `card` is the maker's text, if there is one."""

    family: str
    parts: Mapping[Role, Path]
    about: About
    sampling: Sampling | None = None
    tokenizer: Path | None = None
    face: Face | None = None
    card: Path | None = None


def portrait(base: Path, about_file: Path | None = None) -> Source:
    """`base`: a bundle, or what ZImagePipeline.save_pretrained writes with preview_decoder/ beside. BundleError."""
    if (base / "bundle.json").is_file():
        return _of_bundle(Bundle.open(base), "diffusers")
    about = About.read(about_file)
    try:
        vae, shift = _config(base / "vae"), _config(base / "scheduler", "scheduler_config.json")["shift"]
        stride = 2 ** (len(vae["block_out_channels"]) - 1)
        scale = (vae["latent_channels"], stride, vae["scaling_factor"], vae["shift_factor"])
        sampling = Sampling(about.steps, shift, *scale, about.guidance)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{base.name} is not a folder of ZImagePipeline: {exc!r}", bundle=base.name) from exc
    parts = {role: base / folder for role, folder in FOLDERS.items() if (base / folder).is_dir()}
    if missing := sorted(set(FOLDERS) - {"preview_decoder"} - set(parts)):
        raise BundleError(f"{base.name} has no {', '.join(missing)}", bundle=base.name)
    tokenizer = base / "tokenizer" / "tokenizer.json"
    return Source("zimage", parts, about, sampling, tokenizer, card=_card(about_file or base / "about.toml"))


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return told


def restorer(weights: Path, about_file: Path | None = None) -> Source:
    """`weights`: a bundle, or a GPEN as .safetensors, .pth or .onnx. BundleError: none of these."""
    if (weights / "bundle.json").is_file():
        return _of_bundle(Bundle.open(weights), "safetensors")
    about = About.read(about_file)
    size_px = onnx_size_px(weights) if weights.suffix == ".onnx" else size_of(weights, read_state(weights))
    return Source(
        "gpen", {"restorer": weights}, about, face=Face(size_px, about.residual), card=_card(about_file or weights)
    )


def _card(beside: Path) -> Path | None:
    card = beside.with_name("card.md")
    return card if card.is_file() else None


def _of_bundle(bundle: Bundle, source: str) -> Source:
    parts = {part.role: bundle.root / part.file for part in bundle.parts if part.format == source}
    if missing := sorted(bundle.roles - set(parts)):
        raise BundleError(f"{bundle.name} carries no source of its {', '.join(missing)}", bundle=bundle.name)
    licence, sampling = bundle.parts[0].licence, bundle.sampling
    about = About(
        title=bundle.title,
        dialect=bundle.dialect,
        sizes=bundle.sizes,
        steps=sampling.steps if sampling else 0,
        guidance=sampling.guidance if sampling else 0.0,
        template=bundle.text.template if bundle.text else "",
        licence=licence,
        lineage=bundle.lineage,
        residual=bundle.face.residual if bundle.face else 0.0,
    )
    tokenizer = bundle.root / bundle.text.tokenizer if bundle.text else None
    return Source(bundle.family, parts, about, sampling, tokenizer, bundle.face, _card(bundle.root / "bundle.json"))


def read_state(path: Path) -> dict[str, Tensor]:
    """A GPEN's state dict. BundleError: the file is damaged, or holds something else."""
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FAULTS as exc:
        why = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise BundleError(f"{path.name} cannot be read: {why}", bundle=path.name) from exc
    for key in WRAPPERS:
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BundleError(f"{path.name} holds no state dict", bundle=path.name)
    return state


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        old = file.read(len(OLD_PTH)) == OLD_PTH
    return torch.load(path, "cpu", weights_only=True, mmap=not old)


def size_of(path: Path, state: Mapping[str, Tensor]) -> int:
    try:
        return Spec.of(state).size_px
    except (KeyError, IndexError, ValueError) as exc:
        raise BundleError(f"{path.name} is not a GPEN: {exc!r}", bundle=path.name) from exc


def onnx_size_px(path: Path) -> int:
    """Of a community export: one picture (1, 3, N, N) in and one out. BundleError: it is something else."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as exc:
        raise BundleError(f"{path.name} cannot be read: {exc}", bundle=path.name) from exc
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise BundleError(f"{path.name} keeps weights in another file, which is not followed", bundle=path.name)
    taken, given = ([_shape(value) for value in values] for values in (inputs, graph.output))
    if len(taken) != 1 or len(given) != 1 or not _is_face(taken[0]) or not _fits(given[0], taken[0]):
        raise BundleError(f"{path.name} makes {given} of {taken}, not one face of the same size", bundle=path.name)
    return taken[0][2]


def _shape(value: Any) -> list[int]:
    """0 for what may vary."""
    return [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]


def _is_face(shape: list[int]) -> bool:
    return len(shape) == 4 and shape[0] in (0, 1) and shape[1] == 3 and shape[2] == shape[3] >= 64


def _fits(shape: list[int], wanted: list[int]) -> bool:
    return len(shape) in (0, 4) and all(said in (0, want) for said, want in zip(shape, wanted, strict=False))
