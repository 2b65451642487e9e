"""
The restorer's weights on disk, and how they are used: output = input + residual * network(input).

Knows safetensors and the residual. Does not know how the weights were trained. The shape of the network is read back
from the state dict (`Spec.of`), the residual from the file's metadata; residual "0" means an official GPEN, whose
output replaces the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engines import files
from engines.networks.gpen import GPEN, FeatureNoise, Spec
from training.restorer.dataset import stack, to_pixels


class Restorer(nn.Module):
    """(B, 3, N, N) in [-1, 1] -> the same, not clamped."""

    def __init__(self, network: GPEN, residual: float) -> None:
        super().__init__()
        self.network, self.residual = network, residual

    def forward(self, face: Tensor) -> Tensor:
        y: Tensor = self.network(face)
        return face + self.residual * y if self.residual else y


def fresh(spec: Spec, residual: float) -> Restorer:
    """Untrained. Upstream starts the feature weights at zero, which shuts the encoder out; here they start at one."""
    network = GPEN(spec)
    for module in network.modules():
        if isinstance(module, FeatureNoise):
            nn.init.ones_(module.weight)
    return Restorer(network, residual)


def save(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """`state` is the network's (upstream's keys); stored as fp16."""
    halves = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    with files.replacing(path) as beside:
        save_file(halves, beside, metadata=dict(metadata))


def load(path: Path) -> Restorer:
    with safe_open(path, framework="pt") as f:
        state = {name: f.get_tensor(name).float() for name in f.keys()}
        residual = float(f.metadata()["residual"])
    network = GPEN(Spec.of(state))
    network.load_state_dict(state)
    return Restorer(network, residual).eval()


@torch.no_grad()
def restore(model: nn.Module, faces: list[NDArray[np.uint8]], batch: int = 6) -> list[NDArray[np.uint8]]:
    device = next(model.parameters()).device
    done: list[NDArray[np.uint8]] = []
    for start in range(0, len(faces), batch):
        done += list(to_pixels(model(stack(faces[start : start + batch]).to(device))))
    return done
