"""
What a bundle is made from: a folder in diffusers' layout, one file of Stable Diffusion, a GPEN checkpoint (safetensors,
.pth, ONNX), or a bundle that carries its source. Read here into one shape; nothing is converted yet.

A .pth is a pickle: it is read with weights_only, which builds tensors and nothing else, and there is no other way.
"""

from __future__ import annotations

import json
import pickle
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from torch import Tensor

from engines import files
from engines.bundle import Bundle, FaceInput, Role, Sampling, Scheduler, Text
from engines.errors import BundleError
from engines.networks.faults import LOADER_FAULTS
from engines.networks.gpen import Spec
from engines.networks.tensors import read_tensors
from engines.toolchain.sources import stable_diffusion
from engines.toolchain.sources.autoencoder import with_encoder
from engines.toolchain.sources.face_detector import recognise

FOLDERS: Mapping[Role, str] = {  # Z-Image's
    "text_encoder": "text_encoder", "denoiser": "transformer", "decoder": "vae", "encoder": "vae",
}  # fmt: skip
TINY = {4: "taesd", 16: "taef1"}  # the tiny decoder of a latent space, by its channels
LIBRARIES = ("diffusion_pytorch_model", "model")  # how diffusers and transformers call their weights
WRAPPERS = ("g_ema", "params_ema", "params", "state_dict")  # under which trainers hide a state dict
# How a file begins that torch before 1.6 wrote, as upstream's may be: no zip, and so it cannot be mapped into memory.
OLD_PTH = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
ALWAYS_REDUCED: frozenset[Role] = frozenset({"denoiser", "decoder"})  # by recipes that reduce anything of a portrait
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
    exact: tuple[Role, ...] = ()  # what is not quantised of these stays in float32 on every engine
    scheduler: Scheduler | None = None  # of Stable Diffusion, instead of the checkpoint's own

    @classmethod
    def read(cls, path: Path | None, **customs: Any) -> About:
        """Read the file; `customs` hold where it says nothing. BundleError: it says something else."""
        if path is None:
            return cls(**customs)
        try:
            stated = tomllib.loads(path.read_text(encoding="utf-8"))
            return files.validate(cls, {**customs, **stated})
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
    face: FaceInput | None = None
    card: Path | None = None
    text: Text | None = None  # its checksum and template are still to come


def portrait(base: Path, about_file: Path | None = None, checkpoints: Path | None = None) -> Source:
    """
    Return the source of a portrait model. `base`: a bundle, a folder as ZImagePipeline or StableDiffusionPipeline
    writes it, or one .safetensors of Stable Diffusion 1. A tiny decoder is looked for in preview_decoder/ beside, then
    among `checkpoints`. BundleError: none of these, or something is missing.
    """
    if (base / "bundle.json").is_file():
        source = _of_bundle(Bundle.open(base), "diffusers", about_file)
        return replace(source, parts=with_encoder(source.parts))
    try:
        source = READERS[_pipeline(base)](base, about_file)
        tiny = _preview_decoder(base, source, checkpoints)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{base.name} is no model for portraits: {exc!r}", bundle=base.name) from exc
    for role, path in source.parts.items():
        if path.is_dir() and not weight_files(path):
            raise BundleError(f"{base.name}: the weights of its {role} are no safetensors", bundle=base.name)
    card = _card(about_file or (base / "about.toml" if base.is_dir() else base))
    return replace(source, parts=with_encoder({**source.parts, **tiny}), card=card)


def _pipeline(base: Path) -> str:
    """Return the pipeline's class; a folder that does not say is told by the name of its denoiser's folder."""
    if base.is_file() or ((base / "unet").is_dir() and not (base / "model_index.json").is_file()):
        return stable_diffusion.PIPELINES[0]
    if not (base / "model_index.json").is_file():
        return "ZImagePipeline"
    name = str(_config(base, "model_index.json").get("_class_name"))
    if name not in READERS:
        raise BundleError(f"{base.name} is a {name}; known are {', '.join(READERS)}", bundle=base.name)
    return name


def _z_image(base: Path, about_file: Path | None) -> Source:
    about, shift = About.read(about_file), _config(base / "scheduler", "scheduler_config.json")["shift"]
    sampling = Sampling(about.steps, shift, *_geometry(_config(base / "vae")), about.guidance)
    tokenizer = base / "tokenizer" / "tokenizer.json"
    return Source("zimage", _parts(base, FOLDERS), about, sampling, tokenizer, text=Text("tokenizer.json", ""))


def _stable_diffusion(base: Path, about_file: Path | None) -> Source:
    single = base.is_file()
    if single:
        stable_diffusion.check_single(base)
    configs = stable_diffusion.SD15 if single else base
    parts = dict.fromkeys(stable_diffusion.PARTS, base) if single else _parts(base, stable_diffusion.PARTS)
    geometry, unet = _geometry(_config(configs / "vae")), _config(configs / "unet")
    scheduler = _config(configs / "scheduler", "scheduler_config.json")
    wanted = About.read(about_file).scheduler
    how = stable_diffusion.diffusion(scheduler, unet, wanted)
    about = About.read(about_file, **stable_diffusion.customs(how, (unet.get("sample_size") or 64) * geometry[1]))
    if (name := scheduler.get("_class_name")) not in stable_diffusion.CLASSES.values() and wanted is None:
        about = replace(about, lineage=(*about.lineage, f"sampled by DDIM in place of {name}"))
    sampling = Sampling(about.steps, 1.0, *geometry, about.guidance, how)
    positions = _config(configs / "text_encoder").get("max_position_embeddings", 77)
    text = stable_diffusion.text(configs / "tokenizer", positions)
    return Source("sd", parts, about, sampling, configs / "tokenizer", text=text)


READERS: Mapping[str, Callable[[Path, Path | None], Source]] = {
    "ZImagePipeline": _z_image,
    **dict.fromkeys(stable_diffusion.PIPELINES, _stable_diffusion),
}


def _geometry(vae: Mapping[str, Any]) -> tuple[int, int, float, float]:
    """
    Return latent_channels, latent_stride, latent_scale, latent_shift; what old files leave out is Stable Diffusion's.
    """
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    return vae["latent_channels"], stride, vae.get("scaling_factor", 0.18215), vae.get("shift_factor") or 0.0


def _parts(base: Path, folders: Mapping[Role, str]) -> dict[Role, Path]:
    parts: dict[Role, Path] = {role: base / folder for role, folder in folders.items() if (base / folder).is_dir()}
    if missing := sorted(set(folders) - set(parts)):
        raise BundleError(f"{base.name} has no {', '.join(missing)}", bundle=base.name)
    return parts


def _preview_decoder(base: Path, source: Source, checkpoints: Path | None) -> dict[Role, Path]:
    """
    Return the tiny decoder of this latent space, if there is one: another one's draws nonsense. BundleError: what lies
    beside is another's.
    """
    channels = source.sampling.latent_channels if source.sampling else 0
    name = TINY.get(channels, "")
    beside = (base if base.is_dir() else base.parent) / "preview_decoder"
    for folder in (beside, checkpoints / name) if checkpoints and name else (beside,):
        if folder.is_dir():
            given = _config(folder).get("latent_channels", 4)
            if given != channels:
                wanted = f"{base.name} has {channels}: {name or 'none known'}"
                raise BundleError(f"{folder.name} is for {given} latent channels, {wanted}", bundle=base.name)
            return {"preview_decoder": folder}
    return {}


def weight_files(folder: Path) -> list[Path]:
    """
    Return the safetensors that the folder's library reads, one file or the shards of one: those of full width, or the
    fp16 ones where there is nothing else.
    """
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.name.startswith(LIBRARIES)]
    variants = {path: path.name.removesuffix(".safetensors").partition(".")[2] for path in files}
    whole = [path for path, variant in variants.items() if not variant]
    return whole or [path for path, variant in variants.items() if variant.startswith("fp16")]


def in_one_file(shard: Path) -> str:
    """Return what the library calls all of these weights together."""
    return next(name for name in LIBRARIES if shard.name.startswith(name)) + ".safetensors"


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return config


def restorer(weights: Path, about_file: Path | None = None) -> Source:
    """
    Return the source of a restorer. `weights`: a bundle, or a GPEN as .safetensors, .pth or .onnx. BundleError: none of
    these.
    """
    if (weights / "bundle.json").is_file():
        return _of_bundle(Bundle.open(weights), "safetensors", about_file)
    about = About.read(about_file)
    size_px = onnx_size_px(weights) if weights.suffix.lower() == ".onnx" else size_of(weights, read_state(weights))
    return Source(
        "gpen", {"restorer": weights}, about, face=FaceInput(size_px, about.residual), card=_card(about_file or weights)
    )


def detector(weights: Path, about_file: Path | None = None) -> Source:
    """
    Return the source of a face detector. `weights`: CenterFace or YuNet as ONNX. BundleError: neither. Its face's size
    is the longest side it looks at.
    """
    kind = recognise(weights)
    about, card = About.read(about_file), _card(about_file or weights)
    return Source(kind.family, {"face_detector": weights}, about, face=FaceInput(kind.longest_px), card=card)


def _card(beside: Path) -> Path | None:
    card = beside.with_name("card.md")
    return card if card.is_file() else None


def _of_bundle(bundle: Bundle, source: str, about_file: Path | None) -> Source:
    """Read a bundle as a source: what the file says holds, and where it says nothing, what the bundle says."""
    parts = {part.role: bundle.root / part.file for part in bundle.parts if part.format == source}
    if missing := sorted(bundle.roles - set(parts)):
        raise BundleError(f"{bundle.name} carries no source of its {', '.join(missing)}", bundle=bundle.name)
    sampling, reduced = bundle.sampling, {part.role for part in bundle.parts if part.precision != "fp32"}
    about = About.read(
        about_file,
        title=bundle.title,
        dialect=bundle.dialect,
        sizes=bundle.sizes,
        template=bundle.text.template if bundle.text else "",
        licence=bundle.parts[0].licence,
        lineage=bundle.lineage,
        residual=bundle.face.residual if bundle.face else 0.0,
        exact=tuple(sorted((bundle.roles & ALWAYS_REDUCED) - reduced)) if reduced else (),
        **({"steps": sampling.steps, "guidance": sampling.guidance} if sampling else {}),
    )
    tokenizer, card = bundle.root / bundle.text.tokenizer if bundle.text else None, _card(bundle.root / "bundle.json")
    sampling = sampling and replace(sampling, steps=about.steps, guidance=about.guidance)
    return Source(bundle.family, parts, about, sampling, tokenizer, bundle.face, card, bundle.text)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a GPEN's state dict. BundleError: the file is damaged, or holds something else."""
    try:
        state: Any = read_tensors(path) if path.suffix.lower() == ".safetensors" else _unpickled(path)
    except LOADER_FAULTS as exc:
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
    """
    Return the side N of a community export: one picture (1, 3, N, N) in and one out. BundleError: it is something else.
    """
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
    """Return a value's shape, 0 for what may vary."""
    return [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]


def _is_face(shape: list[int]) -> bool:
    return len(shape) == 4 and shape[0] in (0, 1) and shape[1] == 3 and shape[2] == shape[3] >= 64


def _fits(shape: list[int], wanted: list[int]) -> bool:
    return len(shape) in (0, 4) and all(said in (0, want) for said, want in zip(shape, wanted, strict=False))
