"""
The networks of the portrait bundle at their small sizes: the true Z-Image classes from diffusers and transformers.

Knows sizes and initialisation; nothing about data or training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

LATENT_CHANNELS = 16


@dataclass(frozen=True)
class Sizes:
    """Everything that decides how large the model is. Head width is dim / heads and must equal the sum of `axes`."""

    vae_channels: tuple[int, ...] = (16, 32, 64, 128, 160)
    tiny_width: int = 48
    tiny_blocks: tuple[int, ...] = (3, 2, 1)  # at each size, the smallest first
    dim: int = 256
    layers: int = 10
    heads: int = 4
    axes: tuple[int, ...] = (16, 24, 24)
    text_dim: int = 192
    text_layers: int = 4
    vocabulary: int = 1536

    @property
    def stride(self) -> int:
        """Pixels to one latent."""
        return int(2 ** (len(self.vae_channels) - 1))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def new_vae(sizes: Sizes) -> AutoencoderKL:
    blocks = len(sizes.vae_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=sizes.vae_channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=512,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
        force_upcast=False,
    )
    with torch.no_grad():  # start nearly without noise in the latent: unit noise would drown it
        vae.encoder.conv_out.bias[LATENT_CHANNELS:] = -6.0
        vae.encoder.conv_out.weight[LATENT_CHANNELS:] *= 0.1
    return cast(AutoencoderKL, vae)


def new_tiny(sizes: Sizes) -> AutoencoderTiny:
    """
    The preview decoder: it computes at as many sizes as it has blocks for, and has all pixels of a cell of the last one
    in its channels (engines/networks/autoencoder.py). diffusers wants equal widths in all blocks; the encoder is never
    used and kept minimal.
    """
    blocks = len(sizes.tiny_blocks)
    cell_px = sizes.stride // 2 ** (blocks - 1)
    tiny = AutoencoderTiny(
        out_channels=3 * cell_px**2,
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(8,) * blocks,
        decoder_block_out_channels=(sizes.tiny_width,) * blocks,
        num_encoder_blocks=(1,) * blocks,
        num_decoder_blocks=sizes.tiny_blocks,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    return cast(AutoencoderTiny, tiny)


def new_text_encoder(sizes: Sizes) -> Qwen3Model:
    """The pipeline reads hidden_states[-2]: the last layer is never used and never trained."""
    config = Qwen3Config(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.text_dim,
        intermediate_size=512,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    return cast(Qwen3Model, Qwen3Model(config))


def new_transformer(sizes: Sizes) -> ZImageTransformer2DModel:
    model = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=sizes.dim,
        n_layers=sizes.layers,
        n_refiner_layers=1,
        n_heads=sizes.heads,
        n_kv_heads=sizes.heads,
        cap_feat_dim=sizes.text_dim,
        axes_dims=list(sizes.axes),
        axes_lens=[1024, 128, 128],
        rope_theta=256.0,
        t_scale=1000.0,
    )
    initialise(model)
    return cast(ZImageTransformer2DModel, model)


@torch.no_grad()
def initialise(model: Any) -> None:
    """Xavier for linear layers, gates a quarter open, the last layer zero: the untrained model predicts nothing."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in (*model.noise_refiner, *model.layers):
        gates = block.adaLN_modulation[0]
        nn.init.normal_(gates.weight, std=0.01)
        gates.bias.view(4, -1)[1::2].fill_(0.25)
    final = model.all_final_layer["2-1"]
    nn.init.zeros_(final.adaLN_modulation[1].weight)
    nn.init.zeros_(final.linear.weight)
    nn.init.normal_(model.x_pad_token, std=0.02)
    nn.init.normal_(model.cap_pad_token, std=0.02)


def count(module: nn.Module) -> float:
    """Millions of parameters."""
    return sum(p.numel() for p in module.parameters()) / 1e6
