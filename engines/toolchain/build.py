"""
From checkpoints to a bundle: copy the weights in half precision, export each part beside them, share the bytes, write
the manifest.

A bundle is made in a folder beside its place and moved there when it is whole. What weights cannot say of themselves
(title, sizes, prompt template, licence ...) is read from a small TOML file; training/portrait/about.toml is one.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.bundle import Bundle, Face, Format, Part, Role, Sampling, Text, digest
from engines.networks.gpen import Spec
from engines.networks.graphs import open_graph
from engines.signatures import SIGNATURES
from engines.toolchain.export import export
from engines.toolchain.share import share_weights

FOLDERS: Mapping[Role, str] = {
    "text_encoder": "text_encoder",
    "denoiser": "transformer",
    "decoder": "vae",
    "preview_decoder": "preview_decoder",
}
EXAMPLE_SIZES: Mapping[str, int] = {"T": 9, "h": 16, "w": 18}  # to trace with; nothing special but that they differ


def build_portrait(base: Path, about_file: Path, out: Path) -> Bundle:
    """
    `base` is a folder as ZImagePipeline.save_pretrained writes it, with an AutoencoderTiny in preview_decoder/ beside.
    """
    about, work = _read_about(about_file), _fresh(out)
    for role, folder in FOLDERS.items():
        _copy(base / folder, work / role)
    shutil.copyfile(base / "tokenizer" / "tokenizer.json", work / "tokenizer.json")
    config = {folder: json.loads((base / folder / "config.json").read_text()) for folder in ("transformer", "vae")}
    vae, shift = config["vae"], json.loads((base / "scheduler" / "scheduler_config.json").read_text())["shift"]
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    bundle = Bundle(
        family="zimage",
        root=work,
        parts=tuple(_parts(FOLDERS, about["licence"], "diffusers")),
        text=Text("tokenizer.json", digest(work / "tokenizer.json"), about["template"]),
        sampling=Sampling(
            about["steps"],
            shift,
            vae["latent_channels"],
            stride,
            vae["scaling_factor"],
            vae["shift_factor"],
            about["guidance"],
        ),
        **{key: about[key] for key in ("name", "title", "dialect", "sizes", "lineage")},
    )
    widths = {"C": vae["latent_channels"], "D": config["transformer"]["cap_feat_dim"]}
    return _finish(bundle, widths, about_file, out)


def build_restorer(weights: Path, about_file: Path, out: Path) -> Bundle:
    """`weights` is a GPEN state dict in safetensors."""
    about, work = _read_about(about_file), _fresh(out)
    (work / "restorer").mkdir()
    state = load_file(weights)
    save_file(_half(state), work / "restorer" / "model.safetensors")
    size_px = Spec.of(state).size_px
    bundle = Bundle(
        family="gpen",
        root=work,
        parts=tuple(_parts(["restorer"], about["licence"], "safetensors")),
        face=Face(size_px, about["residual"]),
        **{key: about[key] for key in ("name", "title", "lineage")},
    )
    return _finish(bundle, {"N": size_px}, about_file, out)


def _read_about(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _fresh(out: Path) -> Path:
    work = out.with_name(f".{out.name}.building")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def _copy(source: Path, target: Path) -> None:
    """config.json without the folder it once was loaded from, and every safetensors file in half precision."""
    target.mkdir()
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for weights in source.glob("*.safetensors"):
        save_file(_half(load_file(weights)), target / weights.name, metadata={"format": "pt"})


def _half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.to(torch.float16).contiguous() if value.is_floating_point() else value
        for name, value in state.items()
    }


def _parts(roles: Mapping[Role, str] | list[Role], licence: str, source: Format) -> Iterator[Part]:
    for role in roles:
        yield Part(role, role, "onnx", "fp32", "", licence)
        yield Part(role, role, source, "fp32", "", licence)


def _finish(bundle: Bundle, widths: Mapping[str, int], about_file: Path, out: Path) -> Bundle:
    for part in bundle.parts:
        if part.format != "onnx":
            _export(bundle, part, widths)
    parts = tuple(replace(part, sha256=digest(bundle.root / part.file)) for part in bundle.parts)
    manifest = asdict(replace(bundle, parts=parts))
    del manifest["root"]
    (bundle.root / "bundle.json").write_text(
        json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if (card := about_file.with_name("card.md")).is_file():  # where it came from, what it may be used for, its limits
        shutil.copyfile(card, bundle.root / "card.md")
    shutil.rmtree(out, ignore_errors=True)
    bundle.root.rename(out)
    return Bundle.open(out)


def _export(bundle: Bundle, part: Part, widths: Mapping[str, int]) -> None:
    folder = bundle.root / part.file
    sizes = {**EXAMPLE_SIZES, **widths}
    feeds = {
        name: torch.rand(*(sizes[axis] if isinstance(axis, str) else axis for axis in axes))
        for name, axes in SIGNATURES[part.role].inputs.items()
    }
    feeds = {name: (array * 9).long() if name == "ids" else array for name, array in feeds.items()}
    export(open_graph(bundle, part), part.role, feeds, folder / "model.onnx")
    (weights,) = folder.glob("*.safetensors")
    share_weights(folder / "model.onnx", weights)
