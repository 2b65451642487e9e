"""
Which recipe fits a machine, and how much disk a bundle takes, by what the worker says: of engines, of bundles that were
measured, of models of the catalogue. Arithmetic over a Status; no Gradio, no queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engines.errors import Fact
from engines.messages import Recipe
from engines.messages.status import Choice, Model, Status

# In the order in which they are offered: balanced, exact, fast and small, for NVIDIA's GPUs.
ORDER: tuple[Recipe, ...] = (
    "edge-bf16", "edge-fp32", "edge-int8", "edge-int4", "lean-int8", "lean-int8-kv2", "lean-int4", "trt-fp16",
    "trt-int8",
)  # fmt: skip
USUAL: Recipe = "edge-bf16"
OF_PRECISION: Mapping[str, Recipe] = {
    "bf16": "edge-bf16", "fp16": "edge-bf16", "fp32": "edge-fp32", "int8": "edge-int8", "int4": "edge-int4",
}  # fmt: skip
# What a bundle takes of its source, were that in 32 bits: stored weights and those of the graphs, where nothing but
# matrices is made narrow, and where nothing is. A source in 16 bits holds twice as many numbers.
SHARES: Mapping[Recipe, tuple[float, float]] = {
    "edge-fp32": (1.0, 1.0), "edge-bf16": (0.5, 0.5), "edge-int8": (0.75, 1.25), "edge-int4": (0.64, 1.2),
    "lean-int8": (0.25, 0.4), "lean-int8-kv2": (0.25, 0.4), "lean-int4": (0.14, 0.3), "trt-fp16": (0.5, 1.0),
    "trt-int8": (0.75, 1.25),
}  # fmt: skip
OF_16_BITS = 2


@dataclass(frozen=True)
class Advice:
    """A recipe, and why it fits: a key of the locales with its facts."""

    recipe: Recipe
    why: str
    facts: Mapping[str, Fact]


def split(source: str | None) -> tuple[str, str]:
    """Return kind and name of what is to be built from, as the form sends it: "portrait:z-image"."""
    kind, _, name = (source or "").partition(":")
    return kind, name


def advised(status: Status, kind: str, source: str) -> Advice:
    """Return the recipe that fits this machine, whatever was measured or told of it; else the one that harms nobody."""
    gpu = next((engine for engine in status.engines if engine.name == "tensorrt" and engine.ok), None)
    if gpu is not None:
        return Advice("trt-fp16", "build_why_gpu", {"device": gpu.device})
    model = model_of(status, source)
    if model is not None and (recipe := next((name for name in ORDER if name == model.recipe), None)):
        return Advice(recipe, "build_why_large", {"memory": f"{model.memory_gb:g}"})
    if (fastest := _fastest(status, kind)) is not None and fastest.verdict is not None:
        facts = {"engine": fastest.engine, "precision": fastest.precision, "seconds": f"{fastest.verdict.finish_s:.3g}"}
        return Advice(OF_PRECISION[fastest.precision], "build_why_measured", facts)
    choice = next((c for c in _choices(status) if c.precision == "bf16" and c.state != "unavailable"), None)
    return (
        Advice(USUAL, "build_why_bf16", {"engine": choice.engine}) if choice else Advice(USUAL, "build_why_usual", {})
    )


def model_of(status: Status, source: str) -> Model | None:
    """Return the model of the catalogue that a source is. None: it came from elsewhere."""
    return next((entry.model for entry in status.models if entry.model.target == source), None)


def _choices(status: Status, kind: str = "") -> Iterator[Choice]:
    for bundle in status.bundles:
        if not kind or bundle.kind == kind:
            yield from bundle.choices


def _fastest(status: Status, kind: str) -> Choice | None:
    """
    Return the fastest way in which a bundle of this kind was measured here. None: no bundle was in two precisions, so
    that nothing could be compared.
    """
    for bundle in status.bundles:
        accepted = [c for c in bundle.choices if c.state == "accepted" and c.precision in OF_PRECISION]
        timed = [choice for choice in accepted if choice.verdict and choice.verdict.finish_s]
        if bundle.kind == kind and len({choice.precision for choice in timed}) > 1:
            return min(timed, key=lambda choice: choice.verdict.finish_s if choice.verdict else 0.0)
    return None


def disk_gb(status: Status, kind: str, source: str, recipe: Recipe) -> tuple[float, float] | None:
    """
    Return how many GB the bundle takes, at least and at most; both are the same where the catalogue says it. None: how
    large the source is was not told.
    """
    model = model_of(status, source)
    if model is not None and model.recipe == recipe:
        return model.disk_gb, model.disk_gb
    sizes_mb = dict(zip(status.sources, status.source_mb, strict=False))
    size_mb = next((mb for (of, name), mb in sizes_mb.items() if (of, name) == (kind, source)), 0.0)
    low, high = SHARES[recipe]
    return (low * size_mb / 1000, OF_16_BITS * high * size_mb / 1000) if size_mb else None
