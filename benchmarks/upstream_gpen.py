"""
GPEN as upstream formulates it, for comparison: a modulated convolution builds new weights for each face and runs them
as a grouped convolution; every blur and upsampling is upstream's CPU fallback, which pads, folds channels into the
batch and convolves with one plane. The weights are those of engines/networks/gpen.py; the function is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.networks.gpen import GPEN, Blur, ModulatedConv, Upsample


def filtered(x: Tensor, kernel: Tensor, pad: tuple[int, int], up: int = 1) -> Tensor:
    """(B, c, h, w): zeros put in between, padded before and behind, convolved with the kernel turned round."""
    batch, channels, height, width = x.shape
    spread = F.pad(x.reshape(-1, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    plane = F.pad(spread.reshape(-1, 1, height * up, width * up), (*pad, *pad))
    result = F.conv2d(plane, kernel.flip(0, 1)[None, None])
    return result.view(batch, channels, *result.shape[2:])


def per_face(conv: ModulatedConv, x: Tensor, latent: Tensor) -> Tensor:
    batch, c_in, height, width = x.shape
    weight = conv.scale * conv.weight * conv.modulation(latent).view(batch, 1, c_in, 1, 1)
    if conv.demodulate:
        weight = weight * torch.rsqrt(weight.pow(2).sum((2, 3, 4)) + 1e-8).view(batch, -1, 1, 1, 1)
    joined, c_out = x.reshape(1, batch * c_in, height, width), weight.shape[1]
    if conv.blur is None:
        y = F.conv2d(joined, weight.flatten(0, 1), padding=conv.kernel // 2, groups=batch)
        return y.view(batch, c_out, *y.shape[2:])
    y = F.conv_transpose2d(joined, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
    return filtered(y.view(batch, c_out, *y.shape[2:]), conv.blur.kernel, (conv.blur.pad, conv.blur.pad))


def upstream(network: GPEN) -> GPEN:
    """A copy that computes as upstream does."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, ModulatedConv):
            _replace(module, partial(per_face, module))
        elif isinstance(module, Blur):
            _replace(module, partial(_blur, module))
        elif isinstance(module, Upsample):
            _replace(module, partial(_up, module))
    return network


def _replace(module: nn.Module, forward: Callable[..., Tensor]) -> None:
    module.forward = forward  # of this copy alone


def _blur(blur: Blur, x: Tensor) -> Tensor:
    return filtered(x, blur.kernel, (blur.pad, blur.pad))


def _up(up: Upsample, x: Tensor) -> Tensor:
    return filtered(x, up.kernel, (2, 1), 2)
