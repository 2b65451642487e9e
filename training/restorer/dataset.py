"""
Portraits with landmarks, and the endless stream of (degraded, truth) faces made from them.

Knows the folder layout: DIR/train/*.jpg, DIR/val/*.jpg, and DIR/{train,val}-landmarks.json with five points for each
file name. Does not know networks or losses. Every training sample depends on (seed, index) alone, so a resumed run
sees what an unbroken one would.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engines import faces
from training.restorer import degrade

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class Portrait:
    image: Picture
    landmarks: NDArray[np.float64]  # (5, 2)


def read_portrait(path: Path, landmarks: list[list[float]]) -> Portrait:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise FileNotFoundError(f"no picture in {path}")
    image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return Portrait(image, np.array(landmarks, dtype=np.float64))


def read_portraits(folder: Path, split: str) -> list[Portrait]:
    """All portraits of a split, decoded, in the order of their names. 495 of 512 px take 390 MB."""
    landmarks = json.loads((folder / f"{split}-landmarks.json").read_text())
    return [read_portrait(folder / split / name, landmarks[name]) for name in sorted(landmarks)]


def aligned(portraits: list[Portrait], size_px: int) -> list[Picture]:
    return [faces.align(portrait.image, portrait.landmarks, size_px) for portrait in portraits]


def jitter(landmarks: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Landmarks as a hasty detector gives them: turned, scaled and shifted a little, now and then a lot. (5, 2)"""
    loose = 2.5 if rng.random() < 0.15 else 1.0
    angle, scale = math.radians(rng.normal(0, 2.0 * loose)), math.exp(rng.normal(0, 0.035 * loose))
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = landmarks.mean(0)
    eyes = float(np.linalg.norm(landmarks[0] - landmarks[1]))
    return np.asarray((landmarks - centre) @ turn.T + centre + rng.normal(0, 0.04 * loose * eyes, 2))


def relight(face: Picture, rng: np.random.Generator) -> Picture:
    """Another exposure and white balance: 495 portraits are few, and most were lit by the same kind of studio."""
    gamma, gains = math.exp(rng.normal(0, 0.15)), np.exp(rng.normal(0, 0.04, 3) + rng.normal(-0.03, 0.06))
    ramp = 255 * np.power(np.arange(256) / 255, gamma)
    table = np.rint(ramp[:, None] * gains).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(face, table[:, None, :]), dtype=np.uint8)


class Pairs(Dataset[Tensor]):
    """Item i is a (2, 3, N, N) uint8 tensor: the degraded face and its truth."""

    def __init__(self, portraits: list[Portrait], size_px: int, seed: int, count: int) -> None:
        self.portraits, self.size_px, self.seed, self.count = portraits, size_px, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self.seed, index))
        portrait = self.portraits[int(rng.integers(len(self.portraits)))]
        face = faces.align(portrait.image, jitter(portrait.landmarks, rng), self.size_px)
        face = face[:, ::-1] if rng.random() < 0.5 else face
        face = relight(face, rng) if rng.random() < 0.5 else face
        bad, truth = degrade.random_pair(np.ascontiguousarray(face), rng)
        return torch.from_numpy(np.stack((bad, truth)).transpose(0, 3, 1, 2).copy())


def batches(pairs: Pairs, batch: int, first_step: int, workers: int, rank: int, ranks: int) -> DataLoader[Tensor]:
    """
    This process's share of every batch from `first_step` on, (batch / ranks, 2, 3, N, N) uint8, made by background
    workers (0: by this process). The workers are forks, and a fork of a process that used OpenCV's thread pool hangs:
    keep OpenCV on one thread.
    """
    mine = range(first_step * batch + rank, len(pairs), ranks)
    ahead = 4 if workers else None
    return DataLoader(pairs, batch // ranks, sampler=mine, num_workers=workers, prefetch_factor=ahead, drop_last=True)


def to_input(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], GPEN's range."""
    return pixels.float() / 127.5 - 1


def to_pixels(values: Tensor) -> NDArray[np.uint8]:
    """(B, 3, N, N) in [-1, 1] -> (B, N, N, 3) uint8"""
    scaled = ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.asarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def stack(pictures: list[Picture]) -> Tensor:
    """N pictures -> (N, 3, H, W) in [-1, 1]"""
    return to_input(torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()))
