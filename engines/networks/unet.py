"""
Stable Diffusion's U-Net with the denoiser's signature, for running and for export: diffusers' UNet2DConditionModel, of
which two things are changed that would tie a graph to the size of its example. Knows nothing of schedules.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ANY_SIZE = 32  # no side of a picture is a multiple of 2 to the power of this


class UNetGraph(nn.Module):
    def __init__(self, unet: Any) -> None:
        """Wrap diffusers' network. ValueError: it is a U-Net of another pipeline, which wants more than words."""
        super().__init__()
        config = unet.config
        if config.in_channels != config.out_channels:
            raise ValueError(f"it takes {config.in_channels} channels and gives {config.out_channels}: not for drawing")
        if foreign := [
            name for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config[name]
        ]:
            raise ValueError(f"{foreign[0]} is {config[foreign[0]]}: no Stable Diffusion 1 or 2")
        self.net, self.guidance_width = unet, config.time_cond_proj_dim
        # diffusers hands sizes down only where a side is no multiple of 2 ** num_upsamplers: from now on always
        unet.num_upsamplers = ANY_SIZE
        for block in unet.up_blocks:
            if block.upsamplers is not None:
                block.upsamplers = nn.ModuleList(Enlarge(upsampler.conv) for upsampler in block.upsamplers)

    def forward(self, latents: Tensor, time: Tensor, prompt: Tensor, guidance: Tensor | None = None) -> Tensor:
        """latents (1, C, h, w), time (1,) in training steps, prompt (1, T, D), guidance (1,) -> (1, C, h, w)"""
        if (guidance is None) != (self.guidance_width is None):
            raise TypeError("this network is told no guidance" if guidance is not None else "guidance is missing")
        embedded = None if guidance is None else guidance_embedding(guidance, self.guidance_width).to(latents)
        out: Tensor = self.net(latents, time, prompt, timestep_cond=embedded, return_dict=False)[0]
        return out


class Enlarge(nn.Module):
    """Upsample2D to a given size, without its questions about how many numbers there are."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        enlarged: Tensor = self.conv(F.interpolate(x, size=output_size, mode="nearest"))
        return enlarged


def guidance_embedding(guidance: Tensor, width: int) -> Tensor:
    """Return sines and cosines as StableDiffusionPipeline.get_guidance_scale_embedding does. (1,) -> (1, width)"""
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=guidance.device)
    frequencies = torch.exp(places * -(math.log(10000.0) / (half - 1)))
    angles = guidance[:, None] * 1000.0 * frequencies
    return F.pad(torch.cat((angles.sin(), angles.cos()), 1), (0, width % 2))
