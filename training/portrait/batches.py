"""
What the denoiser sees in one step: latents, noise levels and captions, all decided by (seed, step).

Knows the noise schedule and the caption lengths that the compiled forward passes expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training.portrait.captions import Record, caption
from training.portrait.sampling import SHIFT, batch_of, sigmas
from training.portrait.tokens import encode

SHORT, LONG = 32, 64  # padded caption lengths
LONG_SHARE, EMPTY_SHARE, GRID_SHARE = 0.25, 0.10, 0.35
GRID = sigmas(8)[:-1]


@dataclass(frozen=True)
class Batch:
    clean: Tensor  # (B, C, h, w) latents of pictures
    noise: Tensor  # (B, C, h, w)
    sigma: Tensor  # (B,)
    ids: Tensor  # (B, L)
    padding: Tensor  # (B, L)

    @property
    def mixed(self) -> Tensor:
        s = self.sigma.view(-1, 1, 1, 1)
        return (1 - s) * self.clean + s * self.noise

    def to(self, device: torch.device) -> Batch:
        moved = (v.to(device, non_blocking=True) for v in (self.clean, self.noise, self.sigma, self.ids, self.padding))
        return Batch(*moved)


def noise_levels(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """A third exactly where the eight-step sampler stands, the rest logit-normal, shifted towards noise."""
    u = torch.sigmoid(torch.randn(count, generator=generator))
    spread = shift * u / (1 + (shift - 1) * u)
    on_grid = torch.tensor(GRID)[torch.randint(0, len(GRID), (count,), generator=generator)]
    return torch.where(torch.rand(count, generator=generator) < GRID_SHARE, on_grid, spread)


@dataclass(frozen=True)
class Pool:
    """Captions of all pictures, encoded once."""

    ids: Tensor  # (n, LONG), zero where no word is
    length: Tensor  # (n,) tokens
    picture: Tensor  # (n,)
    short: Tensor  # indices of captions of at most SHORT tokens
    long: Tensor  # indices of the longer ones


def pool_of(records: Sequence[Record], tokenizer: Tokenizer, each: int, seed: int) -> Pool:
    """`each` captions for every picture; the few that are longer than LONG are left out."""
    rng = np.random.default_rng((seed, len(records)))
    rows, owners = [], []
    for index, record in enumerate(records):
        for _ in range(each):
            row = encode(tokenizer, caption(record, rng).text)
            if len(row) <= LONG:
                rows.append(row)
                owners.append(index)
    ids, _ = batch_of(rows, LONG, torch.device("cpu"))
    length = torch.tensor([len(row) for row in rows])
    short, longer = (length <= SHORT).nonzero()[:, 0], (length > SHORT).nonzero()[:, 0]
    return Pool(ids, length, torch.tensor(owners), short, longer if len(longer) else short)


def make(latents: Tensor, pool: Pool, count: int, coarse: bool, seed: tuple[int, ...]) -> Batch:
    """`coarse` halves the picture: a quarter of the tokens. Captions fill their padded length as the pipeline's do."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    length, rows = (LONG, pool.long) if rng.random() < LONG_SHARE else (SHORT, pool.short)
    chosen = rows[torch.from_numpy(rng.integers(len(rows), size=count))]
    empty = torch.from_numpy(rng.random(count) < EMPTY_SHARE)
    ids = torch.where(empty[:, None], torch.tensor([1, 2] + [0] * (length - 2)), pool.ids[chosen, :length])
    words = torch.where(empty, 2, pool.length[chosen])
    padding = torch.arange(length)[None] >= words[:, None]
    mirrored = torch.from_numpy(rng.integers(0, latents.shape[1], count))
    picked = latents[pool.picture[chosen].to(latents.device), mirrored.to(latents.device)].float()
    if coarse:
        picked = F.interpolate(picked, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    here = torch.Generator(picked.device).manual_seed(int(rng.integers(1 << 62)))
    noise = torch.randn(picked.shape, generator=here, device=picked.device)
    sigma = noise_levels(count, 0.6 * SHIFT if coarse else 0.8 * SHIFT, generator)
    return Batch(picked, noise, sigma, ids, padding)
