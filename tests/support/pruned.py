"""Denoisers to prune and to teach: networks wide enough for it, and bundles being built from them. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import ZImageTransformer2DModel
from torch import nn

from engines.bundle import Bundle
from engines.networks.graphs import open_graph
from engines.toolchain import build, sources, steps
from engines.toolchain.build import BuildOptions
from engines.toolchain.compress import prune
from engines.toolchain.quantize import calibration
from engines.toolchain.recipe import Recipe
from tests.support import builds, tiny, tiny_sd

RATIO = 0.3
FAMILIES = ("zimage", "sd")


def network(family: str) -> Any:
    """Wide enough that what is cut is most of it, as in a network that somebody uses."""
    if family == "sd":
        return tiny_sd.unet(block_out_channels=(16, 16, 16, 16), attention_head_dim=4, norm_num_groups=8)
    net = ZImageTransformer2DModel(
        in_channels=tiny.LATENT_CHANNELS, dim=96, n_layers=3, n_refiner_layers=1, n_heads=6, n_kv_heads=6,
        cap_feat_dim=24, axes_dims=[4, 6, 6], axes_lens=[640, 64, 64],
    )  # fmt: skip
    return tiny.randomise(net, 1.0, seed=21)


def save(family: str, folder: Path, net: Any = None) -> Path:
    """What a bundle is built from."""
    if family == "sd":
        tiny_sd.save(folder)
    else:
        tiny.save_portrait(folder)
    (net or network(family)).save_pretrained(folder / ("unet" if family == "sd" else "transformer"))
    return folder


def make(base: Path, out: Path, recipe: str = "", **options: Any) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        builds.lighten(patch)
        return build.build_portrait(base, base / "about.toml", out, recipe, options=BuildOptions(**options))


def begin(base: Path, out: Path, recipe: str = "edge-fp32") -> Bundle:
    """A bundle being built, whose weights are stored and nothing more."""
    builder = build.Builder(sources.portrait(base, base / "about.toml"), Recipe.read(recipe), out, build.BuildOptions())
    steps.resume(builder.work, "these")
    for role in builder.source.parts:
        builder._store(role, print)
    return builder.draft.bundle()


def cut(bundle: Bundle, ratio: float) -> Bundle:
    prune.denoiser(bundle, ratio, calibration.PROMPTS[:3], print)
    return bundle


def now(bundle: Bundle) -> nn.Module:
    """The denoiser of a bundle being built."""
    return open_graph(bundle, prune.pruned())
