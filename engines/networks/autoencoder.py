"""
The decoders of diffusers' AutoencoderKL and AutoencoderTiny, and the first one's encoder, with their roles' signatures.
Latent scaling is the caller's.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle


class DecoderGraph(nn.Module):
    """
    latents (1, C, h, w) -> image (1, 3, H, W) in about [-1, 1]. A decoder that gives 3 n^2 channels has n x n pixels in
    each cell (sub-pixel convolution, Shi et al. 2016): what others compute at full size costs more than all the rest.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.cell_px = math.isqrt(autoencoder.config.out_channels // 3)
        self.post_quant_conv = getattr(autoencoder, "post_quant_conv", None)
        self.decoder = autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        x = latents if self.post_quant_conv is None else self.post_quant_conv(latents)
        image: Tensor = self.decoder(x)
        return pixel_shuffle(image, self.cell_px) if self.cell_px > 1 else image


class EncoderGraph(nn.Module):
    """
    image (1, 3, H, W) in [-1, 1] -> latents (1, C, h, w): the mean of those that the autoencoder draws from, so that a
    photo has one latent.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = autoencoder.encoder, autoencoder.quant_conv

    def forward(self, image: Tensor) -> Tensor:
        moments = self.encoder(image)
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        mean: Tensor = moments.chunk(2, dim=1)[0]
        return mean
