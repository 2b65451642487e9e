"""
What real jobs say of how fast a candidate is: its proof may have been made on a better day. Each job that nobody
disturbed is a sample; the lower median of a few takes the place of what the proof measured, and where another is faster
by much more than chance, that one serves from the next job on. Knows verdicts and the runs of sessions; no clock.
"""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engines import backends
from engines.backends import Candidate, TooLarge, fits
from engines.backends.mixture import work_s
from engines.backends.timed import RoleRun, lower_quartiles, rounded_s
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import Bundle
from engines.roles.loaded import LoadedBundle

log = logging.getLogger(__name__)
JOBS, REMEMBERED = 3, 5  # jobs that say something together; those that are remembered
MARGIN = 1.15  # as long as another, before that takes its place: else they would take turns
NEAR = 2.0  # a picture of more or less pixels than this share of the proof's says little: attention grows faster

Sample = Mapping[str, float]  # seconds of a run by role, at the proof's size


class Experience:
    """Refines the verdicts of what serves. `refresh` is called when something else serves from now on."""

    def __init__(self, verdicts: Verdicts, too_large: TooLarge = fits) -> None:
        self.verdicts, self.too_large = verdicts, too_large
        self.refresh: Callable[[], None] = lambda: None
        self._samples: defaultdict[str, deque[Sample]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def learn(self, loaded: LoadedBundle, runs: Sequence[RoleRun]) -> None:
        """Take in the runs of one job that nobody disturbed. Writes one verdict at most."""
        served = backends.candidate(loaded.bundle, loaded.engine, self.verdicts)
        if served.verdict is None or not served.verdict.accepted:
            return
        sample = scaled(loaded.bundle, served.verdict, runs)
        if not sample:
            return
        samples = self._samples[served.key]
        samples.append(sample)
        if len(samples) >= JOBS:
            self._refine(loaded.bundle, served, refined(loaded.bundle, served.verdict, samples))

    def _refine(self, bundle: Bundle, served: Candidate, verdict: Verdict) -> None:
        """Store the verdict, unless another would then serve, or serve no more, by less than the margin."""
        assert served.verdict is not None  # whoever has none learns nothing
        rivals = [
            (c, c.verdict.finish_s)
            for c in backends.ways(bundle, self.verdicts, self.too_large)
            if c.key != served.key and c.verdict and c.verdict.accepted and c.verdict.finish_s and not c.too_large
        ]
        rival, rival_s = min(rivals, key=lambda pair: pair[1], default=(served, float("inf")))
        was_first, is_first = served.verdict.finish_s <= rival_s, verdict.finish_s <= rival_s
        longer_s, shorter_s = max(verdict.finish_s, rival_s), min(verdict.finish_s, rival_s)
        if verdict == served.verdict or (was_first != is_first and longer_s <= MARGIN * shorter_s):
            return
        self.verdicts.put(served.key, verdict)
        if was_first != is_first:
            self._samples[served.key].clear()  # the next change takes as many jobs again
            first, second = ((_name(served), verdict.finish_s), (_name(rival), rival_s))[:: 1 if is_first else -1]
            log.info("%s: %s serves: %.2f s by the latest jobs, %s %.2f s", bundle.name, *first, *second)
            self.refresh()


def _name(c: Candidate) -> str:
    return f"{c.engine.name} {c.precision}"


def scaled(bundle: Bundle, verdict: Verdict, runs: Sequence[RoleRun]) -> dict[str, float]:
    """
    Return what a run of each role took in a job, as if it had been of the proof's size; roles that the proof did not
    run, and pictures of quite another size, say nothing.
    """
    alike = []
    for run in runs:
        share = run.cells * _pixels_per_cell(bundle, run) / 1e6 / (verdict.megapixels or float("inf"))
        if run.role in verdict.run_s and 1 / NEAR <= share <= NEAR:
            alike.append(replace(run, seconds=run.seconds / share))
    return lower_quartiles(alike)


def _pixels_per_cell(bundle: Bundle, run: RoleRun) -> int:
    """Of latents a cell stands for many pixels; of words for none."""
    if run.role in ("denoiser", "decoder", "preview_decoder") and bundle.sampling:
        return bundle.sampling.latent_stride**2
    return 0 if run.role == "text_encoder" else 1


def refined(bundle: Bundle, verdict: Verdict, samples: Sequence[Sample]) -> Verdict:
    """Return the verdict with what the samples say: of each role, and of the whole picture in the same measure."""
    roles = {role for sample in samples for role in sample}
    learned = {role: statistics.median_low([s[role] for s in samples if role in s]) for role in sorted(roles)}
    run_s = {**verdict.run_s, **learned}
    before_s = work_s(bundle, verdict.run_s)
    share = work_s(bundle, run_s) / before_s if before_s else 1.0
    look_s, finish_s = rounded_s(verdict.look_s * share), rounded_s(verdict.finish_s * share)
    return replace(verdict, run_s=run_s, look_s=look_s, finish_s=finish_s, disturbed=False)
