"""
GPEN (Yang et al., "GAN Prior Embedded Network for Blind Face Restoration in the Wild", CVPR 2021).

Knows the network: a StyleGAN2 generator whose noise inputs are the features of an encoder. Keys and shapes of the state
dict are upstream's, so official checkpoints load as they are. Does not know files, faces, colour spaces or engines.

Upstream builds new convolution weights for every face. Here the weights stay: modulating the input and demodulating the
output is the same function (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", section 2.2), and a
static weight can be exported, prepacked and quantised.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = math.sqrt(2.0)  # keeps the variance of a leaky ReLU with slope 0.2


@dataclass(frozen=True)
class Spec:
    """The shape of one GPEN. `widths[i]` is the channel count at 4 * 2**i pixels, up to the size of the face."""

    widths: tuple[int, ...]
    style_dim: int = 512
    n_mlp: int = 8

    @property
    def size_px(self) -> int:
        return 2 << len(self.widths)

    @classmethod
    def official(cls, size_px: int, channel_multiplier: int, share: float, style_dim: int = 512) -> Spec:
        """
        Return the widths of upstream's constructor: 512 up to 32 px, halved at each level above, times `share` (its
        `narrow`).
        """
        sizes = [2**i for i in range(2, int(math.log2(size_px)) + 1)]
        full = [512 if s <= 32 else 16384 * channel_multiplier // s for s in sizes]
        return cls(tuple(int(width * share) for width in full), style_dim)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Spec:
        """Read the shape back from a checkpoint. KeyError or IndexError: the state dict is not a GPEN's."""
        levels = 1 + max(int(m[1]) for key in state if (m := re.match(r"ecd(\d+)\.", key)))
        last = [state[f"ecd{i}.0.{1 if i else 0}.weight"].shape[0] for i in range(levels)]
        n_mlp = sum(re.fullmatch(r"generator\.style\.\d+\.weight", key) is not None for key in state)
        return cls(tuple(reversed(last)), state["final_linear.0.weight"].shape[0], n_mlp)


def fir(gain: float) -> Tensor:
    """Return the binomial low-pass [1, 3, 3, 1] in two dimensions, with the sum `gain`. (4, 4)"""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) * (gain / 64)


def activate(x: Tensor, bias: Tensor) -> Tensor:
    return F.leaky_relu(x + bias.view(1, -1, *(1,) * (x.ndim - 2)), 0.2) * GAIN


class Blur(nn.Module):
    kernel: Tensor

    def __init__(self, pad: int, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", fir(gain))
        self.pad = pad

    def forward(self, x: Tensor, ahead: bool = True) -> Tensor:
        """Blur every channel alike. `ahead`: pad right and below too; not where `up_in_phases` has done it."""
        depthwise = self.kernel.expand(x.shape[1], 1, 4, 4)
        if ahead:
            return F.conv2d(x, depthwise, padding=self.pad, groups=x.shape[1])
        return F.conv2d(F.pad(x, (self.pad, 0, self.pad, 0)), depthwise, groups=x.shape[1])


class EqualLinear(nn.Module):
    """A linear layer whose weight is stored with unit variance and scaled at run time (equalised learning rate)."""

    def __init__(self, n_in: int, n_out: int, bias: float = 0.0, rate: float = 1.0, activation: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate)
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.scale, self.rate, self.activation = rate / math.sqrt(n_in), rate, activation

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight * self.scale, self.bias * self.rate
        return activate(F.linear(x, weight), bias) if self.activation else F.linear(x, weight, bias)


class EqualConv(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.scale, self.stride = 1 / math.sqrt(c_in * kernel**2), stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, stride=self.stride)


class BiasAct(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return activate(x, self.bias)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by the style, and whose output is brought back to unit variance."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, style_dim: int, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, c_out, c_in, kernel, kernel))
        self.modulation = EqualLinear(style_dim, c_in, bias=1.0)
        self.blur = Blur(pad=1, gain=4.0) if up else None
        self.scale, self.kernel, self.demodulate = 1 / math.sqrt(c_in * kernel**2), kernel, demodulate
        self.phased = False  # set by those who export for int8

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        style, weight = self.modulation(latent), self.weight[0] * self.scale  # (B, c_in), (c_out, c_in, k, k)
        x = x * style[:, :, None, None]
        if self.blur is None:
            y = F.conv2d(x, weight, padding=self.kernel // 2)
        elif self.phased:
            y = self.blur(up_in_phases(x, weight), ahead=False)
        else:
            y = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if self.demodulate:
            y = y * torch.rsqrt(style.square() @ weight.square().sum((2, 3)).t() + 1e-8)[:, :, None, None]
        return y


def up_in_phases(x: Tensor, weight: Tensor) -> Tensor:
    """
    Compute conv_transpose2d(x, weight, stride=2) for a 3x3 kernel, with a row and a column of zeros behind it: four
    small convolutions, one for each parity of row and column, woven together. The same arithmetic, in convolutions,
    which every engine has an int8 kernel for. (B, c_in, h, w), (c_out, c_in, 3, 3) -> (B, c_out, 2 h + 2, 2 w + 2)
    """
    even, odd = [2, 0], [1]  # taps that meet even outputs (with the input before and at), and odd ones (at)
    ahead = {0: 1, 1: 0}
    phases = []
    for i, rows in enumerate((even, odd)):
        for j, columns in enumerate((even, odd)):
            padded = F.pad(x, (ahead[j], 1, ahead[i], 1))
            phases.append(F.conv2d(padded, weight[:, :, rows][:, :, :, columns]))
    batch, channels, height, width = phases[0].shape
    woven = torch.cat(phases, 1).view(batch, 2, 2, channels, height, width).permute(0, 3, 4, 1, 5, 2)
    return woven.reshape(batch, channels, 2 * height, 2 * width)


class FeatureNoise(nn.Module):
    """GPEN's change to StyleGAN2: an encoder feature, weighted, is appended to the channels instead of noise added to
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        return torch.cat((x, self.weight * feature), dim=1)


class StyledConv(nn.Module):
    def __init__(self, c_in: int, c_out: int, style_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, c_out, 3, style_dim, up=up)
        self.noise = FeatureNoise()
        self.activate = BiasAct(2 * c_out)

    def forward(self, x: Tensor, latent: Tensor, feature: Tensor) -> Tensor:
        y: Tensor = self.activate(self.noise(self.conv(x, latent), feature))
        return y


class Upsample(nn.Module):
    """
    Twice the size under the binomial low-pass, for a picture's three channels. Upstream's transposed depthwise
    convolution, written as one dense convolution that makes the four neighbours of every pixel, and a shuffle: engines
    have no fast kernel for the former.
    """

    kernel: Tensor
    dense: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", fir(4.0))  # upstream's key
        self.register_buffer("dense", dense_upsampling(fir(4.0), 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge a picture. (B, 3, h, w) -> (B, 3, 2 h, 2 w)"""
        return F.pixel_shuffle(F.conv2d(x, self.dense, padding=1), 2)


def dense_upsampling(kernel: Tensor, channels: int) -> Tensor:
    """
    Return the weight of a 3x3 convolution to (channel, row parity, column parity) which equals conv_transpose2d with
    this 4x4 kernel on each channel, stride 2 and padding 1. (4 c, c, 3, 3)
    """
    taps = (
        (slice(0, 2), [3, 1]),
        (slice(1, 3), [2, 0]),
    )  # of an even and of an odd output: inputs in a window of three
    weight = kernel.new_zeros(channels, 2, 2, channels, 3, 3)
    for i, (rows, row_taps) in enumerate(taps):
        for j, (columns, column_taps) in enumerate(taps):
            for channel in range(channels):
                weight[channel, i, j, channel, rows, columns] = kernel[row_taps][:, column_taps]
    return weight.flatten(0, 2)


class ToRGB(nn.Module):
    def __init__(self, c_in: int, style_dim: int, up: bool) -> None:
        super().__init__()
        self.upsample = Upsample() if up else None
        self.conv = ModulatedConv(c_in, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, latent: Tensor, below: Tensor | None) -> Tensor:
        y: Tensor = self.conv(x, latent) + self.bias
        return y if self.upsample is None or below is None else y + self.upsample(below)


class PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class ConstantInput(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))


class Generator(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        dim, widths = spec.style_dim, spec.widths
        mapping = [EqualLinear(dim, dim, rate=0.01, activation=True) for _ in range(spec.n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *mapping)
        self.input = ConstantInput(widths[0])
        self.conv1 = StyledConv(widths[0], widths[0], dim)
        self.to_rgb1 = ToRGB(2 * widths[0], dim, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for below, here in zip(widths, widths[1:], strict=False):
            self.convs += [StyledConv(2 * below, here, dim, up=True), StyledConv(2 * here, here, dim)]
            self.to_rgbs.append(ToRGB(2 * here, dim, up=True))

    def forward(self, latent: Tensor, features: list[Tensor]) -> Tensor:
        """Draw a face. latent (B, style_dim), features from 4x4 upwards -> (B, 3, N, N)"""
        w = self.style(latent)
        x = self.conv1(self.input.input.expand(latent.shape[0], -1, -1, -1), w, features[0])
        rgb: Tensor = self.to_rgb1(x, w, None)
        for i, to_rgb in enumerate(self.to_rgbs):
            for conv in self.convs[2 * i : 2 * i + 2]:
                x = conv(x, w, features[i + 1])
            rgb = to_rgb(x, w, rgb)
        return rgb


def encoder_level(c_in: int, c_out: int, down: bool) -> nn.Sequential:
    layers = [Blur(pad=2), EqualConv(c_in, c_out, 3, stride=2)] if down else [EqualConv(c_in, c_out, 1, stride=1)]
    return nn.Sequential(nn.Sequential(*layers, BiasAct(c_out)))


class GPEN(nn.Module):
    """(B, 3, N, N) float32 RGB in [-1, 1] -> the same, N = spec.size_px. The output is not clamped."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.levels = spec, len(spec.widths)
        down = spec.widths[::-1]
        for i, width in enumerate(down):
            self.add_module(f"ecd{i}", encoder_level(down[i - 1] if i else 3, width, down=i > 0))
        self.final_linear = nn.Sequential(EqualLinear(16 * spec.widths[0], spec.style_dim, activation=True))
        self.generator = Generator(spec)

    def forward(self, face: Tensor) -> Tensor:
        x, features = face, []
        for i in range(self.levels):
            x = self.get_submodule(f"ecd{i}")(x)
            features.append(x)
        rgb: Tensor = self.generator(self.final_linear(x.flatten(1)), features[::-1])
        return rgb
