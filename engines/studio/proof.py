"""
The proof of an engine: it draws what the bundle's maker drew with PyTorch in fp32, and is held against it.

A bundle that can be proved carries PROOF, a folder with proof.json and pictures: cases (a prompt and a seed, or a face)
and what the reference made of each. So an engine can be proved on a machine that has no reference. `python -m
engines.studio.proof` proves one engine in a process of its own: what crashes there takes nobody along, and its memory
can be told. Selection by verdict is backends.select's; where verdicts lie is the caller's.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

from engines import backends, files, images
from engines.backends import Candidate
from engines.backends.timed import RoleRun, medians
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import PROOF, Bundle, Precision
from engines.errors import BundleError, StudioError
from engines.images.metrics import Picture, psnr_db, ssim
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
PATIENCE_S = 1800.0
LOOK_S = 0.1
PROJECT = Path(__file__).parents[2]  # where a child finds the packages


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


def prove(bundle: Bundle, candidate: Candidate) -> Verdict:
    """Every case, after one to warm up. What the engine raises is a verdict too. BundleError: there is no proof."""
    cases = Proof.read(bundle).cases
    runs: list[RoleRun] = []
    loaded = LoadedBundle(bundle, candidate.engine, note=runs.append)
    with tempfile.TemporaryDirectory() as folder:
        try:
            make(loaded, cases[0], Path(folder))
            runs.clear()
            results = [make(loaded, case, Path(folder)) for case in cases]
        except StudioError as exc:
            return verdict(candidate, failing=f"{exc.code}: {exc}")
        finally:
            loaded.close()
    wanted = [images.read(bundle.root / PROOF / case.want) for case in cases]
    return judge(candidate, results, wanted, medians(runs))


def judge(
    candidate: Candidate,
    results: list[TimedPicture],
    wanted: list[Picture],
    run_s: Mapping[str, float] = MappingProxyType({}),
) -> Verdict:
    pairs = [(result.picture, want) for result, want in zip(results, wanted, strict=True)]
    if any(picture.shape != want.shape for picture, want in pairs):
        return verdict(candidate, failing="a picture of another size")
    likeness = [(psnr_db(picture, want), ssim(picture, want)) for picture, want in pairs]
    lowest_db, lowest_ssim = (min(values) for values in zip(*likeness, strict=True))
    return verdict(
        candidate,
        failing=_failing(candidate.precision, lowest_db, lowest_ssim),
        psnr_db=round(lowest_db, 2),
        ssim=round(lowest_ssim, 4),
        pictures=len(results),
        look_s=round(statistics.median(result.look_s for result in results), 3),
        finish_s=round(statistics.median(result.finish_s for result in results), 3),
        run_s=dict(run_s),
        megapixels=round(math.prod(results[0].picture.shape[:2]) / 1e6, 4),
    )


def _failing(precision: str, lowest_db: float, lowest_ssim: float) -> str:
    bar_db, bar_ssim = next((bar for name, bar in BARS.items() if name == precision), BARS["fp32"])
    if lowest_db < bar_db:
        return f"PSNR {lowest_db:.1f} dB < {bar_db:.0f} dB"
    return f"SSIM {lowest_ssim:.3f} < {bar_ssim:.2f}" if lowest_ssim < bar_ssim else ""


def verdict(candidate: Candidate, failing: str, **figures: Any) -> Verdict:
    probe, name, precision = candidate.probe, candidate.engine.name, candidate.precision
    return Verdict(name, probe.device, probe.runtime, precision, failing, peak_mb=round(peak_mb()), **figures)


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


def due(bundles: Iterable[Bundle], verdicts: Verdicts) -> Iterator[tuple[Bundle, Candidate]]:
    """Every pair of a bundle that carries a proof and an engine that could run it, but has no verdict here yet."""
    for bundle in bundles:
        if PROOF in bundle.extras:
            for engine in backends.engines():
                candidate = backends.candidate(bundle, engine, verdicts)
                if not candidate.refused and candidate.verdict is None:
                    yield bundle, candidate


def prove_apart(bundle: Bundle, candidate: Candidate, stopped: Callable[[], bool] = lambda: False) -> Verdict | None:
    """In a process of its own, whose crash is a verdict too. None: `stopped` said so meanwhile."""
    command = [sys.executable, "-m", "engines.studio.proof", str(bundle.root), candidate.engine.name]
    command += ["--cache", str(bundle.cache)] if bundle.cache else []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=PROJECT)
        try:
            came = _wait(child, stopped)
        finally:  # whatever ends this, the child ends with it
            child.kill()
            child.wait()
        if came == "stop":
            return None
        if came == "deadline":
            return verdict(candidate, failing=f"not done after {PATIENCE_S / 60:.0f} min")
        if child.returncode:
            return verdict(candidate, failing=f"it stopped with {child.returncode}: {_last_line(log)[:200]}")
        try:
            proved: Verdict = files.validate(Verdict, json.loads(_last_line(out)))
        except ValueError:  # an engine that ends the process in its own way
            return verdict(candidate, failing="it stopped without a verdict")
        return proved


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    return "".join(file.read().decode(errors="replace").strip().splitlines()[-1:])


def _wait(child: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> Literal["end", "stop", "deadline"]:
    """What came first. Asked for once: a job that waits now may be done in a moment, and a stop is no verdict."""
    deadline = time.monotonic() + PATIENCE_S
    while child.poll() is None:
        if stopped():
            return "stop"
        if time.monotonic() > deadline:
            return "deadline"
        time.sleep(LOOK_S)
    return "end"


def main() -> None:
    """Prints the verdict as JSON."""
    parser = argparse.ArgumentParser(prog="python -m engines.studio.proof", description=__doc__)
    parser.add_argument("bundle", type=Path, help="its folder")
    parser.add_argument("engine")
    parser.add_argument("--cache", type=Path, help="folder for what engines compile")
    args = parser.parse_args()
    bundle = replace(Bundle.open(args.bundle), cache=args.cache)
    bundle.verify()
    candidate = backends.candidate(bundle, backends.engine(args.engine))
    if candidate.refused:
        sys.exit(f"{args.engine}: {candidate.refused}")
    print(json.dumps(asdict(prove(bundle, candidate))))


if __name__ == "__main__":
    main()
