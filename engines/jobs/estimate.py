"""
How long a job will take, by the proof of its engine and by what earlier jobs took: arithmetic over measurements. Knows
requests, and what a worker says of its bundles; no queue and no clock. What nothing like it was ever measured of has no
estimate.

A job takes `pace` times what its parts cost (engines.jobs.costs). Where a proof has measured the parts, these are
seconds, and the pace is what real jobs of this bundle and engine took beside them. Elsewhere costs are looked for as
multiples of a run of the denoiser: those with which the ratios of seconds to work differ least from each other. The
pace is the median of these ratios. A median, and of two the smaller: a job that had to load a model first took longer
than it says of the others, and none takes less than its work. The proof counts as a job, so one such job spoils
nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from engines.jobs import Estimate
from engines.jobs.costs import Costs, Proved, proved
from engines.jobs.work import Work, likeness, work_of
from engines.messages import Generate, Request
from engines.messages.status import BundleStatus

REMEMBERED = 60  # runs of a kind: an afternoon's, and as many as are looked through in a few milliseconds
REMEMBERED_ESTIMATES = 1000  # of settings that somebody looked at
SAME_SIZE = 3  # runs at the very size say more than others at other sizes
TO_FIT = 6  # runs from which costs can be told; with fewer, the usual ones
TO_FIT_POWER = 3  # where parts were measured, the proof counted
DECODES = (Costs().decode, 0.0, 0.5, 1.0, 4.0, 8.0)  # what a decode costs in runs; the usual first
ONCE = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)  # what is done once, in what all steps of a typical job cost
POWERS = (1.0, 0.8, 0.9, 1.1, 1.2)  # of pixels
JOB_S = (0.0, 0.1, 0.2, 0.4)  # what a job takes whatever is drawn: to be taken, to be stored
WORST = math.log(2)  # a run further off than this was disturbed, by however much
Measured = tuple[Work, float]  # and the seconds that it took


@dataclass(frozen=True, slots=True)
class Run:
    """A job that went well, and what it took."""

    request: Request
    seconds: float
    engine: str = ""


class History:
    """The latest runs of each kind. One is looked for among those that are most like a request."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, list[Run]] = {}  # newest first
        self._bundles: Sequence[BundleStatus] = ()
        self._estimates: dict[Hashable, Estimate | None] = {}  # of these runs, with these bundles

    def add(self, newest_first: Iterable[Run]) -> None:
        """Take in runs that ended after all that are here."""
        for run in reversed(list(newest_first)):
            runs = self._runs.setdefault(likeness(run.request)[0], [])
            runs.insert(0, run)
            del runs[REMEMBERED:]
            self._estimates.clear()

    def estimate(self, request: Request, bundles: Sequence[BundleStatus]) -> Estimate | None:
        """Return how long it will take. None: nothing is there to say it by."""
        if bundles is not self._bundles or len(self._estimates) > REMEMBERED_ESTIMATES:
            self._bundles = bundles
            self._estimates.clear()
        like, work = likeness(request), work_of(request, bundles)
        if (like, work) not in self._estimates:
            self._estimates[like, work] = estimate(request, self._runs.get(like[0], ()), bundles)
        return self._estimates[like, work]


def estimate(request: Request, newest_first: Sequence[Run], bundles: Sequence[BundleStatus]) -> Estimate | None:
    """Return how long it will take by these runs. None: nothing like it was measured, or its bundle has gone."""
    work = work_of(request, bundles)
    if work is None:
        return None
    alike, proof = _most_alike(request, newest_first), None
    if isinstance(request, Generate) and (proof := proved(request, bundles)):
        alike = _served(request, newest_first, proof)
    done = [(work_of(run.request, bundles), run.seconds) for run in alike]
    measured = [(its, seconds) for its, seconds in done if its is not None and seconds > 0]
    measured += [(proof.work, proof.seconds)] if proof else []
    if not measured:
        return None
    parts = proof.costs if proof else None
    costs = _scaled(parts, measured) if parts else _fitted(measured)
    same_size = [run for run in measured if run[0].megapixels == work.megapixels]
    pace = _pace(costs, same_size if len(same_size) >= SAME_SIZE else measured)
    return Estimate(pace * costs.load(work), pace * costs.first_look(work) if parts else None)


def _served(request: Generate, newest_first: Sequence[Run], proof: Proved) -> list[Run]:
    """Those of the same bundle, with LoRAs or without, that the proved engine served, whoever asked for it."""
    return [run for run in newest_first if run.engine == proof.engine and _same_network(run.request, request)]


def _same_network(a: Request, b: Generate) -> bool:
    return isinstance(a, Generate) and (a.bundle, bool(a.loras)) == (b.bundle, bool(b.loras))


def _most_alike(request: Request, newest_first: Sequence[Run]) -> list[Run]:
    """The engine that served last serves now: `auto` may have gone over to another."""
    wanted = likeness(request)
    for depth in range(len(wanted), 0, -1):
        if alike := [run for run in newest_first if likeness(run.request)[:depth] == wanted[:depth]]:
            return [run for run in alike if run.engine == alike[0].engine]
    return []


def _pace(costs: Costs, measured: Sequence[Measured]) -> float:
    return statistics.median_low(seconds / costs.load(work) for work, seconds in measured)


def _scaled(costs: Costs, measured: Sequence[Measured]) -> Costs:
    """
    Costs that a proof has measured at one size, with what fits best below that, powers and seconds of a job, and above.
    """
    smaller = [run for run in measured if run[0].megapixels <= costs.megapixels]
    larger = [run for run in measured if run[0].megapixels >= costs.megapixels]
    if len(smaller) >= TO_FIT_POWER:
        costs = _best([replace(costs, once=once, below=power) for once, power in product(JOB_S, POWERS)], smaller)
    if len(larger) >= TO_FIT_POWER:
        costs = _best([replace(costs, above=power) for power in POWERS], larger)
    return costs


def _fitted(measured: Sequence[Measured]) -> Costs:
    """Where nobody has measured the parts: what would explain all of it."""
    if len(measured) < TO_FIT:
        return Costs()
    typical = statistics.median(work.denoising for work, _ in measured)
    return _best([Costs(decode=decode, once=once * typical) for once, decode in product(ONCE, DECODES)], measured)


def _best(candidates: Sequence[Costs], measured: Sequence[Measured]) -> Costs:
    """The first of those that fit best: where all jobs are the same, any would."""
    return min(candidates, key=lambda costs: round(_spread(costs, measured), 2))


def _spread(costs: Costs, measured: Sequence[Measured]) -> float:
    """How far the runs are from their median with these costs: the mean factor, as a logarithm."""
    pace = _pace(costs, measured)
    return statistics.fmean(min(WORST, abs(math.log(s / (pace * costs.load(work))))) for work, s in measured)
