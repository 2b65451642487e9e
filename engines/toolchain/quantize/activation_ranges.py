"""
Ranges of what goes into the layers of a network, taken while PyTorch runs it: for networks that are too large to be
observed as ONNX. A layer goes by the name of its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from engines.bundle.signatures import Array
from engines.networks.session import TorchSession
from engines.toolchain.recipe import Ranges

Range = tuple[float, float]
SAMPLE = 1 << 16  # numbers that percentiles are taken of: of a whole activation they would be slow to sort
TAIL = 0.0002  # of them, on each side, 13 of SAMPLE: not measured against other shares
Look = Callable[[str, Tensor], None]


def ranges(
    session: TorchSession, feeds: Sequence[Mapping[str, Array]], weights: Collection[str], methods: Sequence[Ranges]
) -> dict[Ranges, dict[str, Range]]:
    """
    Return the ranges of the layers' inputs by every method and weight, taken in one go. "minmax": the extremes of all
    feeds; "percentile": the widest of the feeds' ranges, each without its TAILs. Layers that are no modules of PyTorch,
    or never run, have none.
    """
    by_method: dict[Ranges, dict[str, Range]] = {method: {} for method in methods}

    def look(name: str, x: Tensor) -> None:
        for method, by_weight in by_method.items():
            low, high = MEASURES[method](x)
            before = by_weight.get(name, (low, high))
            by_weight[name] = (min(low, before[0]), max(high, before[1]))

    with _watched(session.graph, weights, look):
        for fed in feeds:
            session.run(fed)
    return by_method


@contextmanager
def _watched(graph: nn.Module, weights: Collection[str], look: Look) -> Iterator[None]:
    def watch(weight: str) -> Any:
        owner = graph.get_submodule(weight.rpartition(".")[0])
        return owner.register_forward_pre_hook(lambda _, inputs: look(weight, inputs[0]))

    handles = [watch(weight) for weight in weights]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _extremes(x: Tensor) -> Range:
    low, high = x.aminmax()
    return float(low), float(high)


def _percentiles(x: Tensor) -> Range:
    sample = x.flatten()[:: max(1, x.numel() // SAMPLE)].float().sort().values
    tail = int(len(sample) * TAIL)
    return float(sample[tail]), float(sample[len(sample) - 1 - tail])


MEASURES: Mapping[Ranges, Callable[[Tensor], Range]] = {"minmax": _extremes, "percentile": _percentiles}
