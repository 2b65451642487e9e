"""
Which engines' runtimes cannot even be imported here. The worker tries each in a child, and puts what it learns into its
environment: whatever it starts, builds and proofs among it, refuses the same ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from engines.machine import preflight
from engines.machine.preflight import ImportTrial

VARIABLE = "AWPORTRAIT_REFUSED_ENGINES"  # not STUDIO_..., which builds are not given


def refusal(engine: str) -> str:
    """Return why an engine cannot work here; empty: it can, or nobody has tried it."""
    return _refusals().get(engine, "")


def examine(
    trials: Iterable[ImportTrial], folder: Path | None, waiting: Callable[[], object] = lambda: None, nice: int = 0
) -> None:
    """Try what is installed, each named as its engine, and refuse from now on what fails; as preflight.examine does."""
    installed = [trial for trial in trials if find_spec(trial.modules[0]) is not None]
    outcomes = preflight.examine(installed, folder, waiting, nice)
    failed = {name: outcome.why for name, outcome in outcomes.items() if outcome.why}
    os.environ[VARIABLE] = json.dumps({**_refusals(), **failed})


def _refusals() -> dict[str, str]:
    refused: dict[str, str] = json.loads(os.environ.get(VARIABLE, "{}"))
    return refused
