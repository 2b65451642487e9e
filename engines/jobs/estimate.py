"""
How long a job will take, by what earlier ones took: arithmetic over finished jobs. Knows requests, and what a worker
says of its bundles; no queue and no clock. What nothing like it was ever done of has no estimate.

A portrait takes a * (steps * pixels * pictures) + b * (pixels * pictures) + c seconds: its steps, its decodes, and what
is done once. `b` and `c` are looked for as multiples of `a` (Shape), those with which the ratios of seconds to work
differ least from each other; `a` is the median of these ratios. A median, and of two the smaller: a job that had to
load a model first took longer than it says of the others, and none takes less than its work.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from engines.messages import Build, Develop, Enhance, Fetch, Generate, Inspect, Request, prompts
from engines.messages.status import BundleStatus

REMEMBERED = 60  # runs of a kind: an afternoon's, and as many as are looked through in a few milliseconds
SAME_SIZE = 3  # runs at the very size say more than others at other sizes: attention grows faster than pixels do
TO_FIT = 6  # runs from which a shape can be told; with fewer, the usual one
DECODES = (2.0, 0.0, 0.5, 1.0, 4.0, 8.0)  # what a decode costs in steps. The usual first: of Stable Diffusion on CPUs
ONCE = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)  # what is done once, in what all steps of a typical job cost
WORST = math.log(2)  # a run further off than this was disturbed, by however much


@dataclass(frozen=True, slots=True)
class Run:
    """A job that went well, and what it took."""

    request: Request
    seconds: float
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done for a request; `megapixels` are of one picture, `steps` runs of the denoiser for it."""

    steps: int = 1
    pictures: int = 1
    megapixels: float = 1.0

    @property
    def denoising(self) -> float:
        return self.steps * self.megapixels * self.pictures


@dataclass(frozen=True, slots=True)
class Shape:
    """What a decode costs in steps of its size, and what is done once in megapixels times steps."""

    decode: float = DECODES[0]
    once: float = ONCE[0]

    def load(self, work: Work) -> float:
        return work.denoising + self.decode * work.megapixels * work.pictures + self.once


class History:
    """The latest runs of each kind. One is looked for among those that are most like a request."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, list[Run]] = {}  # newest first
        self._bundles: Sequence[BundleStatus] = ()
        self._estimates: dict[Hashable, float | None] = {}  # of these runs, with these bundles

    def add(self, newest_first: Iterable[Run]) -> None:
        """Take in runs that ended after all that are here."""
        for run in reversed(list(newest_first)):
            runs = self._runs.setdefault(likeness(run.request)[0], [])
            runs.insert(0, run)
            del runs[REMEMBERED:]
            self._estimates.clear()

    def seconds(self, request: Request, bundles: Sequence[BundleStatus]) -> float | None:
        """Return how long it will take. None: nothing is there to say it by."""
        if bundles is not self._bundles:
            self._bundles = bundles
            self._estimates.clear()
        like, work = likeness(request), work_of(request, bundles)
        if (like, work) not in self._estimates:
            self._estimates[like, work] = estimate(request, self._runs.get(like[0], ()), bundles)
        return self._estimates[like, work]


def estimate(request: Request, newest_first: Sequence[Run], bundles: Sequence[BundleStatus]) -> float | None:
    """Return how many seconds it will take by these runs. None: there is none like it, or its bundle has gone."""
    work = work_of(request, bundles)
    runs = [(work_of(run.request, bundles), run.seconds) for run in _most_alike(request, newest_first)]
    measured = [(done, seconds) for done, seconds in runs if done is not None and seconds > 0]
    if work is None or not measured:
        return None
    shape = _shape(measured)
    same_size = [run for run in measured if run[0].megapixels == work.megapixels]
    return _pace(shape, same_size if len(same_size) >= SAME_SIZE else measured) * shape.load(work)


def likeness(request: Request) -> tuple[Hashable, ...]:
    """
    Return what makes jobs alike, the most important first. Of a build or a download nothing but the very same says
    anything.
    """
    match request:
        case Generate():
            only = request.preview == "only"  # decoded by another network
            return "generate", request.bundle, request.backend, bool(request.loras), only
        case Enhance():
            return "enhance", request.bundle, request.backend
        case Develop():
            return "develop", request.backend
        case Inspect():
            return ("inspect",)
        case Build():
            return (("build", request.makes, request.source, request.recipe),)
        case Fetch():
            return (("fetch", request.model),)


def work_of(request: Request, bundles: Sequence[BundleStatus]) -> Work | None:
    """
    Return what is to be done. What a portrait leaves open is its bundle's; None: that is not here. Of photos nothing is
    known before they are opened, so one is like another.
    """
    if not isinstance(request, Generate):
        return Work()
    bundle = next((bundle for bundle in bundles if bundle.name == request.bundle and bundle.sizes), None)
    if bundle is None:
        return None
    width, height = request.width or bundle.sizes[0][0], request.height or bundle.sizes[0][1]
    steps = request.steps or bundle.steps
    if request.start:
        steps = max(1, math.ceil(steps * request.strength))
    guidance = bundle.guidance if request.guidance is None else request.guidance
    texts = [request.prompt, request.negative] if guidance else [request.prompt]  # guided: once more without words
    weights = sum(len(prompts.read(text).weights) for text in texts) if bundle.weighs_by_guidance else 0
    return Work(steps * (len(texts) + weights), request.count, width * height / 1e6)


def _most_alike(request: Request, newest_first: Sequence[Run]) -> list[Run]:
    """The engine that served last serves now: `auto` may have gone over to another."""
    wanted = likeness(request)
    for depth in range(len(wanted), 0, -1):
        if alike := [run for run in newest_first if likeness(run.request)[:depth] == wanted[:depth]]:
            return [run for run in alike if run.engine == alike[0].engine]
    return []


def _pace(shape: Shape, measured: Sequence[tuple[Work, float]]) -> float:
    return statistics.median_low(seconds / shape.load(work) for work, seconds in measured)


def _shape(measured: Sequence[tuple[Work, float]]) -> Shape:
    """The first of those that fit best: where all jobs are the same, any would."""
    if len(measured) < TO_FIT:
        return Shape()
    typical = statistics.median(work.denoising for work, _ in measured)
    shapes = [Shape(decode, once * typical) for once, decode in product(ONCE, DECODES)]
    return min(shapes, key=lambda shape: round(_spread(shape, measured), 2))


def _spread(shape: Shape, measured: Sequence[tuple[Work, float]]) -> float:
    """How far the runs are from their median with this shape: the mean factor, as a logarithm."""
    pace = _pace(shape, measured)
    return statistics.fmean(min(WORST, abs(math.log(s / (pace * shape.load(work))))) for work, s in measured)
