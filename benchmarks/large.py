"""
Models of true size with random weights: what a step, a job and a build cost, in seconds, memory and bytes on the disk.
`sd`: Stable Diffusion 1.5 by LCM, recipes lean-int8 and lean-int8-kv2. `zimage`: Z-Image-Turbo with Qwen3-4B, recipe
lean-int4.

Checkpoints and bundles are made once, in data/bench (about 35 GB for both), and used again. Each job runs in a process
of its own; a build's memory is that of its process. Pictures of random weights say nothing, likenesses little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from benchmarks import jobs, true_size
from benchmarks.timing import head, in_turn
from engines import backends, machine
from engines.bundle import Bundle
from engines.bundle.signatures import Array
from engines.roles.memory import GB
from engines.studio.proof import peak_mb
from engines.toolchain import build
from engines.toolchain.sources import FOLDERS
from engines.toolchain.sources.stable_diffusion import PARTS

HOME = Path(__file__).parents[1] / "data" / "bench"
RECIPES = {"sd": "lean-int8", "sd-kv2": "lean-int8-kv2", "zimage": "lean-int4"}
CHECKPOINTS = {"sd": "sd", "sd-kv2": "sd", "zimage": "zimage"}
BUDGETS_GB = {"sd": 1.8, "zimage": 6.5}  # what a small machine can spare
ROUNDS = 3


def sd() -> None:
    bundle, subsampled = _built("sd"), _built("sd-kv2")
    _steps("sd", {"": bundle, ", kv2": subsampled}, PARTS["denoiser"], torch.float32)
    for measured in (bundle, subsampled):
        _jobs(measured, "512x512x8", BUDGETS_GB["sd"])
        _sizes(measured)


def zimage() -> None:
    bundle = _built("zimage")
    _jobs(bundle, "512x512x8", BUDGETS_GB["zimage"])
    _steps("zimage", {"": bundle}, FOLDERS["denoiser"], torch.bfloat16)


def _built(kind: str) -> Bundle:
    """Return the bundle; build it in a process of its own, if it is not there."""
    root = HOME / kind
    if not (root / "bundle.json").is_file():
        subprocess.run([sys.executable, "-m", "benchmarks.large", kind], check=True)
    cost = json.loads((HOME / f"{kind}.json").read_text(encoding="utf-8"))
    print(f"\n{kind}: built in {cost['seconds']:.0f} s, at most {cost['peak_mb'] / 1000:.1f} GB of memory")
    _bytes(root)
    return Bundle.open(root)


def _bytes(root: Path) -> None:
    head("on the disk", "part", "GB")
    sizes = {path.name: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) for path in root.iterdir()}
    for name, size in {**{k: v for k, v in sizes.items() if v > 1e6}, "in all": sum(sizes.values())}.items():
        print(f"| {name} | {size / GB:.3f} |")


def make(kind: str) -> None:
    checkpoint, started = checkpoint_of(kind), time.perf_counter()
    if not (checkpoint / "preview_decoder").is_dir():
        true_size.MAKE[CHECKPOINTS[kind]](checkpoint)
        started = time.perf_counter()
    build.build_portrait(checkpoint, None, HOME / kind, RECIPES[kind])
    cost = {"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}
    (HOME / f"{kind}.json").write_text(json.dumps(cost), encoding="utf-8")


def checkpoint_of(kind: str) -> Path:
    return HOME / f"{CHECKPOINTS[kind]}-checkpoint"


def _steps(kind: str, bundles: Mapping[str, Bundle], folder: str, width: torch.dtype) -> None:
    """One step at 512x512: the library's own network, as people run it without us, and our engines."""
    config = json.loads((checkpoint_of(kind) / folder / "config.json").read_text(encoding="utf-8"))
    feeds = _feeds(config["in_channels"], config.get("cap_feat_dim") or config["cross_attention_dim"])
    calls: dict[str, Callable[[], object]] = {f"diffusers {width}": partial(_reference(kind, folder, width), feeds)}
    for engine in filter(lambda engine: engine.probe().ok, backends.engines()):
        if "onnx" in engine.formats:
            for name, bundle in bundles.items():
                session = engine.load(bundle, bundle.part("denoiser", engine.formats))
                calls[f"{engine.name}{name}"] = partial(session.run, feeds)
    seconds = in_turn(calls, ROUNDS)
    slowest = next(iter(seconds.values()))
    head(f"one step at 512x512, {machine.cores()} threads", "engine", "seconds", "times faster")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.2f} | {slowest / taken:.2f} |")


def _feeds(channels: int, width: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, channels, 64, 64), dtype=np.float32)
    words = rng.standard_normal((1, 77, width), dtype=np.float32)
    return {"latents": latents, "time": np.array([0.5], np.float32), "prompt": words}


def _reference(kind: str, folder: str, width: torch.dtype) -> Callable[[dict[str, Array]], object]:
    path = checkpoint_of(kind) / folder
    name = json.loads((path / "config.json").read_text(encoding="utf-8"))["_class_name"]
    network: Any = getattr(diffusers, name).from_pretrained(path, torch_dtype=width).eval()
    torch.set_num_threads(machine.cores())

    def run(feeds: dict[str, Array]) -> object:
        x, words = (torch.from_numpy(feeds[key]).to(width) for key in ("latents", "prompt"))
        moment = torch.from_numpy(feeds["time"])
        with torch.inference_mode():
            return network(x, moment, words) if kind == "sd" else network([x[0][:, None]], moment, [words[0]])

    return run


def _jobs(bundle: Bundle, job: str, budget_gb: float) -> None:
    """
    In a new process whose engines find what they compiled; "cold" counts from its start to the finished picture, beyond
    what the next one takes.
    """
    head(f"a job of {bundle.name}, {job}", "engine", "first preview", "picture", "cold start", "peak MB", "foretold")
    for engine, limit in (("openvino", 0.0), ("openvino", budget_gb), ("ort", 0.0)):
        jobs.apart(bundle.root, engine, job)  # compiles
        started = time.time()
        first, again = jobs.apart(bundle.root, engine, job, job, budget_gb=limit)
        cold_s, title = first.ended - started - again.finish_s, f"{engine}, {limit} GB" if limit else engine
        print(
            f"| {title} | {again.look_s:.1f} s | {again.finish_s:.1f} s | {cold_s:.1f} s "
            f"| {again.peak_mb:.0f} | {first.foretold} |"
        )


def _sizes(bundle: Bundle) -> None:
    head(f"{bundle.name} by size and steps, openvino", "size", "4 steps", "8 steps", "peak MB")
    for side in (512, 768, 1024):
        four, eight = (f"{side}x{side}x{steps}" for steps in (4, 8))
        _, short, long = jobs.apart(bundle.root, "openvino", four, four, eight)
        print(f"| {side}x{side} | {short.finish_s:.1f} s | {long.finish_s:.1f} s | {long.peak_mb:.0f} |")


if __name__ == "__main__":
    make(sys.argv[1])
