"""
Train the restorer: `python -m training.restorer.train --portraits DIR --out DIR`. The same command resumes after an
interruption.

Knows the order of things: `steps` of reconstruction, then `adversarial_steps` with a discriminator, checkpoints,
sheets. Schedules count steps, never time. Does not know degradations, losses or layouts of files: those are its
neighbours.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.images.metrics import psnr_db
from engines.networks.gpen import Spec
from training.loop import Ema, average_gradients, join, keep_memory, load_checkpoint, pick_device, save_checkpoint
from training.muon import Muon
from training.restorer import bars, dataset, degrade, losses, sheet, weights


@dataclass(frozen=True)
class TrainingPlan:
    """Every number a run depends on; each is a flag of the command."""

    steps: int = 8000  # reconstruction
    adversarial_steps: int = 1500
    batch: int = 8
    seed: int = 1
    begin: str = ""  # safetensors file whose weights a new run begins with (its widths have to be given)
    widths: str = "64,64,64,96,128,48,16"  # channels at 4, 8, ... 256 px
    style_dim: int = 256
    residual: float = 0.2
    rate: float = 0.04  # Muon's; AdamW gets a twentieth
    adversarial_rate: float = 0.15  # of `rate`, at the start of the second stage
    psnr_weight: float = 0.02
    around: float = 0.25  # what a pixel far from the face weighs, against 1 on it
    texture_weight: float = 0.02
    matching_weight: float = 0.1
    ema: float = 0.999
    workers: int = 1
    show_every: int = 500
    save_every: int = 250
    stop_after: int = 0  # stop at this step as if interrupted (0: never)
    compiled: int = 1

    def spec(self) -> Spec:
        return Spec(tuple(int(width) for width in self.widths.split(",")), self.style_dim)

    @property
    def total(self) -> int:
        return self.steps + self.adversarial_steps

    @property
    def last(self) -> int:
        return self.stop_after or self.total

    def rate_at(self, step: int) -> float:
        """Warm up, flat for half of the steps, then down to 3 %; the second stage starts lower and ends at nothing."""
        if step < self.steps:
            return self.rate * min(1, (step + 1) / 60, 0.03 + 1.94 * (1 - step / self.steps))
        wave = 0.5 * (1 + math.cos(math.pi * (step - self.steps) / self.adversarial_steps))
        return self.rate * self.adversarial_rate * wave


class Trainer:
    """Everything that changes while training, and one step of it."""

    PARTS = ("model", "ema", "optimizer", "discriminator", "judge")  # what a checkpoint holds

    def __init__(self, plan: TrainingPlan, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.step = plan, device, 0
        self.model = weights.fresh(plan.spec(), plan.residual).to(device)
        if plan.begin:
            self.model.network.load_state_dict(load_file(plan.begin))
        self.discriminator = losses.PatchDiscriminator().to(device)
        self.ema = Ema(self.model.network, plan.ema)
        self.optimizer = Muon(self.model.named_parameters(), exclude=("generator.style",), adam_rate=0.05)
        self.weight = losses.attention(plan.spec().size_px, plan.around).to(device)
        self.judge = torch.optim.Adam(self.discriminator.parameters(), lr=4e-4, betas=(0.0, 0.99))
        self.fast: Callable[[Tensor], Tensor] = self.model
        if plan.compiled:
            self.fast = torch.compile(self.model, dynamic=False)

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return {"step": self.step, "plan": asdict(self.plan), **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def learn(self, bad: Tensor, truth: Tensor) -> dict[str, float]:
        """One step on a batch in [-1, 1], (B, 3, N, N). Returns the losses."""
        self.optimizer.set_rate(self.plan.rate_at(self.step))
        with self.autocast():
            restored = self.fast(bad)
        restored = restored.float()
        loss = losses.reconstruction(restored, truth, self.plan.psnr_weight, self.weight)
        shown = {"loss": loss.item()}
        if self.step >= self.plan.steps:
            loss = loss + self.look(restored, truth, shown)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.model.network)
        self.step += 1
        return shown

    def look(self, restored: Tensor, truth: Tensor, shown: dict[str, float]) -> Tensor:
        """Teach the discriminator, then ask it. The restorer's share of the adversarial loss."""
        with self.autocast():
            real, _ = self.discriminator(truth)
            fake, _ = self.discriminator(restored.detach())
        judged = losses.hinge(real.float(), fake.float())
        self.judge.zero_grad()
        torch.autograd.backward(judged)
        average_gradients(self.discriminator)
        self.judge.step()
        with self.autocast():
            fake, features = self.discriminator(restored)
            with torch.no_grad():
                _, wanted = self.discriminator(truth)
        matched = losses.matching(features, wanted)
        shown.update(judge=judged.item(), fake=fake.mean().item(), matching=matched.item())
        look: Tensor = self.plan.matching_weight * matched.float() - self.plan.texture_weight * fake.float().mean()
        return look


class Gallery:
    """The validation faces a run is watched with: the gain at the middle level, and a sheet."""

    def __init__(self, portraits: Path, plan: TrainingPlan, count: int = 24) -> None:
        self.truth = dataset.aligned(dataset.read_portraits(portraits, "val"), plan.spec().size_px)[:count]
        self.bad = bars.degraded(self.truth, "middle")
        self.model = weights.fresh(plan.spec(), plan.residual)

    def show(self, trainer: Trainer, folder: Path) -> str:
        self.model.to(trainer.device).network.load_state_dict(trainer.ema.state)
        good = weights.restore(self.model, self.bad)
        sheet.write(folder / f"sheet-{trainer.step:06d}.png", [self.bad[:8], good[:8], self.truth[:8]])
        whole, face = (self.gain(measure, good) for measure in (psnr_db, bars.face_psnr_db))
        fine = bars.mean(bars.texture, good, self.truth)
        return f"middle gain {whole:+.2f} dB, on the face {face:+.2f} dB, texture {fine:.2f}"

    def gain(self, measure: Callable[[bars.Picture, bars.Picture], float], good: bars.Pictures) -> float:
        return bars.mean(measure, good, self.truth) - bars.mean(measure, self.bad, self.truth)


def metadata(plan: TrainingPlan, step: int) -> dict[str, str]:
    return {
        "residual": str(plan.residual),
        "range": "RGB [-1, 1]",
        "steps": str(step),
        "date": date.today().isoformat(),
        "plan": json.dumps(asdict(plan)),
        "degrade": json.dumps(degrade.shares()),
    }


def save(trainer: Trainer, folder: Path) -> None:
    save_checkpoint(folder / "checkpoint.pt", trainer.state_dict())
    weights.save(folder / "restorer.safetensors", trainer.ema.state, metadata(trainer.plan, trainer.step))


def train(plan: TrainingPlan, portraits: Path, out: Path, device: torch.device) -> Trainer:
    rank, ranks = join()
    out.mkdir(parents=True, exist_ok=True)
    trainer, gallery = Trainer(plan, device), Gallery(portraits, plan)
    saved = load_checkpoint(out / "checkpoint.pt", device)
    if saved is not None:
        trainer.load_state_dict(saved)
    size_px, first, started = plan.spec().size_px, trainer.step, time.monotonic()
    pairs = dataset.Pairs(dataset.read_portraits(portraits, "train"), size_px, plan.seed, plan.last * plan.batch)
    for batch in dataset.batches(pairs, plan.batch, first, plan.workers, rank, ranks):
        bad, truth = dataset.to_input(batch.to(device, non_blocking=True)).unbind(1)
        shown = trainer.learn(bad.contiguous(memory_format=torch.channels_last), truth)  # 10 % faster than planes
        if rank == 0:
            record(trainer, gallery, shown, out, (time.monotonic() - started) / (trainer.step - first))
    return trainer


def record(trainer: Trainer, gallery: Gallery, shown: dict[str, float], out: Path, step_s: float) -> None:
    """What a step leaves behind: a line now and then, a sheet, a checkpoint."""
    plan, last = trainer.plan, trainer.step == trainer.plan.last
    if last or trainer.step % 20 == 0:
        words = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
        eta = (plan.total - trainer.step) * step_s / 60
        print(f"{trainer.step}/{plan.total} {words} {plan.batch / step_s:.1f} img/s ETA {eta:.0f} min", flush=True)
    if last or trainer.step % plan.show_every == 0:
        print(gallery.show(trainer, out), flush=True)
    if last or trainer.step % plan.save_every == 0:
        save(trainer, out)


def parse() -> tuple[TrainingPlan, Path, Path]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, help="folder with train/, val/ and their landmarks")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, weights and sheets go here")
    for field in fields(TrainingPlan):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    portraits, out = arguments.pop("portraits"), arguments.pop("out")
    return TrainingPlan(**arguments), portraits, out


def main() -> None:
    plan, portraits, out = parse()
    keep_memory()
    cv2.setNumThreads(1)  # before its first use: the data workers are forks
    device = pick_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    train(plan, portraits, out, device)


if __name__ == "__main__":
    main()
