"""
Stable Diffusion's U-Net with the denoiser's signature, for running and for export: diffusers' UNet2DConditionModel, of
which two things are changed that would tie a graph to the size of its example; and, where that is asked for, attention
with fewer keys. Knows nothing of schedules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.")
SUBSAMPLED_SIZES = 2  # the largest ones
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
        self.with_grid = False
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
        grid = {"cross_attention_kwargs": {"grid": latents.shape[-2:]}} if self.with_grid else {}
        out: Tensor = self.net(latents, time, prompt, timestep_cond=embedded, return_dict=False, **grid)[0]
        return out

    def subsample_keys(self, stride: int) -> None:
        """
        From now on, let pixels attend at the two largest sizes, where attention costs most, to every `stride`-th row
        and column alone: token downsampling, https://arxiv.org/abs/2402.13573, which needs no training.
        """
        from diffusers.models.attention_processor import AttnProcessor2_0

        attend, names = AttnProcessor2_0(), self.net.attn_processors
        self.net.set_attn_processor({name: SubsampledKeys(attend, self._halvings(name), stride) for name in names})
        self.with_grid = True

    def _halvings(self, name: str) -> int:
        """Return how often the latents' sides are halved where the attention processor of this name is."""
        place, smallest = PLACE.match(name), len(self.net.up_blocks) - 1
        if place is None:
            return smallest
        return int(place[2]) if place[1] == "down" else smallest - int(place[2])


@dataclass(frozen=True)
class SubsampledKeys:
    """
    An attention processor for diffusers, before another one. `halvings`: how often the latents' `grid` of rows and
    columns was halved.
    """

    attend: Callable[..., Tensor]
    halvings: int
    stride: int

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None, grid: Any, **kwargs: Any) -> Tensor:
        """Attend from all tokens of x (B, rows * columns, C) to some of them, or to other ones, which are all used."""
        if encoder_hidden_states is None and self.halvings < SUBSAMPLED_SIZES:
            rows = x.reshape(len(x), grid[0] >> self.halvings, -1, x.shape[-1])
            encoder_hidden_states = rows[:, :: self.stride, :: self.stride].flatten(1, 2)
        return self.attend(attn, x, encoder_hidden_states, **kwargs)


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
