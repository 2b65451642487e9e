"""
Proofs in this process, and servers of tests whose engines have been proved already. One that finds no verdicts proves
every engine as soon as nobody draws, in processes that import PyTorch: minutes of a core, beside other tests.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from engines import backends
from engines.backends import Candidate
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import BUILT_IN, Bundle, Shelf
from engines.machine import preflight
from engines.settings import Settings
from engines.studio.proof import Trial, judge

FINISH_S = {"openvino": 0.5, "ort": 1.0, "torch": 2.0}  # in the order in which they are the fastest nearly everywhere


def believe_imports(home: Path) -> None:
    """Store that everything can be imported on this machine, which takes children of five seconds to find out."""
    folder = Settings(home=home).state / preflight.FOLDER
    folder.parent.mkdir(parents=True, exist_ok=True)
    for trial in (preflight.BASE, *(engine.trial for engine in backends.engines())):
        preflight.keep(trial, preflight.FINE, folder)


def prove(bundle: Bundle, candidate: Candidate) -> Verdict:
    """Make a candidate's proof in this process, where trials.prove_apart would in another."""
    with Trial.begun(bundle, candidate) as trial:
        return judge(candidate, list(islice(trial.prove(), 1 + len(trial.cases))))  # no more for the seconds' sake


def believe_engines(home: Path) -> None:
    """Store for every engine that can run a built-in bundle that it passed its proof on this machine, and its trial."""
    believe_imports(home)
    verdicts, shelf = Verdicts(Settings(home=home).state / "verdicts"), Shelf((BUILT_IN,))
    for bundle in map(shelf.open, shelf.names()):
        for candidate in backends.ways(bundle):
            if not candidate.refused:
                probe, name = candidate.probe, candidate.engine.name
                finish_s = FINISH_S.get(name, 3.0) * (1.0 if candidate.precision == "fp32" else 0.8)
                passed = Verdict(
                    name, probe.device, probe.runtime, candidate.precision,
                    psnr_db=50.0, ssim=0.99, pictures=1, look_s=finish_s / 2, finish_s=finish_s, peak_mb=500.0,
                )  # fmt: skip
                verdicts.put(candidate.key, passed)
