"""The decoders of diffusers' AutoencoderKL and AutoencoderTiny with the decoder's signature. Latent scaling is the
caller's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class DecoderGraph(nn.Module):
    """latents (1, C, h, w) -> image (1, 3, H, W) in about [-1, 1]"""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.post_quant_conv = getattr(autoencoder, "post_quant_conv", None)
        self.decoder = autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        x = latents if self.post_quant_conv is None else self.post_quant_conv(latents)
        image: Tensor = self.decoder(x)
        return image
