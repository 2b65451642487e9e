"""
Peers beside us: what a picture of Stable Diffusion 1.5 costs with what people run otherwise. One checkpoint of true
size with random weights (true_size.py), 512x512 in 8 steps by LCM without guidance, each in a process of its own that
draws twice: the second time nothing is loaded, traced or compiled. By name alone, after `sd`, whose bundles it takes.

The peers are put in an environment of their own, data/bench/peers. That takes a package index, a C++ compiler for
stable-diffusion.cpp and for torch.compile, and 2 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.large import HOME, checkpoint_of
from benchmarks.timing import head
from engines import machine

PACKAGES = (
    "torch==2.13.0", "diffusers==0.39.0", "transformers==5.5.4", "accelerate", "optimum-intel[openvino]==2.2.0",
    "stable-diffusion-cpp-python==0.4.7",
)  # fmt: skip
PREFIX = "text_model."
CLASSES = {
    "scheduler": ("diffusers", "LCMScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}
# The names are functions of peer.py with their arguments.
PEERS = (
    "diffusers float32", "diffusers bfloat16", "diffusers float32 compiled", "diffusers bfloat16 compiled",
    "optimum fp32", "optimum int8", "sdcpp f16", "sdcpp q8_0",
)  # fmt: skip
OURS = ("openvino sd", "openvino sd-kv2", "ort sd", "ort sd-kv2")


def main() -> None:
    python, checkpoint = _environment(), checkpoint_of("sd")
    _describe(checkpoint)
    head(
        f"Stable Diffusion 1.5, 512x512, 8 steps, {machine.cores()} threads",
        "", "a step", "decoding", "a picture", "peak MB", "the first one",
    )  # fmt: skip
    for peer in PEERS:
        _row(peer, [python, str(Path(__file__).with_name("peer.py")), *peer.split(), str(checkpoint)])
    for ours in OURS:
        _row(f"this project: {ours}", [sys.executable, "-m", "benchmarks.peer", "ours", *ours.split(), str(HOME)])


def _environment() -> str:
    folder = HOME / "peers"
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        # Nothing here needs it, and an index that has PyTorch for CPUs may have this for another build of it.
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "torchvision"], check=True)
        (folder / "ready").touch()
    return str(python)


def _describe(checkpoint: Path) -> None:
    """
    Say which pipeline the checkpoint is of, and call the text encoder's tensors what they are called in published ones:
    stable-diffusion.cpp knows no other names.
    """
    classes = {name: list(of) for name, of in CLASSES.items()}
    index = {"_class_name": "StableDiffusionPipeline", **classes, "safety_checker": [None, None]}
    (checkpoint / "model_index.json").write_text(json.dumps({**index, "feature_extractor": [None, None]}))
    words = checkpoint / "text_encoder" / "model.safetensors"
    tensors = {f"{PREFIX}{name.removeprefix(PREFIX)}": value for name, value in load_file(words).items()}
    save_file(tensors, words, {"format": "pt"})


def _row(title: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step_s"')]
    if done.returncode or not lines:
        why = (done.stderr.strip() or "no numbers").splitlines()[-1]
        print(f"| {title} | cannot: {why[:160]} | | | | |", flush=True)
        return
    first, again = lines[0], lines[-1]
    print(
        f"| {title} | {again['step_s']:.2f} s | {again['decode_s']:.2f} s | {again['finish_s']:.1f} s "
        f"| {again['peak_mb']:.0f} | {first['finish_s'] + first['load_s']:.1f} s |",
        flush=True,
    )
