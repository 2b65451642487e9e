"""
How much cheaper the tiny decoder is than the full one, on one engine, at 512x512: at the true sizes of Z-Image's
autoencoder and of taef1 with random weights, of Stable Diffusion's and of taesd, and those of the built-in bundle.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from benchmarks.timing import head, in_turn
from engines import backends, machine
from engines.bundle import BUILT_IN, Bundle, Part, Precision, Role, Shelf
from engines.networks.autoencoder import DecoderGraph
from engines.toolchain.export import example, export

SIDE_PX = 512
KL = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
ENGINES: tuple[tuple[str, Precision], ...] = (("openvino", "bf16"), ("ort", "fp32"))


def main() -> None:
    title = f"{SIDE_PX}x{SIDE_PX}, {machine.cores()} threads"
    head(title, "decoders", "engine", "full", "tiny", "times cheaper")
    for name, channels in (("Z-Image's and taef1", 16), ("Stable Diffusion's and taesd", 4)):
        with tempfile.TemporaryDirectory() as folder:
            bundle = _true_size(channels, Path(folder))
            for engine, precision in ENGINES:
                _row(name, bundle, engine, precision, channels, 8)
    bundle = Shelf((BUILT_IN,)).open("portrait")
    for engine, precision in ENGINES:
        _row("built-in", bundle, engine, precision, 16, 16)


def _row(name: str, bundle: Bundle, engine: str, precision: Precision, channels: int, stride: int) -> None:
    side = SIDE_PX // stride
    feeds = {"latents": np.random.default_rng(0).standard_normal((1, channels, side, side), dtype=np.float32)}
    roles: tuple[Role, ...] = ("decoder", "preview_decoder")
    parts = {role: Part(role, role, "onnx", precision, "", "") for role in roles}
    sessions = {role: backends.engine(engine).load(replace(bundle, cache=None), part) for role, part in parts.items()}
    seconds = in_turn({role: partial(session.run, feeds) for role, session in sessions.items()}, 5)
    full, tiny = seconds["decoder"], seconds["preview_decoder"]
    print(f"| {name} | {engine} {precision} | {full:.3f} s | {tiny:.4f} s | {full / tiny:.1f} |")


def _true_size(channels: int, folder: Path) -> Bundle:
    torch.manual_seed(0)
    full = AutoencoderKL(latent_channels=channels, norm_num_groups=32, **KL)
    tiny = AutoencoderTiny(latent_channels=channels)
    networks: dict[Role, torch.nn.Module] = {"decoder": full, "preview_decoder": tiny}
    for role, network in networks.items():
        (folder / role).mkdir()
        graph = DecoderGraph(network.eval().requires_grad_(False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export(graph, role, example(role, {"C": channels}), folder / role / "model.onnx")
    return Bundle("decoders", "zimage", folder, ())
