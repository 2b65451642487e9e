"""
Puts guidance into the weights: `python -m training.portrait.distill --work DIR`. Resumable.

Teacher: the denoiser's moving average, asked twice (with the caption and without). Student: starts as the teacher,
sees only the caption, and learns the guided answer. Afterwards eight steps without guidance look like guided ones, at
half the cost.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer
from torch import Tensor

from training.loop import Ema, keep_memory, load_checkpoint, pick_device
from training.portrait.batches import Batch, make, pool_of
from training.portrait.denoiser import Grids, Run, draw_sheet, is_half, learn
from training.portrait.forward import Core, Positions, core, denoise, encode_text, positions
from training.portrait.latents import load_latents
from training.portrait.pictures import Pictures
from training.portrait.sampling import TEXT_MULTIPLE, batch_of
from training.portrait.state import Model, load_averaged, optimiser


class Teacher:
    """The frozen model and its guided answer."""

    def __init__(self, model: Model, guidance: float, run: Core) -> None:
        self.model, self.guidance, self.run = model, guidance, run
        self.device = next(model.parameters()).device
        self.bare: dict[int, Positions] = {}

    @torch.no_grad()
    def answer(self, batch: Batch, at: Positions) -> Tensor:
        named = self.ask(batch, batch.ids, batch.padding, at)
        side = batch.clean.shape[-1] // 2
        if side not in self.bare:
            self.bare[side] = positions(self.model.transformer, TEXT_MULTIPLE, side, side, self.device)
        ids, padding = batch_of([[1, 2]] * len(batch.ids), TEXT_MULTIPLE, self.device)
        plain = self.ask(batch, ids, padding, self.bare[side])
        empty = (batch.padding.logical_not().sum(1) <= 2).view(-1, 1, 1, 1)  # without a caption nothing is guided
        return torch.where(empty, plain, named + self.guidance * (named - plain))

    def ask(self, batch: Batch, ids: Tensor, padding: Tensor, at: Positions) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            text = encode_text(self.model.encoder, ids, padding)
            return denoise(self.model.transformer, batch.mixed, 1 - batch.sigma, text, padding, at, self.run).float()


def student_of(teacher: Model, sizes: Any, path: Path, args: argparse.Namespace, device: torch.device) -> Run:
    model = Model(sizes).to(device)
    model.load_state_dict(teacher.state_dict())
    run = Run(model, optimiser(model), Ema(model, args.ema), sizes)
    if (saved := load_checkpoint(path, device)) is not None:
        run.load(saved)
    return run


def train(args: argparse.Namespace) -> None:
    work, device = Path(args.work), pick_device()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    latents, records = load_latents(work).to(device if args.on_device else "cpu"), Pictures.open(work, "train").records
    pool, state_file = pool_of(records[: len(latents)], tokenizer, 12, args.seed), work / f"{args.name}.pt"
    halves = load_latents(work, half=True).to(latents.device) if args.half else latents
    frozen, sizes = load_averaged(work / f"{args.teacher}.pt", device)
    run = student_of(frozen, sizes, state_file, args, device)
    run.side = latents.shape[-1]
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    forward = torch.compile(core, dynamic=False) if args.compile else core
    teacher, grids = Teacher(frozen, args.guidance, forward), Grids(run.model.transformer, device)
    start, first, loss_mean = time.time(), run.step, 0.0
    while run.step < args.steps:
        chosen = halves if is_half(args.half, args.seed, run.step) else latents
        batch = make(chosen, pool, args.batch, False, (args.seed, run.step)).to(device)
        at = grids.of(batch, False)
        now = args.rate * min(1.0, (run.step + 1) / 50) * max(0.02, 1 - run.step / args.steps)
        loss = learn(run, batch, at, teacher.answer(batch, at), forward, now)
        loss_mean = loss if loss_mean == 0.0 else 0.98 * loss_mean + 0.02 * loss
        if run.step % args.report == 0:
            left_min = (args.steps - run.step) * (time.time() - start) / (run.step - first) / 60
            print(f"{run.step} loss {loss_mean:.4f}, {left_min:.0f} min left", flush=True)
        if run.step % args.save == 0 or run.step == args.steps:
            run.save(state_file)
            draw_sheet(run, vae, tokenizer, work / f"sheet-{args.name}.png", False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--name", default="distilled")
    parser.add_argument("--teacher", default="denoiser", help="checkpoint in --work")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--guidance", type=float, default=1.2, help="as in the pipeline: 0 is off")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--half", type=float, default=0.0, help="share of steps on DIR/latents-half")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--report", type=int, default=20)
    parser.add_argument("--save", type=int, default=500)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--on-device", action="store_true", help="keep all latents on the GPU")
    keep_memory()
    train(parser.parse_args())


if __name__ == "__main__":
    main()
