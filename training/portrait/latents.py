"""
Encodes the pictures once: `python -m training.portrait.latents --work DIR` writes DIR/latents/*.npy.

(pictures, 2, 16, h, w) in half precision, as the denoiser sees them: shifted and scaled. Second index: as drawn,
mirrored. Works shard by shard and goes on where it stopped. `--half`: of the pictures at half their size, to
DIR/latents-half.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.loop import keep_memory, pick_device
from training.portrait.pictures import Pictures, shrunk, to_tensor


@torch.no_grad()
def encode(vae: Any, images: Tensor) -> Tensor:
    """Pictures in [-1, 1] to the denoiser's latents."""
    with torch.autocast(images.device.type, torch.bfloat16):
        moments = vae.encoder(images.contiguous(memory_format=torch.channels_last))  # twice as fast on a CPU
    mean = moments.float()[:, : vae.config.latent_channels]
    latents: Tensor = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """The way back, in full precision."""
    images: Tensor = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    return images


def encode_all(
    vae: Any, pictures: Pictures, mirrored: bool, device: torch.device, batch: int, half: bool = False
) -> Tensor:
    parts = []
    for start in range(0, len(pictures), batch):
        some = [pictures[i] for i in range(start, min(start + batch, len(pictures)))]
        images = to_tensor([shrunk(picture) for picture in some] if half else some).to(device)
        parts.append(encode(vae, images.flip(3) if mirrored else images).half().cpu())
    return torch.cat(parts)


def shard_of(pictures: Pictures, index: int) -> Pictures:
    """One shard as a collection of its own."""
    start, size = pictures.starts[index], len(pictures.shards[index])
    return Pictures((pictures.shards[index],), pictures.records[start : start + size], (0,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--vae", default="vae", help="folder in --work")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--half", action="store_true", help="of the pictures at half their size")
    args = parser.parse_args()
    keep_memory()
    work, device = Path(args.work), pick_device()
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    pictures, folder, began = Pictures.open(work, "train"), latents_folder(work, args.half), time.time()
    folder.mkdir(exist_ok=True)
    missing = [i for i in range(len(pictures.shards)) if not (folder / f"{i:04d}.npy").exists()]
    for done, index in enumerate(missing, 1):
        shard = shard_of(pictures, index)
        both = [encode_all(vae, shard, mirrored, device, args.batch, args.half) for mirrored in (False, True)]
        beside = folder / f"{index:04d}.part.npy"
        np.save(beside, torch.stack(both, 1).numpy())
        beside.replace(folder / f"{index:04d}.npy")
        left_min = (time.time() - began) / done * (len(missing) - done) / 60
        print(f"latents {index}: {done}/{len(missing)}, {left_min:.0f} min left", flush=True)


def latents_folder(work: Path, half: bool) -> Path:
    return work / ("latents-half" if half else "latents")


def load_latents(work: Path, half: bool = False) -> Tensor:
    """(pictures, 2, 16, h, w), half precision."""
    parts = [np.load(file) for file in sorted(latents_folder(work, half).glob("[0-9]*[0-9].npy"))]
    return torch.from_numpy(np.concatenate(parts))


if __name__ == "__main__":
    main()
