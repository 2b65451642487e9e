"""
One process of peers.py: draws, and prints for each picture a line of JSON. A step is the median of the steps;
decoding is all that comes after the last one. Imports nothing of this project but to measure ours: peers run it in
their own environment.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT = "portrait of a young woman, long brown hair, smiling, white blouse, grey studio background, soft studio light"
SIDE_PX, STEPS = 512, 8
THREADS = len(os.sched_getaffinity(0))
Stepped = Callable[[], None]  # to be called after each step
Draw = Callable[[Stepped], object]


def diffusers(dtype: str, *rest: str) -> Draw:
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(THREADS)
    pipeline = StableDiffusionPipeline.from_pretrained(rest[-1], torch_dtype=getattr(torch, dtype))
    if "compiled" in rest:
        pipeline.unet.compile()
        pipeline.vae.decoder.compile()
    return _pipeline(pipeline)


def optimum(precision: str, folder: str) -> Draw:
    from optimum.intel import OVStableDiffusionPipeline

    exported = Path(folder).parent / f"optimum-{precision}"
    if not exported.is_dir():  # by another process: this one's memory is measured
        subprocess.run([sys.executable, __file__, "export", precision, folder, str(exported)], check=True)
    config = {"INFERENCE_NUM_THREADS": str(THREADS), "PERFORMANCE_HINT": "LATENCY"}
    return _pipeline(OVStableDiffusionPipeline.from_pretrained(exported, ov_config=config))


def export(precision: str, folder: str, target: str) -> None:
    """Write the peer's own form of the checkpoint: weights in 16 bits, or in 8 with float arithmetic."""
    from optimum.intel import OVStableDiffusionPipeline, OVWeightQuantizationConfig

    how = (
        {"quantization_config": OVWeightQuantizationConfig(bits=8)} if precision == "int8" else {"load_in_8bit": False}
    )
    pipeline = OVStableDiffusionPipeline.from_pretrained(folder, export=True, compile=False, **how)
    pipeline.save_pretrained(target)


def _pipeline(pipeline: Any) -> Draw:
    pipeline.set_progress_bar_config(disable=True)

    def draw(stepped: Stepped) -> object:
        def hear(_pipeline: Any, _step: int, _time: Any, values: Any) -> Any:
            stepped()
            return values

        how = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "width": SIDE_PX, "height": SIDE_PX}
        return pipeline(PROMPT, **how, callback_on_step_end=hear).images

    return draw


def sdcpp(kind: str, folder: str) -> Draw:
    """Without flash attention, which on CPUs is slower: 28 s a step instead of 11."""
    from stable_diffusion_cpp import StableDiffusion

    model = StableDiffusion(model_path=folder, wtype=kind, n_threads=THREADS, vae_decode_only=True, verbose=False)

    def draw(stepped: Stepped) -> object:
        def hear(_step: int, steps: int, _seconds: float) -> None:
            if steps == STEPS:  # and not pieces of decoding
                stepped()

        return model.generate_image(
            prompt=PROMPT,
            width=SIDE_PX,
            height=SIDE_PX,
            cfg_scale=1.0,
            sample_steps=STEPS,
            sample_method="lcm",
            progress_callback=hear,
        )

    return draw


def ours(engine: str, bundle: str, home: str) -> Draw:
    from engines.bundle import Shelf
    from engines.messages import Failed, Generate, Progress
    from engines.roles import memory
    from engines.studio import Studio

    folder = Path(tempfile.mkdtemp())
    studio = Studio(Shelf((Path(home),), Path(home) / "compiled"), folder, budget=lambda: memory.UNLIMITED)

    def draw(stepped: Stepped) -> object:
        wanted = Generate(
            PROMPT, seed=7, width=SIDE_PX, height=SIDE_PX, steps=STEPS, bundle=bundle, backend=engine, preview="off"
        )
        for event in studio.run(wanted, folder):
            if isinstance(event, Progress) and event.stage == "denoise":
                stepped()
            if isinstance(event, Failed):
                sys.exit(event.detail)
        return event

    return draw


KINDS: dict[str, Callable[..., Draw]] = {"diffusers": diffusers, "optimum": optimum, "sdcpp": sdcpp, "ours": ours}


def main() -> None:
    started = time.perf_counter()
    kind, *arguments = sys.argv[1:]
    if kind == "export":
        return export(*arguments)
    draw = KINDS[kind](*arguments)
    load_s = time.perf_counter() - started
    for _ in range(1 if kind == "sdcpp" else 2):  # it takes minutes, and compiles nothing
        print(json.dumps({**_measured(draw), "load_s": load_s}), flush=True)


def _measured(draw: Draw) -> dict[str, float]:
    moments = [time.perf_counter()]
    draw(lambda: moments.append(time.perf_counter()))
    ended = time.perf_counter()
    steps = [after - before for before, after in zip(moments[1:], moments[2:], strict=False)]
    return {
        "step_s": statistics.median(steps),
        "decode_s": ended - moments[-1],
        "finish_s": ended - moments[0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


if __name__ == "__main__":
    main()
