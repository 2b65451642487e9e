"""
Trains the preview decoder: `python -m training.portrait.tiny --work DIR`. Resumable.

From the finished autoencoder's latents (as the denoiser sees them) straight to the picture; the true picture is the
target, not the large decoder's output.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from engines.networks.autoencoder import DecoderGraph
from training.loop import Ema, keep_memory, load_checkpoint, pick_device, save_checkpoint
from training.muon import Muon
from training.portrait.contact import save_sheet
from training.portrait.latents import decode, encode
from training.portrait.models import Sizes, count, new_tiny
from training.portrait.pictures import Pictures, crops, portions, psnr, to_pictures, to_tensor
from training.portrait.vae import distance, rate


@torch.no_grad()
def compare(vae: Any, tiny: Any, images: Tensor) -> tuple[float, float, Tensor]:
    """PSNR of the tiny decoder against the pictures and against the large decoder, and what it drew."""
    latents = torch.cat([encode(vae, part) for part in portions(images, 2)])
    small = torch.cat([DecoderGraph(tiny)(part) for part in portions(latents, 2)])
    large = torch.cat([decode(vae, part) for part in portions(latents, 2)])
    return float(psnr(small, images).mean()), float(psnr(small, large.clamp(-1, 1)).mean()), small


def step_once(vae: Any, tiny: Any, muon: Muon, images: Tensor) -> float:
    latents = encode(vae, images)
    with torch.autocast(images.device.type, torch.bfloat16):
        output = DecoderGraph(tiny)(latents)
    loss = distance(output, images)
    muon.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(tiny.decoder.parameters(), 1.0)
    muon.step()
    return loss.item()


def train(args: argparse.Namespace) -> None:
    work, device = Path(args.work), pick_device()
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    sizes = Sizes(
        vae_channels=tuple(vae.config.block_out_channels), tiny_width=args.width, tiny_blocks=tuple(args.blocks)
    )
    pictures, held_out = Pictures.open(work, "train"), Pictures.open(work, "valid")
    checks = to_tensor([held_out[i] for i in range(16)]).to(device)
    torch.manual_seed(args.seed)
    tiny = new_tiny(sizes).to(device)
    muon, ema = Muon(tiny.decoder.named_parameters()), Ema(tiny, 0.998)
    step, state_file = 0, work / f"{args.name}.pt"
    if (saved := load_checkpoint(state_file, device)) is not None:
        tiny.load_state_dict(saved["tiny"])
        muon.load_state_dict(saved["muon"])
        ema.load_state_dict(saved["ema"])
        step = int(saved["step"])
    print(f"decoder {count(tiny.decoder):.3f} M parameters, from step {step} of {args.steps}", flush=True)
    start, first, loss_mean = time.time(), step, 0.0
    while step < args.steps:
        muon.set_rate(rate(step, args.steps, args.rate))
        images = crops(pictures, args.batch, args.crop, args.seed, step, args.half).to(device)
        loss_mean = 0.98 * loss_mean + 0.02 * step_once(vae, tiny, muon, images)
        ema.update(tiny)
        step += 1
        if step % args.report == 0:
            left_min = (args.steps - step) * (time.time() - start) / (step - first) / 60
            print(f"{step} loss {loss_mean:.4f}, {left_min:.0f} min left", flush=True)
        if step % args.save == 0 or step == args.steps:
            state = {"step": step, "tiny": tiny.state_dict(), "muon": muon.state_dict(), "ema": ema.state_dict()}
            save_checkpoint(state_file, state)
    tiny.load_state_dict(ema.state)
    true, twin, drawn = compare(vae, tiny.eval(), checks)
    print(f"held-out PSNR {true:.2f} dB against the pictures, {twin:.2f} dB against the large decoder")
    save_sheet([*to_pictures(checks[:6]), *to_pictures(drawn[:6])], 6, work / f"sheet-{args.name}.png", 512)
    tiny.save_pretrained(work / args.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--vae", default="vae", help="folder in --work")
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--width", type=int, default=Sizes().tiny_width)
    parser.add_argument("--blocks", type=int, nargs="+", default=list(Sizes().tiny_blocks), help="at each size")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="px")
    parser.add_argument("--half", type=float, default=0.35, help="share of crops from pictures at half their size")
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--report", type=int, default=100)
    parser.add_argument("--save", type=int, default=1000)
    keep_memory()
    train(parser.parse_args())


if __name__ == "__main__":
    main()
