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
from torch import nn

from engines.bundle import Bundle, Part, Role
from engines.errors import BundleError
from engines.files import safetensors_header
from engines.networks import prunable
from engines.networks.autoencoder import DecoderGraph, EncoderGraph
from engines.networks.clip import ClipGraph
from engines.networks.faults import LOADER_FAULTS
from engines.networks.gpen import GPEN, Spec
from engines.networks.qwen import Qwen3Graph
from engines.networks.restorer import RestorerGraph
from engines.networks.tensors import check_folder, read_tensors
from engines.networks.unet import UNetGraph
from engines.networks.zimage import ZImageGraph

# The tensors that a part keeps of an AutoencoderKL, by how their names begin: encoder and decoder have a folder each.
HELD: Mapping[Role, tuple[str, ...]] = {
    "decoder": ("decoder.", "post_quant_conv."),
    "encoder": ("encoder.", "quant_conv."),
}
WIDTHS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def open_graph(bundle: Bundle, part: Part, width: torch.dtype | None = torch.float32) -> nn.Module:
    """
    Open the part as a module in eval mode on the CPU, its weights in float32 or another `width`. None: as wide as they
    lie on the disk, from where they are mapped and take no memory before they are used. BundleError: the files do not
    make one.
    """
    path = bundle.root / part.file
    try:
        graph = LOADERS[part.role](bundle, path, width or stored_width(path))
    except LOADER_FAULTS as exc:
        raise BundleError(f"{bundle.name}/{part.file}: {exc}", bundle=bundle.name) from exc
    return graph.eval().requires_grad_(False)


def stored_width(path: Path) -> torch.dtype:
    """Return the type of the first matrix in a safetensors file, or in the first file of a folder."""
    file = path if path.is_file() else next(iter(sorted(path.glob("*.safetensors"))))
    header = safetensors_header(file)
    return WIDTHS[next(header[name].dtype for name in sorted(header) if len(header[name].shape) > 1)]


# diffusers and transformers take seconds to import, which a restorer alone need not wait for: hence the imports below.


def _denoiser(bundle: Bundle, path: Path, width: torch.dtype) -> nn.Module:
    from diffusers import UNet2DConditionModel, ZImageTransformer2DModel

    kinds = {"zimage": (ZImageGraph, ZImageTransformer2DModel), "sd": (UNetGraph, UNet2DConditionModel)}
    graph, kind = kinds[bundle.family]
    if prunable.is_pruned(path):
        return graph(prunable.load(kind, path, width))
    return graph(_complete(kind, path, torch_dtype=width))


def _text_encoder(bundle: Bundle, path: Path, width: torch.dtype) -> nn.Module:
    from transformers import CLIPTextModel, Qwen3Model

    kinds = {"zimage": (Qwen3Graph, Qwen3Model), "sd": (ClipGraph, CLIPTextModel)}
    graph, kind = kinds[bundle.family]
    return graph(_complete(kind, path, dtype=width))


def _decoder(bundle: Bundle, path: Path, width: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderKL

    return DecoderGraph(_complete(AutoencoderKL, path, HELD["decoder"], torch_dtype=width))


def _encoder(bundle: Bundle, path: Path, width: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderKL

    return EncoderGraph(_complete(AutoencoderKL, path, HELD["encoder"], torch_dtype=width))


def _preview_decoder(bundle: Bundle, path: Path, width: torch.dtype) -> nn.Module:
    from diffusers import AutoencoderTiny

    return DecoderGraph(_complete(AutoencoderTiny, path, torch_dtype=width))


def _complete(kind: Any, path: Path, needed: tuple[str, ...] = ("",), **how: Any) -> Any:
    """
    Load a model of this class. ValueError: the checkpoint lacks a tensor whose name begins as `needed` says; the
    libraries would fill it with random numbers and a warning.
    """
    check_folder(path)
    talk = import_module(f"{kind.__module__.partition('.')[0]}.utils.logging")  # of diffusers or transformers
    talk.set_verbosity_error()  # one of them warns of what it writes itself; what matters is checked here
    talk.disable_progress_bar()
    model, loading = kind.from_pretrained(path, local_files_only=True, output_loading_info=True, **how)
    if missing := sorted(name for name in loading["missing_keys"] if name.startswith(needed)):
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} for one")
    return model


def _restorer(bundle: Bundle, path: Path, width: torch.dtype) -> nn.Module:
    state = read_tensors(path / "model.safetensors" if path.is_dir() else path)
    network = GPEN(Spec.of(state))
    network.load_state_dict(state)
    return RestorerGraph(network.to(width), bundle.need(bundle.face, "its face").residual)


LOADERS: Mapping[Role, Callable[[Bundle, Path, torch.dtype], nn.Module]] = {
    "text_encoder": _text_encoder,
    "denoiser": _denoiser,
    "decoder": _decoder,
    "preview_decoder": _preview_decoder,
    "encoder": _encoder,
    "restorer": _restorer,
}
