"""
What the restorer is punished for: faithful first (reconstruction), then the look of fine texture (a small patch
discriminator).

Knows tensors in [-1, 1]. Does not know the restorer, optimisers or data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from engines import faces


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def attention(size_px: int, around: float) -> Tensor:
    """
    What each pixel weighs: of a restored crop only the oval of the face is put back (faces.face_mask), so the rest
    need not be as good. `around`: the weight far from the face, against 1 on it. Mean one; (1, 1, size_px, size_px)
    """
    oval = torch.from_numpy(faces.face_mask(faces.template(size_px), size_px))[None, None]
    weight = around + (1 - around) * oval
    return weight / weight.mean()


def log_error(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of ln(MSE) per picture: PSNR up to a factor, so easy and hard pictures weigh the same."""
    squares = (weight * error.square()).flatten(1).mean(1)  # (B,)
    return torch.log(squares + 1e-4).mean()


def reconstruction(restored: Tensor, truth: Tensor, psnr_weight: float, weight: Tensor) -> Tensor:
    """Weighed L1 on pixels, slopes and two poolings (colour and large shapes), and the PSNR term."""
    error = restored - truth
    loss = (weight * error).abs().mean()
    for slope, there in zip(slopes(error), (weight[..., 1:], weight[..., 1:, :]), strict=True):
        loss = loss + (there * slope).abs().mean()
    for factor in (2, 4):
        loss = loss + 0.5 * (F.avg_pool2d(weight, factor) * F.avg_pool2d(error, factor)).abs().mean()
    return loss + psnr_weight * log_error(error, weight)


class PatchDiscriminator(nn.Module):
    """
    Judges patches of 38 px, one score each; high is real. It sees texture, not identity, which is what it is for.

    Spectral normalisation (Miyato et al. 2018) keeps it smooth. `forward` also gives the features, for matching.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        plan = [(3, width, 4, 2), (width, 2 * width, 4, 2), (2 * width, 3 * width, 4, 2), (3 * width, 3 * width, 3, 1)]
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, k, s, padding=1)) for a, b, k, s in plan)
        self.score = spectral_norm(nn.Conv2d(3 * width, 1, 1))

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = picture, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x), features


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss (Lim & Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Distance of discriminator features from the truth's (Wang et al., pix2pixHD, 2018): texture of the right kind."""
    terms = [(a - b.detach()).abs().mean() for a, b in zip(fake, real, strict=True)]
    return torch.stack(terms).mean()
