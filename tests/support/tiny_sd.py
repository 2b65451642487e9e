"""
Stable Diffusion of the true classes, with tiny random weights: a folder as StableDiffusionPipeline.save_pretrained
writes it, and the same weights as one file in the layout of the first code. Needs torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.support.tiny import randomise

STRIDE = 2  # pixels per latent cell
WIDTH = 24  # of an embedding
ABOUT = """
title = { zh = "小", en = "Tiny" }
sizes = [[64, 64], [72, 56]]
steps = 3
guidance = 1.5
licence = "Apache-2.0"
lineage = ["random numbers"]
"""
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ["t h", "th e</w>", "a n", "an d</w>", "p o", "po r", "t r", "i t</w>", "tr a", "por tra", "portra it</w>"]


def vocabulary() -> dict[str, int]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = [*letters, *(f"{letter}</w>" for letter in letters), *(pair.replace(" ", "") for pair in MERGES), BEGIN, END]
    return {token: i for i, token in enumerate(made)}


def save_tokenizer(folder: Path) -> Path:
    """As OpenAI and the old libraries write it: vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    told = {"model_max_length": 77, "bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **told}))
    return folder


# Each kind of block is there, and three halvings as in Stable Diffusion, in the fewest nodes: tracing takes most of a
# build's time. EVERY_BLOCK has Stable Diffusion's own.
ATTENTION_ONCE = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
EVERY_BLOCK = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


def unet(**changes: Any) -> UNet2DConditionModel:
    config: dict[str, Any] = {
        "sample_size": 32, "cross_attention_dim": WIDTH, "attention_head_dim": 2, "layers_per_block": 1,
        "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, **ATTENTION_ONCE,
    }  # fmt: skip
    return randomise(UNet2DConditionModel(**{**config, **changes}), 1.0, seed=11)


def text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(vocabulary()), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, bos_token_id=len(vocabulary()) - 2,
        eos_token_id=len(vocabulary()) - 1, pad_token_id=len(vocabulary()) - 1,
    )  # fmt: skip
    return randomise(CLIPTextModel(config), 1.0, seed=12)


def vae() -> AutoencoderKL:
    net = AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.4,
    )  # fmt: skip
    return randomise(net, 1.0, seed=13)


def tiny_vae(channels: int = 4) -> AutoencoderTiny:
    net = AutoencoderTiny(
        latent_channels=channels, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    return randomise(net, 1.0, seed=14)


BETAS: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
}  # fmt: skip


def pipeline(folder: Path, scheduler: Any = None, **changes: Any) -> Any:
    """`folder` holds the tokenizer; `changes` are of the U-Net."""
    made = StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=CLIPTokenizer.from_pretrained(save_tokenizer(folder)),
        unet=unet(**changes), scheduler=scheduler or DDIMScheduler(clip_sample=False, **BETAS),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path, scheduler: Any = None, *, preview: bool = True, **changes: Any) -> Path:
    pipeline(folder / "tokenizer", scheduler, **changes).save_pretrained(folder)
    save_tokenizer(folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    if preview:
        tiny_vae().save_pretrained(folder / "preview_decoder")
    (folder / "about.toml").write_text(ABOUT, encoding="utf-8")
    return folder


# ---- the layout of the first code

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _unet_name(name: str, attends: Collection[int]) -> str:
    """`attends`: the blocks on the way up with attention, after which upsamplers are counted."""
    layers = 1  # per block
    for end, theirs in UNET_ENDS.items():
        if name.startswith(f"{end}."):
            name = name.replace(end, theirs, 1)
    if found := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.", name):
        way, i, kind, j = found[1], int(found[2]), found[3], int(found[4])
        side = "input" if way == "down" else "output"
        start = (layers + 1) * i + 1 if way == "down" else (layers + 1) * i
        if kind == "downsamplers":
            place = f"{side}_blocks.{(layers + 1) * (i + 1)}.0."
        elif kind == "upsamplers":
            place = f"{side}_blocks.{start + layers}.{1 + (i in attends)}."
        else:
            place = f"{side}_blocks.{start + j}.{int(kind == 'attentions')}."
        name = name.replace(found[0], place, 1)
        name = name.replace(".conv.", ".op.") if kind == "downsamplers" else name
    for ours, theirs in RESNET.items() if "transformer_blocks" not in name else ():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return f"model.diffusion_model.{name}"


def _vae_name(name: str, levels: int = 2) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    for ours, theirs in ATTENTION.items() if "attn_1" in name else ():
        name = name.replace(f".{ours}.", f".{theirs}.")
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    return f"first_stage_model.{name}"


def single_file(path: Path, **changes: Any) -> Path:
    """All three networks in one file; `changes` are of the U-Net."""
    net = unet(**changes)
    attends = [i for i, kind in enumerate(net.config["up_block_types"]) if kind == "CrossAttnUpBlock2D"]
    state = {_unet_name(name, attends): value for name, value in net.state_dict().items()}
    for name, value in vae().state_dict().items():
        conv = "mid_block.attentions.0.to_" in name and name.endswith("weight")
        state[_vae_name(name)] = value[:, :, None, None] if conv else value
    for name, value in text_encoder().state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, path)
    return path


def save_configs(folder: Path, **changes: Any) -> Path:
    """What stands for toolchain/sources/sd15, of the tiny networks; `changes` are of the U-Net."""
    save(folder, preview=False, **changes)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    return folder


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
