"""
Trains the autoencoder: `python -m training.portrait.vae --work DIR`. The same command goes on after an interruption.

Small crops of pictures at two scales; absolute error on three levels and on edges; a little KL; and now and then a
shrunk latent has to decode to a shrunk picture, which makes latents smooth for the denoiser (after EQ-VAE, Kouzelis
et al. 2025).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.loop import Ema, average_gradients, join, keep_memory, load_checkpoint, pick_device, save_checkpoint
from training.muon import Muon
from training.portrait.contact import save_sheet
from training.portrait.models import LATENT_CHANNELS, Sizes, count, new_vae
from training.portrait.pictures import Pictures, crops, portions, psnr, to_pictures, to_tensor

SHRINK_FROM, SHRINK_SHARE = 0.15, 0.15  # of all steps


def edges(d: Tensor) -> Tensor:
    """Mean absolute difference of neighbours of an error picture."""
    return (d[..., 1:, :] - d[..., :-1, :]).abs().mean() + (d[..., 1:] - d[..., :-1]).abs().mean()


def distance(output: Tensor, target: Tensor) -> Tensor:
    d = output.float() - target
    half = F.avg_pool2d(d, 2)
    quarter = F.avg_pool2d(half, 2)
    fine = d.abs().mean() + 0.5 * edges(d)
    return fine + 0.5 * half.abs().mean() + 0.25 * edges(half) + 0.5 * quarter.abs().mean()


def shrink(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)


def loss_of(vae: Any, images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """One training loss; `share` is how much of the training is done."""
    kind = images.device.type
    with torch.autocast(kind, torch.bfloat16):
        moments = vae.encoder(images)
    mean, log_variance = moments.float().chunk(2, 1)
    log_variance = log_variance.clamp(-20, 10)
    kl = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    latents = mean + (0.5 * log_variance).exp() * noise
    if share > SHRINK_FROM and float(torch.rand((), generator=generator)) < SHRINK_SHARE:
        latents, images = shrink(latents), shrink(images)
    with torch.autocast(kind, torch.bfloat16):
        output = vae.decoder(latents.contiguous())
    loss: Tensor = distance(output, images) + 5e-4 * min(1.0, 4 * share) * kl
    return loss


def rate(step: int, steps: int, peak: float) -> float:
    """Thirty steps up, then a straight line down to 2 %."""
    return peak * min(1.0, (step + 1) / 30) * max(0.02, 1 - step / steps)


@torch.no_grad()
def examine(vae: Any, images: Tensor, batch: int = 2) -> tuple[float, Tensor, Tensor]:
    """Mean PSNR in dB, all latents, and the decoded pictures."""
    decoded, latents = [], []
    for part in portions(images, batch):
        z = vae.encode(part).latent_dist.mode()
        latents.append(z)
        decoded.append(vae.decode(z).sample)
    output = torch.cat(decoded)
    return float(psnr(output, images).mean()), torch.cat(latents), output


@torch.no_grad()
def bake_scale(vae: Any, latents: Tensor) -> None:
    """Every channel gets unit deviation (exactly undone in the decoder); scale and shift go to the configuration."""
    deviation = latents.std((0, 2, 3))
    vae.encoder.conv_out.weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
    vae.encoder.conv_out.bias[:LATENT_CHANNELS] /= deviation
    vae.decoder.conv_in.weight *= deviation[None, :, None, None]
    scaled = latents / deviation[None, :, None, None]
    vae.register_to_config(scaling_factor=float(1 / scaled.std()), shift_factor=float(scaled.mean()))


def report(vae: Any, ema: Ema, images: Tensor, sheet: Path) -> float:
    """PSNR of the averaged weights on held-out pictures, and a sheet: above the truth, below what was decoded."""
    mine = {name: value.clone() for name, value in vae.state_dict().items()}
    vae.load_state_dict(ema.state)
    quality, _, output = examine(vae.eval(), images)
    vae.load_state_dict(mine)
    vae.train()
    save_sheet([*to_pictures(images[:6]), *to_pictures(output[:6])], 6, sheet, 512)
    return quality


def train(args: argparse.Namespace) -> None:
    rank, world = join()
    work, device = Path(args.work), pick_device()
    sizes = Sizes(vae_channels=tuple(args.channels))
    pictures, held_out = Pictures.open(work, "train"), Pictures.open(work, "valid")
    checks = to_tensor([held_out[i] for i in range(args.checks)]).to(device)
    torch.manual_seed(args.seed)
    vae = new_vae(sizes).to(device)
    muon, ema = Muon(vae.named_parameters()), Ema(vae, 0.998)
    state_file = work / f"{args.name}.pt"
    step = resume(state_file, device, vae, muon, ema)
    print(f"{count(vae):.2f} M parameters, {len(pictures)} pictures, from step {step} of {args.steps}", flush=True)
    start, first, loss_mean = time.time(), step, 0.0
    while step < args.steps:
        muon.set_rate(rate(step, args.steps, args.rate))
        images = crops(pictures, args.batch // world, args.crop, args.seed + 1000 * rank, step, args.half).to(device)
        generator = torch.Generator().manual_seed((args.seed + 1000 * rank) * 1_000_003 + step)
        loss = loss_of(vae, images, step / args.steps, generator)
        muon.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(vae)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        muon.step()
        ema.update(vae)
        step, loss_mean = step + 1, 0.98 * (loss_mean or loss.item()) + 0.02 * loss.item()
        if rank == 0 and step % args.report == 0:
            pace = (step - first) / (time.time() - start)
            left_min = (args.steps - step) / pace / 60
            print(f"{step} loss {loss_mean:.4f} {pace * args.batch:.1f} crops/s, {left_min:.0f} min left", flush=True)
        if rank == 0 and (step % args.save == 0 or step == args.steps):
            save(state_file, step, vae, muon, ema)
            quality = report(vae, ema, checks, work / f"sheet-{args.name}.png")
            print(f"{step} held-out PSNR {quality:.2f} dB", flush=True)
    if rank == 0:
        finish(vae, ema, held_out, work / args.name, device)


def save(path: Path, step: int, vae: Any, muon: Muon, ema: Ema) -> None:
    parts = {"vae": vae.state_dict(), "muon": muon.state_dict(), "ema": ema.state_dict()}
    save_checkpoint(path, {"step": step, **parts})


def resume(path: Path, device: torch.device, vae: Any, muon: Muon, ema: Ema) -> int:
    saved = load_checkpoint(path, device)
    if saved is None:
        return 0
    vae.load_state_dict(saved["vae"])
    muon.load_state_dict(saved["muon"])
    ema.load_state_dict(saved["ema"])
    return int(saved["step"])


def finish(vae: Any, ema: Ema, held_out: Pictures, folder: Path, device: torch.device) -> None:
    """Write the averaged weights with unit latents as a diffusers folder."""
    vae.load_state_dict(ema.state)
    images = to_tensor([held_out[i] for i in range(64, min(128, len(held_out)))]).to(device)
    before, latents, _ = examine(vae.eval(), images)
    bake_scale(vae, latents)
    after, _, _ = examine(vae, images)
    print(f"held-out PSNR {after:.2f} dB on {len(images)} pictures (before scaling {before:.2f})")
    vae.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--name", default="vae")
    parser.add_argument("--channels", type=int, nargs="+", default=list(Sizes().vae_channels))
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="px")
    parser.add_argument("--half", type=float, default=0.35, help="share of crops from pictures at half their size")
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checks", type=int, default=16, help="held-out pictures for the reports")
    parser.add_argument("--report", type=int, default=100, help="steps between lines")
    parser.add_argument("--save", type=int, default=1000, help="steps between checkpoints")
    keep_memory()
    train(parser.parse_args())


if __name__ == "__main__":
    main()
