"""Several things timed in turn, round by round, so that a machine whose speed drifts drifts for all; and tables."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]
PAUSE_S = 0.2  # before each call: threads of the one before, which wait for more work by spinning, have given up


def in_turn(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def head(title: str, *columns: str) -> None:
    """A title and the top of a Markdown table; rows are the caller's."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
