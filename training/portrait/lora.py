"""
The demonstration LoRA "studio light": `python -m training.portrait.lora --work DIR --out FILE.safetensors`. Resumable.

Softer light and cleaner skin, learnt from pictures that were drawn again that way while their captions stayed the same
(`training.portrait.render --split relit`). Keys as in AWPortrait-Z: `diffusion_model.<module>.lora_A.weight`, no alpha.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from training.loop import keep_memory, load_checkpoint, pick_device, save_checkpoint
from training.portrait.batches import make, pool_of
from training.portrait.contact import save_sheet
from training.portrait.denoiser import Grids, predict, straight
from training.portrait.forward import core
from training.portrait.latents import encode_all
from training.portrait.pictures import Pictures
from training.portrait.sampling import draw
from training.portrait.state import Model, load_averaged

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")
PROMPTS = (
    "portrait of a woman, brown bob, dramatic side light, dark background",
    "elderly man, grey hair, full grey beard, side light, grey background",
    "戴眼镜的年轻女性,黑色长发,冷光,蓝色背景",
    "a boy with freckles, ginger hair, golden hour, beach background",
    "油画,络腮胡大叔,暖光,深色背景",
    "young woman, blonde hair, backlight, forest background",
)


class Delta(nn.Module):
    """weight + B A: a low-rank change of a frozen matrix."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.a = nn.Parameter(torch.randn(rank, columns, device=weight.device) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        self.strength = 1.0

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.strength * (self.b @ self.a)


def attach(transformer: Any, rank: int) -> dict[str, Delta]:
    """Deltas on all attention and feed-forward matrices of the main layers, by module name."""
    deltas: dict[str, Delta] = {}
    for name, module in list(transformer.named_modules()):
        if name.startswith("layers.") and isinstance(module, nn.Linear) and name.endswith(TARGETS):
            deltas[name] = Delta(module.weight, rank)
            parametrize.register_parametrization(module, "weight", deltas[name])
    return deltas


def exported(deltas: dict[str, Delta]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        tensors[f"diffusion_model.{name}.lora_A.weight"] = delta.a.detach().half().cpu().contiguous()
        tensors[f"diffusion_model.{name}.lora_B.weight"] = delta.b.detach().half().cpu().contiguous()
    return tensors


def sheet(model: Model, vae: Any, tokenizer: Tokenizer, deltas: dict[str, Delta], side: int, path: Path) -> None:
    """Above without, below with the LoRA."""
    shown = []
    for strength in (0.0, 1.0):
        for delta in deltas.values():
            delta.strength = strength
        seeds = range(40, 40 + len(PROMPTS))
        shown += draw((model.transformer, model.encoder, vae), tokenizer, PROMPTS, seeds, side)
    save_sheet(shown, len(PROMPTS), path, 320)


def train(args: argparse.Namespace) -> None:
    work, device = Path(args.work), pick_device()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    pictures, cache = Pictures.open(work, "relit"), work / "relit-latents.pt"
    if (encoded := load_checkpoint(cache, torch.device("cpu"))) is None:
        encoded = {"latents": torch.stack([encode_all(vae, pictures, m, device, 4) for m in (False, True)], 1)}
        save_checkpoint(cache, encoded)
    model, _ = load_averaged(work / f"{args.checkpoint}.pt", device)
    torch.manual_seed(args.seed)
    deltas = attach(model.transformer, args.rank)
    weights = nn.ModuleList(deltas.values())
    adam = torch.optim.AdamW(weights.parameters(), lr=args.rate, weight_decay=0.0)
    step, state_file = 0, work / "lora.pt"
    if (saved := load_checkpoint(state_file, device)) is not None:
        weights.load_state_dict(saved["weights"])
        adam.load_state_dict(saved["adam"])
        step = int(saved["step"])
    pool = pool_of(pictures.records, tokenizer, 20, args.seed)
    grids, start, first, loss_mean = Grids(model.transformer, device), time.time(), step, 0.0
    while step < args.steps:
        adam.param_groups[0]["lr"] = args.rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / args.steps)
        batch = make(encoded["latents"], pool, args.batch, False, (args.seed, step)).to(device)
        at = grids.of(batch, False)
        loss = (predict(model, batch, at, core) - straight(batch, at)).pow(2).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        step, loss_mean = step + 1, 0.95 * loss_mean + 0.05 * loss.item()
        if step % 20 == 0:
            left_min = (args.steps - step) * (time.time() - start) / (step - first) / 60
            print(f"{step} loss {loss_mean:.4f}, {left_min:.0f} min left", flush=True)
        if step % 100 == 0 or step == args.steps:
            save_checkpoint(state_file, {"step": step, "weights": weights.state_dict(), "adam": adam.state_dict()})
    save_file(exported(deltas), args.out, metadata={"format": "pt", "rank": str(args.rank)})
    sheet(model, vae, tokenizer, deltas, encoded["latents"].shape[-1], work / "sheet-lora.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True, help=".safetensors")
    parser.add_argument("--checkpoint", default="distilled")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=7)
    keep_memory()
    train(parser.parse_args())


if __name__ == "__main__":
    main()
