"""What every training script here shares: the device, the moving average, and checkpoints that survive a power cut."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from engines import files


def pick_device() -> torch.device:
    """The GPU of this process (torchrun numbers them), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def join() -> tuple[int, int]:
    """
    Return (rank, processes). Under `torchrun --nproc-per-node N` the N processes share each batch; alone it is (0, 1).

    Worth it on a busy CPU too: processes of one thread wait for each other once a step, threads hundreds of times.
    """
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(hours=12))  # a paused neighbour is no failure
    return distributed.get_rank(), distributed.get_world_size()


def average_gradients(module: nn.Module) -> None:
    """Average the gradients over all processes that joined; do nothing when alone."""
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    parts = torch.split(flat / distributed.get_world_size(), [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def keep_memory() -> None:
    """
    On Linux with glibc: keep freed blocks in the process. Each training step frees and asks for the same gigabyte, and
    fresh pages cost a fault each: 760 -> 580 ms a step of the restorer on two cores. Elsewhere it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for a big tensor
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give the end of the heap back


class Ema:
    """
    Moving average of a module's parameters and buffers; young ones forget faster, so the start does not linger. Not
    torch's AveragedModel: it copies at its first update, counts in its own buffer and puts "module." before every name,
    so neither the numbers nor old checkpoints would stay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module by 1 - decay; whole numbers are copied."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for name, value in module.state_dict().items():
            mine = self.state[name]
            if mine.is_floating_point():
                mine.lerp_(value, 1 - decay)
            else:
                mine.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state, "steps": self.steps}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.steps = saved["steps"]
        loaded: Mapping[str, Tensor] = saved["state"]
        for name, value in self.state.items():
            value.copy_(loaded[name])


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint that is whole or absent, and on the disk when this returns."""
    with files.replacing(path, durable=True) as beside, beside.open("wb") as file:
        torch.save(dict(state), file)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
