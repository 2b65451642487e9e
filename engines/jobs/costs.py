"""
What the parts of a portrait cost, and a portrait therefore. Knows how much is to be done and what a proof has measured;
no history.

A portrait takes pictures * pixels * (steps * runs * run + previews * (look + show) + decode + file) + runs * text +
once. At another size than was measured, pixels count by a power of their ratio, one below that size and another above
it: what a run takes whatever its size makes small pictures dearer than their pixels, and attention large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engines.jobs.previews import every, preview_steps
from engines.jobs.work import Work, bundle_of, portrait_work
from engines.messages import Generate
from engines.messages.status import BundleStatus, Verdict


@dataclass(frozen=True, slots=True)
class Costs:
    """
    Of a megapixel, of pictures of `megapixels`: a run of the denoiser, a decode, a preview, what it takes besides to
    show one, the encoding of a photo, and writing a picture with whatever else it takes. Of each text, and of a job,
    whatever their size. All in seconds; where nobody has measured them, in runs of the denoiser, a decode as with
    Stable Diffusion on a CPU.
    """

    run: float = 1.0
    decode: float = 2.0
    look: float = 0.0
    show: float = 0.0
    encode: float = 0.0
    file: float = 0.0
    text: float = 0.0
    once: float = 0.0
    megapixels: float = 1.0
    below: float = 1.0  # the power of smaller pictures
    above: float = 1.0

    def load(self, work: Work) -> float:
        """Return what all of it costs."""
        return self._before(work) + self._pixels(work) * work.pictures * self._picture(work)

    def first_look(self, work: Work) -> float:
        """Return what it costs until there is something to look at."""
        step = work.runs * self.run + self.look + self.show
        shown = work.preview == "live" and self.look
        return self._before(work) + self._pixels(work) * (step if shown else self._picture(work))

    def _pixels(self, work: Work) -> float:
        ratio = work.megapixels / self.megapixels
        return self.megapixels * float(ratio ** (self.below if ratio < 1 else self.above))

    def _before(self, work: Work) -> float:
        return self.once + work.runs * self.text + self._pixels(work) * self.encode * work.photo

    def _picture(self, work: Work) -> float:
        step = work.runs * self.run
        shown = work.preview == "live" and self.look
        looks = len(preview_steps(work.steps, every(step, self.look))) if shown else 0
        decode = self.look if work.preview == "only" else self.decode
        return work.steps * step + looks * (self.look + self.show) + decode + self.file


@dataclass(frozen=True, slots=True)
class Proved:
    """
    What an engine's proof says: one job that was done, with its seconds, and what its parts cost, in seconds. None: a
    proof of an earlier version did not measure these.
    """

    engine: str
    work: Work
    seconds: float
    costs: Costs | None


def proved(request: Generate, bundles: Sequence[BundleStatus]) -> Proved | None:
    """Return what the proof of the engine says that will serve. None: there was none."""
    bundle = bundle_of(request, bundles)
    if bundle is None:
        return None
    verdict = bundle.verdict_for("pytorch" if request.loras and request.backend == "auto" else request.backend)
    if verdict is None:
        return None
    work = portrait_work(Generate("p"), bundle)
    work = replace(work, megapixels=verdict.megapixels or work.megapixels)
    return Proved(verdict.engine, work, verdict.finish_s, _measured(verdict, work))


def _measured(verdict: Verdict, work: Work) -> Costs | None:
    run_s, megapixels = verdict.run_s, work.megapixels
    if not run_s.get("denoiser"):
        return None
    parts = ("denoiser", "decoder", "preview_decoder", "encoder")
    run, decode, look, encode = (run_s.get(role, 0.0) / megapixels for role in parts)
    costs = Costs(run, decode, look, encode=encode, text=run_s.get("text_encoder", 0.0), megapixels=megapixels)
    unexplained = max(0.0, verdict.finish_s - costs.load(work)) / megapixels
    if not look:
        return replace(costs, file=unexplained)
    # Nearly all is of previews: writing them, and other networks being cold again. Writing a picture takes 0.03 s.
    looks = len(preview_steps(work.steps, every(work.runs * run, look)))
    return replace(costs, show=unexplained / looks)
