"""
Reading what render.py wrote: pictures stay on disk (memory-mapped), attributes in memory. Knows files, not networks.

Everything random is a function of (seed, step), so that training resumes exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.portrait.captions import Record
from training.portrait.renderer.draw import Picture


@dataclass(frozen=True)
class Pictures:
    """All finished shards of a split, in order of their numbers."""

    shards: tuple[npt.NDArray[np.uint8], ...]  # each (n, S, S, 3)
    records: tuple[Record, ...]
    starts: tuple[int, ...]  # index of each shard's first picture

    @staticmethod
    def open(work: Path, split: str) -> Pictures:
        shards: list[npt.NDArray[np.uint8]] = []
        records: list[Record] = []
        starts: list[int] = []
        for file in sorted((work / "pictures").glob(f"{split}-[0-9]*[0-9].npy")):
            starts.append(len(records))
            shards.append(np.load(file, mmap_mode="r"))
            lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
            records.extend(json.loads(line) for line in lines)
        if not shards:
            raise FileNotFoundError(f"no {split} shards in {work / 'pictures'}: run training.portrait.render first")
        return Pictures(tuple(shards), tuple(records), tuple(starts))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Picture:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return np.asarray(self.shards[shard][index - self.starts[shard]])


def portions(batch: Tensor, size: int) -> Iterator[Tensor]:
    """A batch in parts of at most `size`, for networks that need much memory."""
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def to_tensor(pictures: Sequence[Picture]) -> Tensor:
    """(B, 3, H, W) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures))
    return stacked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def to_pictures(images: Tensor) -> list[Picture]:
    """The way back, from any float type on any device."""
    scaled = ((images.detach().float().clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8)
    return [np.ascontiguousarray(p) for p in scaled.permute(0, 2, 3, 1).cpu().numpy()]


def shrunk(picture: Picture) -> Picture:
    """Half the size, each pixel the mean of four."""
    h, w, _ = picture.shape
    return np.asarray(picture.reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)) + 0.5, np.uint8)


def crop(picture: Picture, size_px: int, half_share: float, rng: np.random.Generator) -> Picture:
    """A random window, `half_share` of them from the picture at half its size, half of them mirrored."""
    half = rng.random() < half_share
    span = 2 * size_px if half else size_px
    top, left = rng.integers(0, picture.shape[0] - span + 1, 2)
    window = picture[top : top + span, left : left + span]
    window = shrunk(window) if half else window
    return window[:, ::-1] if rng.random() < 0.5 else window


def crops(pictures: Pictures, count: int, size_px: int, seed: int, step: int, half_share: float = 0.35) -> Tensor:
    rng = np.random.default_rng((seed, step))
    chosen = rng.integers(len(pictures), size=count)
    return to_tensor([crop(pictures[int(i)], size_px, half_share, rng) for i in chosen])


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """dB for each picture of two batches in [-1, 1]."""
    error = (a.clamp(-1, 1).float() - b.float()).pow(2).mean((1, 2, 3))
    decibels: Tensor = 10 * torch.log10(4 / error)
    return decibels
