"""
Draws a contact sheet: `python -m training.portrait.sheet --work DIR --out FILE.png`, the fixed prompts with fixed
seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers import AutoencoderKL
from tokenizers import Tokenizer

from training.loop import pick_device
from training.portrait.contact import save_sheet
from training.portrait.prompts import SHEET
from training.portrait.sampling import draw
from training.portrait.state import load_averaged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--checkpoint", default="distilled")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--prompt", action="append", help="instead of the fixed ones; repeatable")
    parser.add_argument("--size", type=int, default=512, help="px, what the model was trained for")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--each", type=int, default=1, help="pictures of each prompt, side by side")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--cell", type=int, default=320, help="px")
    args = parser.parse_args()
    work, device = Path(args.work), pick_device()
    model, sizes = load_averaged(work / f"{args.checkpoint}.pt", device)
    vae = AutoencoderKL.from_pretrained(work / args.vae).to(device).eval()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    prompts = [prompt for prompt in args.prompt or SHEET for _ in range(args.each)]
    seeds = range(args.seed, args.seed + len(prompts))
    parts, side = (model.transformer, model.encoder, vae), args.size // sizes.stride
    drawn = draw(parts, tokenizer, prompts, seeds, side, args.steps, args.guidance)
    save_sheet(drawn, args.columns, Path(args.out), args.cell)


if __name__ == "__main__":
    main()
