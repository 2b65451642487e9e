"""
Servers of tests whose engines have been proved already. One that finds no verdicts proves every engine as soon as
nobody draws, in processes that import PyTorch, and begins anew after each job: minutes of a core, beside other tests.
"""

from __future__ import annotations

from pathlib import Path

from engines import backends
from engines.backends.verdicts import Verdict, Verdicts
from engines.bundle import BUILT_IN, Shelf
from engines.machine import preflight
from engines.settings import Settings

FINISH_S = {"openvino": 0.5, "ort": 1.0, "torch": 2.0}  # in the order in which they are the fastest nearly everywhere


def believe_imports(home: Path) -> None:
    """Store that everything can be imported on this machine, which takes children of five seconds to find out."""
    folder = Settings(home=home).state / preflight.FOLDER
    folder.parent.mkdir(parents=True, exist_ok=True)
    for trial in (preflight.BASE, *(engine.trial for engine in backends.engines())):
        preflight.keep(trial, preflight.FINE, folder)


def believe_engines(home: Path) -> None:
    """Store for every engine that can run a built-in bundle that it passed its proof on this machine, and its trial."""
    believe_imports(home)
    verdicts, shelf = Verdicts(Settings(home=home).state / "verdicts"), Shelf((BUILT_IN,))
    for bundle in map(shelf.open, shelf.names()):
        for engine in backends.engines():
            candidate = backends.candidate(bundle, engine)
            if not candidate.refused:
                probe, finish_s = candidate.probe, FINISH_S.get(engine.name, 3.0)
                passed = Verdict(
                    engine.name, probe.device, probe.runtime, candidate.precision,
                    psnr_db=50.0, ssim=0.99, pictures=1, look_s=finish_s / 2, finish_s=finish_s, peak_mb=500.0,
                )  # fmt: skip
                verdicts.put(candidate.key, passed)
