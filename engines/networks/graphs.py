"""
From a part on disk to its graph: the module of the right class, weights loaded, under the wrapper that has the role's
signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from engines.bundle import Bundle, Part, Role
from engines.errors import BundleError
from engines.networks import units
from engines.networks.autoencoder import DecoderGraph
from engines.networks.clip import ClipGraph
from engines.networks.gpen import GPEN, Spec
from engines.networks.qwen import Qwen3Graph
from engines.networks.restorer import RestorerGraph
from engines.networks.unet import UNetGraph
from engines.networks.zimage import ZImageGraph

# What the loaders of diffusers, transformers, safetensors and torch raise for files that are missing, damaged or
# another's.
FAULTS = (OSError, KeyError, RuntimeError, ValueError, SafetensorError)


def open_graph(bundle: Bundle, part: Part) -> nn.Module:
    """An eval-mode float32 module on the CPU. BundleError: the files do not make one."""
    try:
        graph = LOADERS[part.role](bundle, bundle.root / part.file)
    except FAULTS as exc:
        raise BundleError(f"{bundle.name}/{part.file}: {exc}", bundle=bundle.name) from exc
    return graph.eval().requires_grad_(False)


# diffusers and transformers take seconds to import, which a restorer alone need not wait for: hence the imports below.


def _denoiser(bundle: Bundle, path: Path) -> nn.Module:
    from diffusers import UNet2DConditionModel, ZImageTransformer2DModel

    kinds = {"zimage": (ZImageGraph, ZImageTransformer2DModel), "sd": (UNetGraph, UNet2DConditionModel)}
    graph, kind = kinds[bundle.family]
    if units.is_narrower(path):
        return graph(units.load(kind, path))
    return graph(_complete(kind, path, torch_dtype=torch.float32))


def _text_encoder(bundle: Bundle, path: Path) -> nn.Module:
    from transformers import CLIPTextModel, Qwen3Model

    kinds = {"zimage": (Qwen3Graph, Qwen3Model), "sd": (ClipGraph, CLIPTextModel)}
    graph, kind = kinds[bundle.family]
    return graph(_complete(kind, path, dtype=torch.float32))


def _decoder(bundle: Bundle, path: Path) -> nn.Module:
    from diffusers import AutoencoderKL

    return DecoderGraph(_complete(AutoencoderKL, path, torch_dtype=torch.float32))


def _preview_decoder(bundle: Bundle, path: Path) -> nn.Module:
    from diffusers import AutoencoderTiny

    return DecoderGraph(_complete(AutoencoderTiny, path, torch_dtype=torch.float32))


def _complete(kind: Any, path: Path, **how: Any) -> Any:
    """ValueError: the checkpoint lacks a tensor; the libraries would fill it with random numbers and a warning."""
    talk = import_module(f"{kind.__module__.partition('.')[0]}.utils.logging")  # of diffusers or transformers
    talk.set_verbosity_error()  # one of them warns of what it writes itself; what matters is checked here
    talk.disable_progress_bar()
    model, loading = kind.from_pretrained(path, local_files_only=True, output_loading_info=True, **how)
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} for one")
    return model


def _restorer(bundle: Bundle, path: Path) -> nn.Module:
    state = load_file(path / "model.safetensors" if path.is_dir() else path)
    network = GPEN(Spec.of(state))
    network.load_state_dict(state)
    return RestorerGraph(network.float(), bundle.need(bundle.face, "its face").residual)


LOADERS: Mapping[Role, Callable[[Bundle, Path], nn.Module]] = {
    "text_encoder": _text_encoder,
    "denoiser": _denoiser,
    "decoder": _decoder,
    "preview_decoder": _preview_decoder,
    "restorer": _restorer,
}
