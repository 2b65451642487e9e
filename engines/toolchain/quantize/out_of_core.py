"""
A role whose network is large: from its weights on the disk to a quantised graph, without the network ever being whole
in float32 (external_data.py). Layers are not tried one by one, which would take days, but what comes out is measured
as for small ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import Tensor, nn

from engines.bundle import Bundle, Part
from engines.bundle.signatures import Array
from engines.machine import cores
from engines.networks.graphs import open_graph
from engines.networks.session import TorchSession
from engines.toolchain.export import export_hollow
from engines.toolchain.quantize import Outcome, activation_ranges, external_data, opened, output_db, output_of
from engines.toolchain.quantize.rewrites import rewritten
from engines.toolchain.recipe import Treatment
from engines.toolchain.steps import Say

Feeds = Mapping[str, Array]
LayerRanges = Mapping[str, activation_ranges.Range]


@dataclass(frozen=True)
class OutOfCore:
    """
    `part` is what PyTorch reads of the `bundle`, in the width it computes in. `example` are feeds to trace with,
    `feeds` those to calibrate with, of which the last quarter (one at least) is held out.
    """

    bundle: Bundle
    part: Part
    how: Treatment
    example: Mapping[str, Tensor]
    feeds: Sequence[Feeds]

    def quantize(self, target: Path, say: Say) -> Outcome:
        """Write `target` and its weights beside it; of several ways to take ranges the best is left."""
        graph = rewritten(open_graph(self.bundle, self.part, None), self.how)
        try:
            return self._quantized(graph, target, say)
        finally:
            _release(graph)

    def _quantized(self, graph: nn.Module, target: Path, say: Say) -> Outcome:
        model = export_hollow(graph, self.part.role, self.example)
        weights = {name: parameter.data for name, parameter in graph.named_parameters()}
        chosen = [layer.weight for layer in external_data.layers(model, self.how.ops)]
        by_method, wanted = self._watch(chosen, say)
        compared: dict[str, float] = {}
        for name, ranges in by_method.items():
            attempt = target.parent / (name or "made") / target.name
            attempt.parent.mkdir()
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            external_data.write(copy, weights, attempt, self.how, ranges)
            trial = opened(attempt)
            compared[name] = min(output_db(output_of(trial, fed), want) for fed, want in wanted)
            say(f"{len(chosen)} layers, {name or self.how.quantize}: {compared[name]:.1f} dB")
            if compared[name] == max(compared.values()):
                for file in attempt.parent.iterdir():
                    file.replace(target.parent / file.name)
            shutil.rmtree(attempt.parent)
        best = max(compared, key=lambda key: compared[key])
        shown = {key: round(value, 1) for key, value in compared.items()}
        return Outcome(len(chosen), len(chosen), best, shown, shown[best])

    def _watch(self, layers: Sequence[str], say: Say) -> tuple[dict[str, LayerRanges], list[tuple[Feeds, Array]]]:
        """Return the ranges by every method, and what the network, unchanged, makes of the feeds that are held out."""
        held_out = max(1, len(self.feeds) // 4)
        calibration, checks = self.feeds[:-held_out] or self.feeds, self.feeds[-held_out:]
        session = TorchSession.open(self.bundle, self.part, cores())
        try:
            methods = [name for name in self.how.ranges if name in activation_ranges.MEASURES]
            static = self.how.quantize == "static"
            measured = activation_ranges.ranges(session, calibration, layers, methods) if static else {}
            by_method: dict[str, LayerRanges] = {str(name): ranges for name, ranges in measured.items()} or {"": {}}
            say(f"looked at {len(layers)} layers")
            return by_method, [(fed, next(iter(session.run(fed).values()))) for fed in checks]
        finally:
            session.close()


def _release(graph: nn.Module) -> None:
    """
    Free the weights of `graph`, which are gigabytes. Libraries that trace and optimise keep parameters in cycles and in
    their own memory (collecting garbage and emptying the exporter's graph was tried): the file stayed mapped with the
    next part.
    """
    for parameter in graph.parameters():
        parameter.data = parameter.data.new_empty(0)
