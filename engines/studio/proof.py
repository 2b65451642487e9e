"""
The proof of an engine: it draws what the bundle's maker drew with PyTorch in fp32, and is held against it.

A bundle that can be proved carries PROOF, a folder with proof.json and pictures: cases (a prompt and a seed, or a face)
and what the reference made of each. So an engine can be proved on a machine that has no reference. `python -m
engines.studio.proof` proves one engine in a process of its own: what crashes there takes nobody along, and its memory
can be told. Selection by verdict is backends.select's; which engine is proved when, and that process, are trials.py's.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from engines import backends, files, images
from engines.backends import Candidate
from engines.backends.arrangement import read
from engines.backends.timed import RoleRun, lower_quartiles, rounded_s
from engines.backends.verdicts import Verdict
from engines.bundle import PROOF, Bundle, Precision
from engines.errors import BundleError, StudioError
from engines.images.metrics import Picture, psnr_db, ssim
from engines.machine import usage
from engines.messages import Final, Generate, Preview
from engines.roles.embedding_cache import ArrayCache
from engines.roles.loaded import LoadedBundle
from engines.studio.generate import Generation, GenerationPlan
from engines.studio.timings import Timings

# The lowest PSNR in dB and SSIM that a picture may have against the reference, by the coarsest arithmetic in use.
BARS: dict[Precision, tuple[float, float]] = {
    "fp32": (40.0, 0.98),
    "bf16": (40.0, 0.98),
    "fp16": (40.0, 0.98),
    "int8": (30.0, 0.95),
    "int4": (26.0, 0.90),
}
CLEAR = 3  # times that nobody disturbed: as many are wanted
MORE_ROUNDS, MORE_S = 2, 10.0  # over the cases, to get them: more on a busy machine would be disturbed too
WINDOW_S = 0.3  # what is timed takes so long: the kernel counts in hundredths


@dataclass(frozen=True)
class Case:
    """What to draw, and the file that shows what the reference made of it. `face` is a file, for a restorer."""

    want: str
    prompt: str = ""
    seed: int = 0
    face: str = ""


@dataclass(frozen=True)
class Proof:
    reference: str
    cases: tuple[Case, ...]

    @classmethod
    def read(cls, bundle: Bundle) -> Proof:
        """BundleError: there is none, or it is damaged."""
        try:
            return files.read_json(cls, bundle.root / PROOF / "proof.json")
        except (OSError, ValueError) as exc:
            raise BundleError(f"{bundle.name}/{PROOF}: {exc}", bundle=bundle.name) from exc


@dataclass(frozen=True)
class TimedPicture:
    """A picture, and the seconds until something could be looked at and until it was finished."""

    picture: Picture
    look_s: float
    finish_s: float


def make(loaded: LoadedBundle, case: Case, folder: Path) -> TimedPicture:
    """Do the case as a job would, files included. StudioError: the engine cannot."""
    if case.face:
        return _restore(loaded, images.read(loaded.bundle.root / PROOF / case.face))
    started, looked = time.perf_counter(), 0.0
    plan = GenerationPlan.of(Generate(case.prompt, seed=case.seed), loaded.bundle)
    generation = Generation(
        plan=plan,
        loaded=loaded,
        reason="",
        folder=folder,
        pace=Timings(),
        started=started,
        memory_plan=loaded.memory_plan((plan.width, plan.height)),
    )
    for event in generation.events(ArrayCache(folder / "embeddings", 8)):
        if isinstance(event, Preview) and not looked:
            looked = time.perf_counter() - started
    assert isinstance(event, Final)  # a drawing ends with it or raises
    return TimedPicture(images.read(folder / event.images[0]), looked, time.perf_counter() - started)


def _restore(loaded: LoadedBundle, face: Picture) -> TimedPicture:
    started = time.perf_counter()
    picture = loaded.restorer.restore(face)
    seconds = time.perf_counter() - started
    return TimedPicture(picture, seconds, seconds)


@dataclass(frozen=True, slots=True)
class Drawing:
    """
    What became of drawing a case, or, where it takes a moment, of drawing it again and again for a while: how near the
    reference's picture the worst came, and what one took. `failing`: why the engine could not. Seconds are 0 where it
    was not timed, as of the first in a process. `disturbed`: others used the processors meanwhile.
    """

    case: int
    failing: str = ""
    psnr_db: float = 0.0
    ssim: float = 0.0
    look_s: float = 0.0
    finish_s: float = 0.0
    run_s: dict[str, float] = field(default_factory=dict)
    megapixels: float = 0.0
    disturbed: bool = False
    peak_mb: float = 0.0


@dataclass
class Trial:
    """One candidate that draws the cases of its bundle's proof, in this process."""

    bundle: Bundle
    candidate: Candidate
    loaded: LoadedBundle
    cases: Sequence[Case]
    folder: Path  # for what is drawn
    runs: list[RoleRun]  # of the sessions, as they are noted

    @classmethod
    @contextmanager
    def begun(cls, bundle: Bundle, candidate: Candidate) -> Iterator[Trial]:
        """BundleError: there is no proof."""
        cases, runs = Proof.read(bundle).cases, list[RoleRun]()
        loaded = LoadedBundle(bundle, candidate.engine, note=runs.append)
        with tempfile.TemporaryDirectory() as folder:
            try:
                yield cls(bundle, candidate, loaded, cases, Path(folder), runs)
            finally:
                loaded.close()

    def prove(self, before: Sequence[Drawing] = ()) -> Iterator[Drawing]:
        """
        Draw every case that is not among those `before`, and so many of them again that some were timed undisturbed.
        What the engine raises is an outcome too, and the last one.
        """
        timed = {drawing.case for drawing in before if drawing.finish_s}
        seen = {drawing.case for drawing in before}
        cases = range(len(self.cases))
        yield (last := self._draw(next((k for k in cases if k not in seen), 0), judged=True, timed=False))
        left, clear = [k for k in cases if k not in timed], sum(is_clear(drawing) for drawing in before)
        again, begun = list(cases) * MORE_ROUNDS, time.monotonic()
        while not last.failing and (left or (clear < CLEAR and again)):
            if not left and time.monotonic() - begun > MORE_S:
                return
            yield (last := self._draw((left or again).pop(0), judged=True))
            clear += is_clear(last)

    def timed(self) -> Iterator[Drawing]:
        """Draw until it was timed undisturbed often enough, or has been tried so often. The pictures are not judged."""
        yield self._draw(0, judged=False, timed=False)
        for k in range(CLEAR):
            yield self._draw(k % len(self.cases), judged=False)

    def _draw(self, k: int, judged: bool, timed: bool = True) -> Drawing:
        """Draw a case; one that takes less than WINDOW_S until that time has passed, for the kernel counts in ticks."""
        self.runs.clear()
        results, before = list[TimedPicture](), usage.read()
        try:
            while not results or (timed and time.perf_counter() - before.clock_s < WINDOW_S):
                results.append(make(self.loaded, self.cases[k], self.folder))
        except StudioError as exc:
            return Drawing(k, f"{exc.code}: {exc}", peak_mb=round(peak_mb()))
        drawing = Drawing(
            k,
            megapixels=round(math.prod(results[0].picture.shape[:2]) / 1e6, 4),
            disturbed=usage.disturbed(before, usage.read(), self._threads),
            peak_mb=round(peak_mb()),
        )
        if timed:
            look_s = rounded_s(statistics.median_low([result.look_s for result in results]))
            finish_s = rounded_s(statistics.median_low([result.finish_s for result in results]))
            drawing = replace(drawing, look_s=look_s, finish_s=finish_s, run_s=lower_quartiles(self.runs))
        if not judged:
            return drawing
        wanted = images.read(self.bundle.root / PROOF / self.cases[k].want)
        return held_against(wanted, [result.picture for result in results], drawing)

    @property
    def _threads(self) -> int:
        """How many processors it wants: an accelerator is waited for on one."""
        return self.loaded.cores if self.candidate.probe.device == "CPU" else 1


def held_against(wanted: Picture, pictures: Sequence[Picture], drawing: Drawing) -> Drawing:
    """Return the drawing with how near the reference's picture the worst of these pictures comes."""
    if any(picture.shape != wanted.shape for picture in pictures):
        return replace(drawing, failing="a picture of another size")
    distinct = [picture for k, picture in enumerate(pictures) if not k or (picture != pictures[0]).any()]
    likeness = [(psnr_db(picture, wanted), ssim(picture, wanted)) for picture in distinct]
    lowest_db, lowest_ssim = (min(values) for values in zip(*likeness, strict=True))
    return replace(drawing, psnr_db=round(lowest_db, 2), ssim=round(lowest_ssim, 4))


def is_clear(drawing: Drawing) -> bool:
    """Tell whether it was timed, and nobody disturbed it."""
    return drawing.finish_s > 0 and not drawing.disturbed


def failing(candidate: Candidate, drawings: Sequence[Drawing]) -> str:
    """Return which bar these drawings miss, with the number reached, or what the engine said; empty: none."""
    if why := next((drawing.failing for drawing in drawings if drawing.failing), ""):
        return why
    lowest_db, lowest_ssim = min(d.psnr_db for d in drawings), min(d.ssim for d in drawings)
    bar_db, bar_ssim = next((bar for name, bar in BARS.items() if name == candidate.precision), BARS["fp32"])
    if lowest_db < bar_db:
        return f"PSNR {lowest_db:.1f} dB < {bar_db:.0f} dB"
    return f"SSIM {lowest_ssim:.3f} < {bar_ssim:.2f}" if lowest_ssim < bar_ssim else ""


def is_whole(bundle: Bundle, drawings: Sequence[Drawing]) -> bool:
    """Tell whether these drawings are all of a proof. BundleError: there is no proof."""
    if not drawings:  # whether it can be read is seen by who begins it
        return False
    timed = {drawing.case for drawing in drawings if drawing.finish_s}
    return any(drawing.failing for drawing in drawings) or len(timed) == len(Proof.read(bundle).cases)


def judge(candidate: Candidate, drawings: Sequence[Drawing]) -> Verdict:
    """Return the verdict on a whole proof; of its pictures the worst counts, whenever it was drawn."""
    return replace(
        verdict(candidate, failing(candidate, drawings), drawings),
        psnr_db=min(drawing.psnr_db for drawing in drawings),
        ssim=min(drawing.ssim for drawing in drawings),
        pictures=len({drawing.case for drawing in drawings if not drawing.failing}),
    )


def verdict(candidate: Candidate, failing: str, drawings: Sequence[Drawing] = ()) -> Verdict:
    """
    Return a verdict with what was timed: the lower median of what nobody disturbed; where all was disturbed the least,
    which was disturbed least.
    """
    probe, name, precision = candidate.probe, candidate.engine.name, candidate.precision
    timed = [drawing for drawing in drawings if drawing.finish_s]
    clear = [drawing for drawing in timed if not drawing.disturbed]
    usual = statistics.median_low if clear else min
    counted = clear or timed
    roles = sorted({role for drawing in counted for role in drawing.run_s})
    return Verdict(
        name,
        probe.device,
        probe.runtime,
        precision,
        failing,
        look_s=usual([d.look_s for d in counted]) if counted else 0.0,
        finish_s=usual([d.finish_s for d in counted]) if counted else 0.0,
        peak_mb=max((d.peak_mb for d in drawings), default=0.0),
        run_s={role: usual([d.run_s[role] for d in counted if role in d.run_s]) for role in roles},
        megapixels=max((d.megapixels for d in drawings), default=0.0),
        disturbed=bool(timed) and not clear,
    )


def peak_mb() -> float:
    """
    Return the most memory that this process has held so far, in MB. Linux tells it in VmHWM; getrusage's figure is the
    parent's until we grow.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000  # in kB
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Prints each drawing as a line of JSON. Those of earlier attempts come on standard input, as a list."""
    parser = argparse.ArgumentParser(prog="python -m engines.studio.proof", description=__doc__)
    parser.add_argument("bundle", type=Path, help="its folder")
    parser.add_argument("arrangement", help="as arrangement.spelled writes it")
    parser.add_argument("--cache", type=Path, help="folder for what engines compile")
    parser.add_argument("--timing", action="store_true", help="time it alone: it has been judged")
    args = parser.parse_args()
    before = files.validate(tuple[Drawing, ...], json.load(sys.stdin))
    bundle = replace(Bundle.open(args.bundle), cache=args.cache)
    bundle.verify()
    arrangement = read(bundle, args.arrangement, backends.engine)
    candidate = backends.candidate(bundle, arrangement)
    if not candidate.probe.ok:
        sys.exit(f"{arrangement.name}: {candidate.probe.reason}")
    with Trial.begun(bundle, candidate) as trial:
        for drawing in trial.timed() if args.timing else trial.prove(before):
            print(json.dumps(asdict(drawing)), flush=True)


if __name__ == "__main__":
    main()
