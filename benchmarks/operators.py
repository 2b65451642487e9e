"""
Where a network's time goes on OpenVINO: by kind of operator, the share of the time, the arithmetic done in it, and how
near that comes to the most that this machine does in float32 or, where the part is reduced, in its narrowest float: a
large matrix product by the same library. Eight bits do up to twice as much as bf16 with VNNI or AMX.

The built-in portrait's parts; and those of the true-size Stable Diffusion, where `sd` has built them. Arithmetic counts
two for a multiplication and its addition, in convolutions and products. What a graph's FakeQuantize, norms and
activations do is time without arithmetic here: it moves numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino

from benchmarks.large import HOME
from benchmarks.timing import head
from engines import machine
from engines.backends.openvino_backend import reduced_precision
from engines.bundle import BUILT_IN, Bundle, Part, Shelf
from engines.bundle.signatures import Array

SIDE_PX = 512
ROUNDS = 3
LEAST = 0.01  # of the time: less is summed up
# What OpenVINO calls the operators that multiply. Attention is among its Subgraphs, with what else it joins: its rate
# is that at least.
MULTIPLY = {"Convolution": "Conv", "FullyConnected": "MatMul", "MatMul": "attention", "Subgraph": "attention"}
PEAK_SIDE = 2048


def main() -> None:
    portrait = Shelf((BUILT_IN,)).open("portrait")
    bundles = [
        portrait,
        *(Bundle.open(HOME / name) for name in ("sd", "sd-kv2") if (HOME / name / "bundle.json").is_file()),
    ]
    peaks = {kind: _peak(kind) for kind in sorted({"f32", reduced_precision()})}
    said = ", ".join(f"{kind} {rate / 1e9:.0f} GFLOP/s" for kind, rate in peaks.items())
    print(f"\n{machine.cores()} threads; the largest product by OpenVINO: {said}")
    for bundle in bundles:
        for role in ("denoiser", "decoder", "preview_decoder"):
            part = bundle.part(role, frozenset({"onnx"}))
            precision = reduced_precision() if part.precision != "fp32" else "f32"
            _table(bundle, part, precision, peaks[precision])


def _table(bundle: Bundle, part: Part, precision: str, peak: float) -> None:
    path, feeds = bundle.graph(part), _feeds(bundle, part)
    times = _times(path, feeds, precision)
    total, work = sum(times.values()), _arithmetic(path, feeds)
    head(
        f"{bundle.name}/{part.file}, {SIDE_PX}x{SIDE_PX}, {precision}: {total * 1000:.0f} ms, "
        f"{sum(work.values()) / 1e9:.0f} GFLOP",
        "operator", "kernel", "ms", "share", "of the largest product's rate",
    )  # fmt: skip
    rest = 0.0
    for (kind, kernel), seconds in times.most_common():
        if seconds < LEAST * total:
            rest += seconds
            continue
        print(f"| {kind} | {kernel} | {seconds * 1000:.1f} | {seconds / total:.0%} | |")
    print(f"| others | | {rest * 1000:.1f} | {rest / total:.0%} | |")
    for name, flop in work.items():
        seconds = sum(taken for (kind, _), taken in times.items() if MULTIPLY.get(kind) == name)
        if seconds > 2 * LEAST * total:
            print(f"| all {name} | | {seconds * 1000:.1f} | {seconds / total:.0%} | {flop / seconds / peak:.2f} |")


def _feeds(bundle: Bundle, part: Part) -> dict[str, Array]:
    sampling, rng = bundle.need(bundle.sampling, "sampling"), np.random.default_rng(0)
    side = SIDE_PX // sampling.latent_stride
    feeds: dict[str, Array] = {
        "latents": rng.standard_normal((1, sampling.latent_channels, side, side), dtype=np.float32)
    }
    if part.role == "denoiser":
        graph = onnx.load(bundle.graph(part), load_external_data=False).graph
        width = next(value for value in graph.input if value.name == "prompt").type.tensor_type.shape.dim[-1].dim_value
        feeds |= {"time": np.array([0.5], np.float32), "prompt": rng.standard_normal((1, 77, width), dtype=np.float32)}
    return feeds


def _compiled(model: Any, precision: str) -> Any:
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": machine.cores(), "PERF_COUNT": True}
    return openvino.Core().compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": precision})


def _times(path: Path, feeds: Mapping[str, Array], precision: str) -> Counter[tuple[str, str]]:
    """Return seconds by operator and kernel, of the fastest of some runs."""
    request, best = _compiled(path, precision).create_infer_request(), Counter[tuple[str, str]]()
    for _ in range(1 + ROUNDS):
        request.infer(dict(feeds))
        times = Counter[tuple[str, str]]()
        for node in request.profiling_info:
            times[node.node_type, node.exec_type] += node.real_time.total_seconds()
        best = times if not best or times.total() < best.total() else best
    return best


def _arithmetic(path: Path, feeds: Mapping[str, Array]) -> Counter[str]:
    """Return the arithmetic by what does it, from the graph's shapes with these feeds."""
    model, done = openvino.Core().read_model(path), Counter[str]()
    model.reshape({name: array.shape for name, array in feeds.items()})
    for node in model.get_ordered_ops():
        kind, made = node.get_type_name(), 2 * math.prod(node.get_output_shape(0)) if node.get_output_size() else 0
        if kind == "Convolution":
            done["Conv"] += made * math.prod(node.get_input_shape(1)[1:])
        if kind == "MatMul":  # weights are matrices, keys and values have heads
            name = "MatMul" if len(node.get_input_shape(1)) == 2 else "attention"
            done[name] += made * node.get_input_shape(0)[-1]
    return done


def _peak(precision: str) -> float:
    """Return operations a second of a large product of matrices in this type."""
    rng = np.random.default_rng(0)
    a = openvino.opset13.parameter([PEAK_SIDE, PEAK_SIDE], np.float32)
    weight = openvino.opset13.constant(rng.standard_normal((PEAK_SIDE, PEAK_SIDE), dtype=np.float32))
    model = openvino.Model([openvino.opset13.matmul(a, weight, False, False)], [a])
    request = _compiled(model, precision).create_infer_request()
    fed, seconds = [rng.standard_normal((PEAK_SIDE, PEAK_SIDE), dtype=np.float32)], []
    for _ in range(1 + 2 * ROUNDS):
        request.infer(fed)
        seconds.append(
            sum(n.real_time.total_seconds() for n in request.profiling_info if n.node_type == "FullyConnected")
        )
    return float(2 * PEAK_SIDE**3 / min(seconds[1:]))
