"""
Trains denoiser and text encoder together: `python -m training.portrait.denoiser --work DIR`. Resumable with the same
command.

Flow matching on the raw output x0 - noise. First on pictures at half size (a quarter of the tokens, whose positions
stand where the fine ones will be), then at full size; a `--half` of those steps on pictures that are half as large,
for a model that draws both sizes. The rate is constant and falls only in the last `--decay`
steps; the state before the fall is kept in NAME-stable.pt, so that a longer training can start from there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer
from torch import Tensor

from training.loop import Ema, average_gradients, join, keep_memory, load_checkpoint, pick_device, save_checkpoint
from training.muon import Muon
from training.portrait.batches import Batch, make, pool_of
from training.portrait.contact import save_sheet
from training.portrait.forward import Core, Positions, core, denoise, encode_text, positions
from training.portrait.latents import load_latents
from training.portrait.models import Sizes, count
from training.portrait.pictures import Pictures
from training.portrait.prompts import SHEET
from training.portrait.sampling import draw
from training.portrait.state import Model, load_averaged, optimiser, sizes_of

Target = Callable[[Batch, Any], Tensor]


@dataclass
class Run:
    """Everything that a resumed training needs, and where it stands."""

    model: Model
    muon: Muon
    ema: Ema
    sizes: Sizes
    step: int = 0
    side: int = 32  # latents across a picture of full size

    def save(self, path: Path) -> None:
        parts = {"model": self.model.state_dict(), "muon": self.muon.state_dict(), "ema": self.ema.state_dict()}
        save_checkpoint(path, {"step": self.step, "sizes": self.sizes.as_dict(), **parts})

    def load(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.muon.load_state_dict(saved["muon"])
        self.ema.load_state_dict(saved["ema"])
        self.step = int(saved["step"])


def new_run(sizes: Sizes, path: Path, ema_decay: float, seed: int, device: torch.device, begin: str = "") -> Run:
    """From the checkpoint, or with the weights of another one, or from scratch. A checkpoint's sizes win."""
    saved = load_checkpoint(path, device)
    torch.manual_seed(seed)
    if saved is None and begin:
        averaged, sizes = load_averaged(path.with_name(f"{begin}.pt"), device)
        model = Model(sizes).to(device)
        model.load_state_dict(averaged.state_dict())
    else:
        sizes = sizes if saved is None else sizes_of(saved)
        model = Model(sizes).to(device)
    run = Run(model, optimiser(model), Ema(model, ema_decay), sizes)
    if saved is not None:
        run.load(saved)
    return run


def rate(step: int, steps: int, decay: int, peak: float) -> float:
    """Two hundred steps up, a plateau, a straight line down to 2 %."""
    left = (steps - step) / max(decay, 1)
    return peak * min(1.0, (step + 1) / 200) * max(0.02, min(1.0, left))


def predict(model: Model, batch: Batch, at: Positions, run: Core) -> Tensor:
    with torch.autocast(batch.clean.device.type, torch.bfloat16):
        text = encode_text(model.encoder, batch.ids, batch.padding)
        return denoise(model.transformer, batch.mixed, 1 - batch.sigma, text, batch.padding, at, run).float()


def straight(batch: Batch, at: Positions) -> Tensor:
    """Flow matching's target: from the noise to the picture."""
    return batch.clean - batch.noise


class Grids:
    """Position tables by (caption length, rows, coarse); made once."""

    def __init__(self, transformer: Any, device: torch.device) -> None:
        self.transformer, self.device = transformer, device
        self.tables: dict[tuple[int, int, bool], Positions] = {}

    def of(self, batch: Batch, coarse: bool) -> Positions:
        length, side = batch.ids.shape[1], batch.clean.shape[-1] // 2
        key = (length, side, coarse)
        if key not in self.tables:
            spacing = 2.0 if coarse else 1.0
            self.tables[key] = positions(self.transformer, length, side, side, self.device, spacing)
        return self.tables[key]


def learn(run: Run, batch: Batch, at: Positions, target: Tensor, forward: Core, rate_now: float) -> float:
    """One step of the optimiser; the loss."""
    run.muon.set_rate(rate_now)
    loss = (predict(run.model, batch, at, forward) - target).pow(2).mean()
    run.muon.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(run.model)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.muon.step()
    run.ema.update(run.model)
    run.step += 1
    return loss.item()


def draw_sheet(run: Run, vae: Any, tokenizer: Tokenizer, path: Path, coarse: bool) -> None:
    """The fixed prompts with the averaged weights."""
    model = Model(run.sizes).to(next(run.model.parameters()).device)
    model.load_state_dict(run.ema.state)
    parts = (model.transformer.eval(), model.encoder.eval(), vae)
    side, spacing = (run.side // 2, 2.0) if coarse else (run.side, 1.0)
    seeds = range(100, 100 + len(SHEET))
    save_sheet(draw(parts, tokenizer, SHEET, seeds, side, spacing=spacing), 6, path, 320)


def train(args: argparse.Namespace) -> None:
    rank, world = join()
    work, device = Path(args.work), pick_device()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    latents, records = load_latents(work).to(device if args.on_device else "cpu"), Pictures.open(work, "train").records
    pool = pool_of(records[: len(latents)], tokenizer, args.captions, args.seed)
    halves = load_latents(work, half=True).to(latents.device) if args.half else latents
    state_file = work / f"{args.name}.pt"
    run = new_run(sizes_from(args), state_file, args.ema, args.seed, device, args.start)
    run.side = latents.shape[-1]
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    forward = torch.compile(core, dynamic=False) if args.compile else core
    grids, loss_mean, start, first = Grids(run.model.transformer, device), 0.0, time.time(), run.step
    print(f"{count(run.model.transformer):.2f} + {count(run.model.encoder):.2f} M parameters, {len(latents)} pictures")
    print(f"from step {run.step} of {args.steps}", flush=True)
    while run.step < args.steps:
        if rank == 0 and run.step == args.steps - args.decay:  # before the step: a resumed run may begin right here
            run.save(state_file.with_name(f"{state_file.stem}-stable.pt"))
        coarse = run.step < args.coarse
        size = (args.coarse_batch if coarse else args.batch) // world
        chosen = halves if not coarse and is_half(args.half, args.seed, run.step) else latents
        batch = make(chosen, pool, size, coarse, (args.seed, run.step, rank)).to(device)
        at = grids.of(batch, coarse)
        now = rate(run.step, args.steps, args.decay, args.rate)
        loss = learn(run, batch, at, straight(batch, at), forward, now)
        loss_mean = loss if loss_mean == 0.0 else 0.98 * loss_mean + 0.02 * loss
        if run.step == args.coarse:  # the pace changes
            start, first = time.time(), run.step
        if rank == 0:
            after_step(run, args, loss_mean, start, first, state_file, vae, tokenizer)


def is_half(share: float, seed: int, step: int) -> bool:
    """Whether this step learns from the pictures at half their size; the same on every process."""
    return bool(np.random.default_rng((seed, step, 2)).random() < share)


def after_step(
    run: Run,
    args: argparse.Namespace,
    loss_mean: float,
    start: float,
    first: int,
    path: Path,
    vae: Any,
    tokenizer: Tokenizer,
) -> None:
    """Say where we are; keep what we have; draw what it can."""
    if run.step % args.report == 0:
        pace = (run.step - first) / max(time.time() - start, 1e-9)
        until = args.coarse if run.step < args.coarse else args.steps
        size = args.coarse_batch if run.step <= args.coarse else args.batch
        left_min = (until - run.step) / max(pace, 1e-9) / 60
        print(
            f"{run.step} loss {loss_mean:.4f} {pace * size:.0f} pictures/s, {left_min:.0f} min to step {until}",
            flush=True,
        )
    if run.step % args.save == 0 or run.step == args.steps:
        run.save(path)
    if run.step % args.sheet == 0 or run.step in (args.coarse, args.steps):
        sheet = path.with_name(f"sheet-{path.stem}-{run.step:06d}.png")
        draw_sheet(run, vae, tokenizer, sheet, run.step <= args.coarse)


def sizes_from(args: argparse.Namespace) -> Sizes:
    return Sizes(
        dim=args.dim,
        layers=args.layers,
        heads=args.heads,
        axes=tuple(args.axes),
        text_dim=args.text_dim,
        text_layers=args.text_layers,
    )


def size_flags(parser: argparse.ArgumentParser) -> None:
    usual = Sizes()
    parser.add_argument("--dim", type=int, default=usual.dim)
    parser.add_argument("--layers", type=int, default=usual.layers)
    parser.add_argument("--heads", type=int, default=usual.heads)
    parser.add_argument("--axes", type=int, nargs=3, default=list(usual.axes), help="sum is dim / heads")
    parser.add_argument("--text-dim", type=int, default=usual.text_dim)
    parser.add_argument("--text-layers", type=int, default=usual.text_layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--name", default="denoiser")
    parser.add_argument("--start", default="", help="checkpoint in --work whose weights a new training begins with")
    parser.add_argument("--vae", default="vae", help="folder in --work, for the sheets")
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--coarse", type=int, default=5000, help="steps at half size, included in --steps")
    parser.add_argument("--decay", type=int, default=4000, help="last steps, in which the rate falls")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--coarse-batch", type=int, default=128)
    parser.add_argument("--half", type=float, default=0.0, help="share of steps on DIR/latents-half")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--ema", type=float, default=0.997)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--captions", type=int, default=12, help="for each picture")
    parser.add_argument("--report", type=int, default=50)
    parser.add_argument("--save", type=int, default=500)
    parser.add_argument("--sheet", type=int, default=2000)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--on-device", action="store_true", help="keep all latents on the GPU")
    size_flags(parser)
    keep_memory()
    train(parser.parse_args())


if __name__ == "__main__":
    main()
