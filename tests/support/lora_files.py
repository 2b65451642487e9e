"""LoRA factors for layers of the tiny transformer, and the layouts in which people store them. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Tensors = dict[str, Any]
Factors = Mapping[str, tuple[Any, Any]]
LAYERS = (
    *(f"layers.0.attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"layers.0.feed_forward.{name}" for name in ("w1", "w2", "w3")),
    *("noise_refiner.0.attention.to_k", "context_refiner.0.feed_forward.w2", "layers.0.adaLN_modulation.0"),
    *("all_x_embedder.2-1", "all_final_layer.2-1.linear", "cap_embedder.1", "t_embedder.mlp.0"),
)


def factors(base: Any, seed: int = 0, rank: int = 3, layers: tuple[str, ...] = LAYERS) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name in layers:
        rows, columns = base.get_submodule(name).weight.shape
        a, b = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
        drawn[name] = (a / columns**0.5, b / rank**0.5)
    return drawn


def dotted(pairs: Factors, prefix: str = "diffusion_model.", a: str = "lora_A", b: str = "lora_B") -> Tensors:
    halves = (
        {f"{prefix}{name}.{a}.weight": pair[0], f"{prefix}{name}.{b}.weight": pair[1]} for name, pair in pairs.items()
    )
    return {key: value for each in halves for key, value in each.items()}


def alphas(pairs: Factors, prefix: str = "diffusion_model.", alpha: float = 1.5) -> Tensors:
    return {f"{prefix}{name}.alpha": torch.tensor(alpha + i / 8) for i, name in enumerate(pairs)}


def flat(pairs: Factors) -> Factors:
    return {name.replace(".", "_"): pair for name, pair in pairs.items()}


def kohya(pairs: Factors) -> Tensors:
    ours = ("lora_unet_", "lora_down", "lora_up")
    return dotted(flat(pairs), *ours) | alphas(flat(pairs), "lora_unet_")
