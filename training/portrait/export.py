"""
Writes the trained model as a diffusers folder: `python -m training.portrait.export --work DIR --out FOLDER`.

transformer, vae, text_encoder, tokenizer, scheduler, preview_decoder and model_index.json, weights in half precision.
What is written loads with `DiffusionPipeline.from_pretrained`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, ZImagePipeline
from transformers import AutoTokenizer

from training.portrait.sampling import SHIFT
from training.portrait.state import load_averaged


def pipeline(work: Path, checkpoint: str, vae: str) -> ZImagePipeline:
    """The real pipeline in full precision."""
    model, _ = load_averaged(work / f"{checkpoint}.pt", torch.device("cpu"))
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        vae=AutoencoderKL.from_pretrained(work / vae),
        text_encoder=model.encoder,
        tokenizer=AutoTokenizer.from_pretrained(work / "tokenizer"),
        transformer=model.transformer,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--checkpoint", default="distilled")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--tiny", default="tiny")
    args = parser.parse_args()
    work, out = Path(args.work), Path(args.out)
    pipeline(work, args.checkpoint, args.vae).to(torch.float16).save_pretrained(out)
    AutoencoderTiny.from_pretrained(work / args.tiny).half().save_pretrained(out / "preview_decoder")
    for file in sorted(out.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size / 1e6:8.2f} MB  {file.relative_to(out)}")


if __name__ == "__main__":
    main()
