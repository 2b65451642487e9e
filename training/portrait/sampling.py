"""
Drawing with the model while it trains: the pipeline's sampler in a few lines (flow matching, Euler, shift 3).

Same numbers as diffusers' ZImagePipeline with the same noise; knows batches of prompts, no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.portrait.forward import denoise, encode_text, positions
from training.portrait.latents import decode
from training.portrait.models import LATENT_CHANNELS
from training.portrait.pictures import portions, to_pictures
from training.portrait.renderer.draw import Picture
from training.portrait.tokens import encode

SHIFT = 3.0
TEXT_MULTIPLE = 32  # captions are padded to a multiple of this, and the padding is seen


def sigmas(steps: int) -> list[float]:
    """Noise levels from 1 to 0; one step lies between two of them."""
    plain = [1.0 - i * (1.0 - 1.0 / steps) / max(steps - 1, 1) for i in range(steps)]
    return [SHIFT * s / (1 + (SHIFT - 1) * s) for s in plain] + [0.0]


def padded_length(length: int) -> int:
    return -(-length // TEXT_MULTIPLE) * TEXT_MULTIPLE


def batch_of(rows: Sequence[Sequence[int]], length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (B, length) and where nothing stands."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    padding = torch.ones(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        padding[i, : len(row)] = False
    return ids.to(device), padding.to(device)


def noise(seeds: Sequence[int], side: int) -> Tensor:
    """(B, C, side, side): each picture's noise depends on its own seed only."""
    shape = (LATENT_CHANNELS, side, side)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


@torch.no_grad()
def sample(
    transformer: Any,
    encoder: Any,
    rows: Sequence[Sequence[int]],
    start: Tensor,
    steps: int,
    guidance: float = 0.0,
    spacing: float = 1.0,
) -> Tensor:
    """Latents for prompts of one padded length. `guidance` as in the pipeline: 0 is off, 1 doubles the difference."""
    device = next(transformer.parameters()).device
    length = padded_length(max(len(row) for row in rows))
    ids, padding = batch_of(rows, length, device)
    empty, nothing = batch_of([[1, 2]] * len(rows), TEXT_MULTIPLE, device)
    side = start.shape[-1] // 2
    at, bare = (positions(transformer, n, side, side, device, spacing) for n in (length, TEXT_MULTIPLE))
    text, blank = encode_text(encoder, ids, padding), encode_text(encoder, empty, nothing)
    x, levels = start.to(device), sigmas(steps)
    for now, after in zip(levels[:-1], levels[1:], strict=True):
        clean = torch.full((len(rows),), 1.0 - now, device=device)
        velocity = denoise(transformer, x, clean, text, padding, at)
        if guidance > 0:
            plain = denoise(transformer, x, clean, blank, nothing, bare)
            velocity = velocity + guidance * (velocity - plain)
        x = x + (now - after) * velocity.float()
    return x


@torch.no_grad()
def draw(
    parts: tuple[Any, Any, Any],
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    seeds: Sequence[int],
    side: int,
    steps: int = 8,
    guidance: float = 0.0,
    spacing: float = 1.0,
    batch: int = 8,
) -> list[Picture]:
    """
    Pictures, `side` latents across, for prompts with (transformer, text encoder, vae); prompts are grouped by their
    padded length.
    """
    transformer, encoder, vae = parts
    rows = [encode(tokenizer, prompt)[:512] for prompt in prompts]
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(padded_length(len(row)), []).append(i)
    drawn: dict[int, Picture] = {}
    for members in groups.values():
        for start in range(0, len(members), batch):
            some = members[start : start + batch]
            first = noise([seeds[i] for i in some], side)
            latents = sample(transformer, encoder, [rows[i] for i in some], first, steps, guidance, spacing)
            images = torch.cat([decode(vae, part) for part in portions(latents, 2)])
            drawn.update(zip(some, to_pictures(images), strict=True))
    return [drawn[i] for i in range(len(prompts))]
