"""
Muon (Jordan et al. 2024): momentum whose matrix-shaped update is orthogonalised by Newton-Schulz iterations.

Matrices go to Muon; vectors, embeddings and the names the caller excludes go to AdamW. The update is scaled by
0.2 * sqrt(max(rows, columns)), which matches AdamW's root mean square (Liu et al., "Muon is scalable for LLM training",
2025), so one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration, from the reference implementation


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end in [0.7, 1.2]. (rows, columns), float32"""
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    y: Tensor = (x.mT if tall else x).float()
    return y


def as_matrix(weight: Tensor) -> Tensor:
    """Convolutions become (c_out, c_in * k * k); a modulated convolution (1, c_out, c_in, k, k) too."""
    weight = weight[0] if weight.ndim == 5 else weight
    return weight.reshape(weight.shape[0], -1)


def is_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(as_matrix(weight).shape) >= 8


class Muon:
    """`adam_rate` is the AdamW learning rate as a share of the one given to `set_rate`."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        exclude: tuple[str, ...] = (),
        adam_rate: float = 1.0,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        pairs = [(name, p) for name, p in named if p.requires_grad]
        chosen = {name for name, p in pairs if is_matrix(p) and not any(part in name for part in exclude)}
        self.matrices = [p for name, p in pairs if name in chosen]
        self.velocity = [torch.zeros_like(p) for p in self.matrices]
        rest = [p for name, p in pairs if name not in chosen]
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)
        self.rate, self.adam_rate, self.momentum, self.weight_decay = 0.0, adam_rate, momentum, weight_decay

    def set_rate(self, rate: float) -> None:
        self.rate = rate
        for group in self.adam.param_groups:
            group["lr"] = rate * self.adam_rate

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)
        for p in self.matrices:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self.adam.step()
        for p, velocity in zip(self.matrices, self.velocity, strict=True):
            if p.grad is None:
                continue
            velocity.lerp_(p.grad, 1 - self.momentum)
            matrix = as_matrix(p.grad.lerp(velocity, self.momentum))
            update = orthogonalise(matrix) * (0.2 * max(matrix.shape) ** 0.5)
            p.mul_(1 - self.rate * self.weight_decay).sub_(update.view_as(p), alpha=self.rate)

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for mine, saved in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(saved)
