"""The denoiser and the text encoder as one thing to train, average, store and load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.loop import load_checkpoint
from training.muon import Muon
from training.portrait.models import Sizes, new_text_encoder, new_transformer

BY_ADAM = ("adaLN", "embed_tokens", "all_final_layer", "t_embedder", "pad_token", "x_embedder")


class Model(nn.Module):
    """Trained together: the pipeline's two halves that depend on each other."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.transformer: Any = new_transformer(sizes)
        self.encoder: Any = new_text_encoder(sizes)
        for p in self.encoder.layers[-1].parameters():  # its output is never read
            p.requires_grad_(False)
        self.encoder.norm.requires_grad_(False)


def optimiser(model: nn.Module) -> Muon:
    return Muon(model.named_parameters(), exclude=BY_ADAM, adam_rate=0.5, weight_decay=0.02)


def sizes_of(saved: dict[str, Any]) -> Sizes:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in saved["sizes"].items()}
    return Sizes(**plain)


def load_averaged(path: Path, device: torch.device) -> tuple[Model, Sizes]:
    """The moving average of a checkpoint, ready to draw."""
    saved = load_checkpoint(path, device)
    if saved is None:
        raise FileNotFoundError(f"{path}: train it first")
    sizes = sizes_of(saved)
    model = Model(sizes).to(device)
    model.load_state_dict(saved["ema"]["state"])
    return model.eval().requires_grad_(False), sizes
