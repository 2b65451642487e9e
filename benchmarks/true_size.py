"""
Checkpoints of the true classes and sizes with random weights, in diffusers' layout: for what can be measured without
the weights (speed, memory, bytes), and nothing else. `python -m benchmarks.true_size {sd,zimage} FOLDER`

Written in shards, as hubs keep large models; no network is ever whole in memory.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from engines.bundle import BUILT_IN
from engines.toolchain.sources.stable_diffusion import SD15

SHARD_BYTES = 2_000_000_000
LIVELY = 4.0  # a decoder's last weights are this much larger: or its pictures are grey
QWEN3_4B = {
    "vocab_size": 151936, "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32, "head_dim": 128,
    "num_key_value_heads": 8, "intermediate_size": 9728, "max_position_embeddings": 40960,
}  # fmt: skip
FLUX_VAE = {
    "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2, "use_quant_conv": False, "use_post_quant_conv": False,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    MAKE[kind](folder)


def sd(folder: Path) -> None:
    """Stable Diffusion 1.5 sampled by LCM, 1.07 billion parameters, with a taesd: 2.1 GB."""
    from diffusers import AutoencoderKL, AutoencoderTiny, LCMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shutil.copytree(SD15, folder)
    LCMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        write(partial(kind.from_config, kind.load_config(SD15 / part)), folder / part, torch.float16)
    clip = CLIPTextConfig.from_pretrained(SD15 / "text_encoder")
    write(lambda: CLIPTextModel(clip), folder / "text_encoder", torch.float16)
    write(AutoencoderTiny, folder / "preview_decoder", torch.float16)


def zimage(folder: Path) -> None:
    """Z-Image-Turbo, 6.15 billion parameters, with Qwen3-4B, FLUX.1's autoencoder and a taef1: 20.5 GB."""
    from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    folder.mkdir(parents=True)
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    shutil.copyfile(BUILT_IN / "portrait" / "tokenizer.json", folder / "tokenizer" / "tokenizer.json")
    write(ZImageTransformer2DModel, folder / "transformer", torch.bfloat16)
    write(lambda: AutoencoderKL(**FLUX_VAE), folder / "vae", torch.bfloat16)
    write(lambda: Qwen3Model(Qwen3Config(**QWEN3_4B)), folder / "text_encoder", torch.bfloat16)
    write(lambda: AutoencoderTiny(latent_channels=16), folder / "preview_decoder", torch.bfloat16)


MAKE: Mapping[str, Callable[[Path], None]] = {"sd": sd, "zimage": zimage}


def write(make: Callable[[], Any], folder: Path, dtype: torch.dtype) -> None:
    """config.json, and random weights in shards of the network that `make` builds."""
    with torch.device("meta"):
        network = make()
    of_transformers = isinstance(network, PreTrainedModel)
    network.config.save_pretrained(folder) if of_transformers else network.save_config(folder)
    name = "model" if of_transformers else "diffusion_pytorch_model"
    shards = list(_shards(network, dtype))
    index = {key: f"{name}-{i:05}-of-{len(shards):05}.safetensors" for i, keys in enumerate(shards, 1) for key in keys}
    shapes = dict(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    for i, keys in enumerate(shards, 1):
        file = f"{name}.safetensors" if len(shards) == 1 else f"{name}-{i:05}-of-{len(shards):05}.safetensors"
        state = {key: _random(key, shapes[key].shape, generator).to(dtype) for key in keys}
        save_file(state, folder / file, {"format": "pt"})
    if len(shards) > 1:
        told = json.dumps({"metadata": {}, "weight_map": index})
        (folder / f"{name}.safetensors.index.json").write_text(told)


def _shards(network: nn.Module, dtype: torch.dtype) -> Iterator[list[str]]:
    keys: list[str] = []
    total = 0
    for key, value in network.state_dict().items():
        size = value.numel() * dtype.itemsize
        if keys and total + size > SHARD_BYTES:
            yield keys
            keys, total = [], 0
        keys, total = [*keys, key], total + size
    yield keys


def _random(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Norms are ones, biases nothing, and matrices keep the size of what goes through them."""
    if len(shape) < 2:
        return torch.zeros(shape) if key.endswith("bias") else torch.ones(shape)
    scale = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator) * scale * (LIVELY if key.startswith("decoder.conv_out") else 1)


if __name__ == "__main__":
    main()
