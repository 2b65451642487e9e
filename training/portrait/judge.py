"""
A small classifier that reads attributes off a picture: `python -m training.portrait.judge --work DIR`.

Trained on renders only, with blur and noise so that it looks at shapes and colours, not at the renderer's sharpness.
Its accuracy on held-out renders is the ceiling that the model's pictures are compared with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.loop import keep_memory, load_checkpoint, pick_device, save_checkpoint
from training.muon import Muon
from training.portrait.captions import Record
from training.portrait.pictures import Pictures
from training.portrait.renderer import attributes as a
from training.portrait.renderer.draw import Picture

CLASSES: dict[str, tuple[str, ...]] = {
    "hairstyle": a.HAIRSTYLES, "hair_colour": a.HAIR_COLOURS, "glasses": a.GLASSES, "hat": a.HATS, "beard": a.BEARDS,
    "backdrop": a.BACKDROPS, "clothes_colour": a.COLOURS, "light": a.LIGHTS, "style": a.STYLES, "gender": a.GENDERS,
    "age": a.AGES, "expression": a.EXPRESSIONS, "clothes": a.CLOTHES, "view": a.VIEWS,
}  # fmt: skip
SIDE_PX = 128


class Judge(nn.Module):
    """Five halvings, then one linear head an attribute. Input (B, 3, 128, 128) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128, 160)
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(160 * 16, 320)
        self.heads = nn.ModuleDict({name: nn.Linear(320, len(names)) for name, names in CLASSES.items()})

    def features(self, x: Tensor) -> Tensor:
        flat = F.dropout(self.body(x).flatten(1), 0.3, self.training)
        return F.relu(self.hidden(flat))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = self.features(x)
        return {name: head(seen) for name, head in self.heads.items()}


def thumbnail(picture: Picture) -> Picture:
    """Box-filtered to the judge's size."""
    k = picture.shape[0] // SIDE_PX
    return np.asarray(picture.reshape(SIDE_PX, k, SIDE_PX, k, 3).mean((1, 3)) + 0.5, np.uint8)


def thumbnails(pictures: Sequence[Picture]) -> Tensor:
    """(n, 3, 128, 128) uint8."""
    return torch.from_numpy(np.stack([thumbnail(p) for p in pictures])).permute(0, 3, 1, 2).contiguous()


def labels(records: Sequence[Record]) -> dict[str, Tensor]:
    return {name: torch.tensor([names.index(str(r[name])) for r in records]) for name, names in CLASSES.items()}


def roughened(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored, moved, blurred, noisy: bytes to [-1, 1]."""
    x = x.float() / 127.5 - 1
    dice = torch.rand(5, generator=generator)
    x = x.flip(3) if dice[0] < 0.5 else x
    shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
    x = torch.roll(x, shift, (2, 3))
    if dice[1] < 0.5:
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = x + (soft - x) * dice[2].item()
    return x + 0.06 * dice[3].item() * torch.randn(x.shape, generator=generator)


@torch.no_grad()
def verdicts(judge: Judge, pictures: Sequence[Picture], device: torch.device) -> dict[str, Tensor]:
    """Class indices for each attribute."""
    parts = []
    for start in range(0, len(pictures), 64):
        x = thumbnails(pictures[start : start + 64]).to(device).float() / 127.5 - 1
        parts.append({name: scores.argmax(1).cpu() for name, scores in judge(x).items()})
    return {name: torch.cat([part[name] for part in parts]) for name in CLASSES}


def agreement(said: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((said[name] == truth[name]).float().mean()) for name in CLASSES}


def load(work: Path, device: torch.device) -> Judge:
    saved = load_checkpoint(work / "judge.pt", device)
    if saved is None:
        raise FileNotFoundError(f"{work / 'judge.pt'}: run training.portrait.judge first")
    judge = Judge().to(device)
    judge.load_state_dict(saved["judge"])
    return judge.eval()


def fit(judge: Judge, x: Tensor, y: dict[str, Tensor], args: argparse.Namespace, device: torch.device) -> None:
    muon, step, start = Muon(judge.named_parameters(), exclude=("heads",), weight_decay=0.02), 0, time.time()
    total = args.epochs * (len(x) // args.batch)
    for epoch in range(args.epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for chosen in order[: len(x) // args.batch * args.batch].view(-1, args.batch):
            muon.set_rate(args.rate * min(1.0, (step + 1) / 50) * max(0.01, 1 - step / total))
            rough = roughened(x[chosen], torch.Generator().manual_seed(step))
            images = rough.to(device, memory_format=torch.channels_last)  # half the time on a CPU
            with torch.autocast(device.type, torch.bfloat16):
                said = judge(images)
            losses = [F.cross_entropy(said[name].float(), y[name][chosen].to(device)) for name in CLASSES]
            loss: Any = torch.stack(losses).sum()
            muon.zero_grad()
            loss.backward()
            muon.step()
            step += 1
        left_min = (time.time() - start) / (epoch + 1) * (args.epochs - epoch - 1) / 60
        print(f"epoch {epoch + 1} loss {loss.item():.2f}, {left_min:.0f} min left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args()
    keep_memory()
    work, device = Path(args.work), pick_device()
    pictures, held_out = Pictures.open(work, "train"), Pictures.open(work, "valid")
    x = torch.cat([thumbnails(list(shard)) for shard in pictures.shards])
    torch.manual_seed(args.seed)
    judge = Judge().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit(judge, x, labels(pictures.records), args, device)
    save_checkpoint(work / "judge.pt", {"judge": judge.state_dict()})
    said = verdicts(judge.eval(), [held_out[i] for i in range(len(held_out))], device)
    for name, share in agreement(said, labels(held_out.records)).items():
        print(f"{name:15s} {share:.3f}")


if __name__ == "__main__":
    main()
