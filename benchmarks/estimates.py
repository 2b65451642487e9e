"""
How good the estimates are that who waits is shown: `python -m benchmarks.estimates [--jobs N] [--seed SEED]`.

Portraits of varied steps, sizes and counts are drawn with the built-in model, a few submitted at one time, by a worker
in this process; what the queue foretold of each when it was submitted is held against when it was done. Wants a quiet
machine: whatever else runs is in the truth and not in the estimate.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import head
from engines.bundle import BUILT_IN, Shelf
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Final, Generate
from engines.studio import Studio
from engines.worker.loop import Worker

PROMPT = "portrait of a young woman, long brown hair, smiling"
STEPS, COUNTS = (4, 6, 8, 8, 8, 12, 20), (1, 1, 1, 2, 4)
SIZES = ((512, 512), (512, 512), (384, 512), (256, 256))
AT_ONCE = (1, 1, 2, 3)  # how many are submitted together
GOAL = 0.25  # how far off an estimate may be, as a share of the truth
JOBS, SEED = 60, 1
BACKEND = "edge"


@dataclass(frozen=True)
class Foretold:
    """`ahead`: how many were. `eta_s` None: nothing was foretold."""

    ahead: int
    eta_s: float | None
    took_s: float

    @property
    def off(self) -> float | None:
        return None if self.eta_s is None else abs(self.eta_s - self.took_s) / self.took_s


def main(jobs: int = JOBS, seed: int = SEED) -> None:
    results: list[Foretold] = []
    with _queue() as queue:
        dice = random.Random(seed)
        while len(results) < jobs:
            requests = [_request(dice) for _ in range(min(dice.choice(AT_ONCE), jobs - len(results)))]
            results += _draw(queue, requests)
    _report(results, seed)


def _request(dice: random.Random) -> Generate:
    width, height = dice.choice(SIZES)
    steps, count, seed = dice.choice(STEPS), dice.choice(COUNTS), dice.randrange(1000)
    return Generate(PROMPT, width=width, height=height, steps=steps, count=count, seed=seed, backend=BACKEND)


@contextmanager
def _queue() -> Iterator[SqliteQueue]:
    """A queue that is worked off."""
    with tempfile.TemporaryDirectory() as folder:
        home, shelf = Path(folder), Shelf((BUILT_IN,))
        queue = SqliteQueue(home / "jobs.db", home / "outputs")
        worker = Worker(queue, Studio(shelf, home), shelf, BACKEND)
        worker.start()
        while queue.status().state == "loading":
            time.sleep(0.05)
        try:
            yield queue
        finally:
            worker.stop(60)
            queue.close()


def _draw(queue: SqliteQueue, requests: list[Generate]) -> list[Foretold]:
    names = queue.submit_all(requests)
    submitted, places = time.perf_counter(), [queue.place(name) for name in names]
    results = []
    for name, place in zip(names, places, strict=True):
        *_, last = queue.follow(name)
        assert isinstance(last, Final), last
        results.append(Foretold(place.ahead, place.eta_s, time.perf_counter() - submitted))
    return results


def _report(results: list[Foretold], seed: int) -> None:
    columns = ("jobs", "foretold", f"within {GOAL:.0%}", "median off", "9 in 10 off by less than")
    head(f"Estimates at submission, seed {seed}, {BACKEND}", *columns)
    _row("all", results)
    _row("the second half", results[len(results) // 2 :])
    _row("with others ahead", [result for result in results if result.ahead])


def _row(title: str, results: list[Foretold]) -> None:
    off = sorted(result.off for result in results if result.off is not None)
    if not off:
        print(f"| {title}: {len(results)} | 0 | | | |")
        return
    within = sum(share <= GOAL for share in off)
    middle, nine = statistics.median(off), off[min(len(off) - 1, int(0.9 * len(off)))]
    shares = f"{within} ({within / len(off):.0%}) | {middle:.0%} | {nine:.0%}"
    print(f"| {title}: {len(results)} | {len(off)} | {shares} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--seed", type=int, default=SEED)
    main(**vars(parser.parse_args()))
