"""
Checkpoints of the true classes, with tiny random weights: a folder as ZImagePipeline.save_pretrained writes it, and a
GPEN.

The weights are drawn so that every part matters to the result: pad tokens are not zero, norms are not one, and the
autoencoders do not saturate. Needs torch; imported only by tests that have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from engines.networks.gpen import GPEN, Spec
from tests.support.fakes import tokenizer

LATENT_CHANNELS = 16
STRIDE = 2  # pixels per latent cell
ABOUT_PORTRAIT = """
name = "portrait"
title = { zh = "小", en = "Tiny" }
dialect = "attributes"
sizes = [[64, 64], [96, 64]]
steps = 3
guidance = 0.0
template = "<|im_start|>{prompt}<|im_end|>"
licence = "Apache-2.0"
lineage = ["random numbers"]
"""
ABOUT_RESTORER = """
name = "restorer"
title = { zh = "小", en = "Tiny" }
residual = 0.2
licence = "Apache-2.0"
lineage = ["random numbers"]
"""
GPEN_SPEC = Spec(widths=(8, 8, 6), style_dim=16, n_mlp=2)  # faces of 16 px


def randomise(module: nn.Module, spread: float, seed: int = 0) -> Any:
    """
    Weights from one seed: matrices scaled by their width, vectors about their usual value, nothing left at zero.
    float16 holds them exactly, so that bundles of either width come from one trace (builds.py).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if value.ndim > 1 and "pad_token" not in name:
                value.copy_(drawn * spread / value[0].numel() ** 0.5)
            else:
                value.copy_((1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.1 * drawn)
            value.copy_(value.half())
    return module.eval()


def transformer() -> ZImageTransformer2DModel:
    net = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=24,
        axes_dims=[4, 6, 6], axes_lens=[640, 64, 64],
    )  # fmt: skip
    return randomise(net, 1.0, seed=1)


def text_encoder() -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=512, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=1024,
    )  # fmt: skip
    return randomise(Qwen3Model(config), 1.0, seed=2)


def vae() -> AutoencoderKL:
    net = AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=LATENT_CHANNELS, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.7, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    return randomise(net, 1.0, seed=3)


def vae_of(bundle: Path) -> AutoencoderKL:
    """From the two halves that a bundle stores, in float32."""
    whole = AutoencoderKL.from_config(AutoencoderKL.load_config(bundle / "decoder"))
    halves = [load_file(bundle / half / "diffusion_pytorch_model.safetensors") for half in ("decoder", "encoder")]
    whole.load_state_dict({**halves[0], **halves[1]})
    return whole.float().eval()


def tiny_vae() -> AutoencoderTiny:
    net = AutoencoderTiny(
        latent_channels=LATENT_CHANNELS, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    return randomise(net, 1.0, seed=4)


def gpen() -> GPEN:
    net = GPEN(GPEN_SPEC).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.3 if value.ndim < 2 else 1.0))
    return net


LOADED_FROM = "/home/somebody/checkpoints"  # diffusers notes it down in config.json
CARD = "# A tiny model\n"


def save_portrait(folder: Path) -> Path:
    transformer().save_pretrained(folder / "transformer")
    text_encoder().save_pretrained(folder / "text_encoder")
    autoencoder = vae()
    autoencoder.register_to_config(_name_or_path=LOADED_FROM)
    autoencoder.save_pretrained(folder / "vae")
    tiny_vae().save_pretrained(folder / "preview_decoder")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "about.toml").write_text(ABOUT_PORTRAIT, encoding="utf-8")
    (folder / "card.md").write_text(CARD, encoding="utf-8")
    return folder


def save_restorer(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file(gpen().state_dict(), folder / "model.safetensors")
    (folder / "about.toml").write_text(ABOUT_RESTORER, encoding="utf-8")
    return folder
