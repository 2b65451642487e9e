"""
The weights of a part, from whatever form they come in, into a folder that their library reads: one safetensors file in
the recipe's width, and config.json where there is one. And the tokenizer, in the format of `tokenizers`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from engines.bundle import Role
from engines.errors import BundleError
from engines.networks.faults import LOADER_FAULTS
from engines.networks.graphs import HELD
from engines.networks.tensors import read_tensors
from engines.toolchain import sources
from engines.toolchain.recipe import Stored
from engines.toolchain.sources import face_detector, merge_lora, stable_diffusion
from engines.toolchain.sources.merge_lora import Addition
from engines.toolchain.sources.onnx_import import adopt
from engines.toolchain.steps import Say


def part(role: Role, source: Path, target: Path, stored: Stored, loras: Sequence[Addition], say: Say) -> None:
    """Write a part's weights to the empty folder `target`; `loras` are merged. BundleError, LoraError."""
    if role == "face_detector":
        face_detector.adopt(source, target / "model.onnx")
    elif source.suffix.lower() == ".onnx":
        adopt(source, target / "model.onnx", role)
    elif source.is_file() and role in stable_diffusion.PARTS:
        unpacked = stable_diffusion.unpack(source, role, target / "unpacked")
        _copy(role, unpacked, target, stored, merge_lora.read(unpacked, loras, say))
        shutil.rmtree(unpacked)
    elif source.is_file():
        save_file(_stored_as(sources.read_state(source), stored), target / "model.safetensors")
    else:
        _copy(role, source, target, stored, merge_lora.read(source, loras, say))


def tokenizer(source: Path, target: Path) -> None:
    """Write the tokenizer. `source`: tokenizer.json, or CLIP's folder."""
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        stable_diffusion.write_tokenizer(source, target)


def _copy(role: Role, source: Path, target: Path, stored: Stored, added: merge_lora.Pairs) -> None:
    """
    Write config.json without the folder it once was loaded from, and the safetensors that its library reads, shards
    brought together; of an autoencoder the tensors of this part.
    """
    if (source / "config.json").is_file():
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shards = sources.weight_files(source)
    loaded = (item for shard in shards for item in _read(shard).items())
    held = {key: value for key, value in loaded if key.startswith(HELD.get(role, ("",)))}
    state = _stored_as(merge_lora.merged(held, added), stored)
    save_file(state, target / sources.in_one_file(shards[0]), metadata={"format": "pt"})


def _read(shard: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(shard)
    except LOADER_FAULTS as exc:
        raise BundleError(f"{shard.name} cannot be read: {exc}", bundle=shard.parent.name) from exc


def _stored_as(state: Mapping[str, Tensor], stored: Stored) -> dict[str, Tensor]:
    """Return the weights to store: float32 in fp16, if so wanted; all others as they are."""
    to_fp16 = stored == "fp16"
    return {
        name: (value.half() if to_fp16 and value.dtype == torch.float32 else value).contiguous()
        for name, value in state.items()
    }
