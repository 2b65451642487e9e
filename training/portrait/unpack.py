"""
The way back from a bundle: `python -m training.portrait.unpack --bundle engines/builtin/portrait --work DIR`.

Writes autoencoder, preview decoder, tokenizer and DIR/shipped.pt, from which `denoiser --start shipped` goes on: with
the shipped weights, a fresh optimiser and whatever pictures lie in DIR. Nothing has to be kept to train further.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny, ZImageTransformer2DModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3Model

from training.loop import save_checkpoint
from training.portrait.models import Sizes
from training.portrait.state import Model
from training.portrait.tokens import save as save_tokenizer


def sizes_of_networks(transformer: Any, encoder: Any, vae: Any, tiny: Any) -> Sizes:
    return Sizes(
        vae_channels=tuple(vae.config.block_out_channels),
        tiny_width=tiny.config.decoder_block_out_channels[0],
        tiny_blocks=tuple(tiny.config.num_decoder_blocks),
        dim=transformer.config.dim,
        layers=transformer.config.n_layers,
        heads=transformer.config.n_heads,
        axes=tuple(transformer.config.axes_dims),
        text_dim=encoder.config.hidden_size,
        text_layers=encoder.config.num_hidden_layers,
        vocabulary=encoder.config.vocab_size,
    )


def autoencoder(bundle: Path) -> nn.Module:
    """Put the autoencoder together from the bundle's encoder and decoder."""
    vae: nn.Module = AutoencoderKL.from_config(AutoencoderKL.load_config(bundle / "decoder"))
    halves = [load_file(bundle / half / "diffusion_pytorch_model.safetensors") for half in ("decoder", "encoder")]
    vae.load_state_dict({**halves[0], **halves[1]})
    return vae.float()


def unpack(bundle: Path, work: Path) -> None:
    parts: dict[str, nn.Module] = {
        "vae": autoencoder(bundle),
        "tiny": AutoencoderTiny.from_pretrained(bundle / "preview_decoder").float(),
    }
    for name, part in parts.items():
        part.save_pretrained(work / name)  # type: ignore[operator]
    transformer = ZImageTransformer2DModel.from_pretrained(bundle / "denoiser").float()
    encoder = Qwen3Model.from_pretrained(bundle / "text_encoder").float()
    sizes = sizes_of_networks(transformer, encoder, parts["vae"], parts["tiny"])
    model = Model(sizes)
    model.transformer.load_state_dict(transformer.state_dict())
    model.encoder.load_state_dict(encoder.state_dict())
    shipped = {"sizes": sizes.as_dict(), "ema": {"state": model.state_dict(), "steps": 0}}
    save_checkpoint(work / "shipped.pt", shipped)
    save_tokenizer(Tokenizer.from_file(str(bundle / "tokenizer.json")), work / "tokenizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    unpack(args.bundle, args.work)


if __name__ == "__main__":
    main()
