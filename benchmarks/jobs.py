"""
One process that draws: `python -m benchmarks.jobs BUNDLE ENGINE WIDTHxHEIGHTxSTEPS ...` does a job for each and prints
for each a line of JSON: seconds to the first preview and to the picture, the process's highest memory so far in MB, and
what the plan had foretold. A size that is named twice is drawn twice: the second time nothing is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engines.bundle import Shelf
from engines.messages import Failed, Final, Generate, Preview
from engines.roles import memory
from engines.studio import Studio
from engines.studio.proof import peak_mb

PROMPT = "portrait of a young woman, long brown hair, smiling, white blouse, grey studio background, soft studio light"


@dataclass(frozen=True)
class Drawn:
    """`ended` is the machine's clock when it was done."""

    job: str
    look_s: float
    finish_s: float
    peak_mb: float
    reason: str
    foretold: str
    ended: float


def apart(bundle: Path, engine: str, *jobs: str, budget_gb: float = 0.0) -> list[Drawn]:
    """In a process of its own."""
    command = [sys.executable, "-m", "benchmarks.jobs", str(bundle), engine, str(budget_gb), *jobs]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Drawn(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    path, engine, budget_gb, *jobs = sys.argv[1:]
    bundle, budget = Path(path), int(float(budget_gb) * memory.GB) or memory.UNLIMITED
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf((bundle.parent,), bundle.parent / "compiled")
        studio = Studio(shelf, Path(folder), budget=lambda: budget)
        for k, job in enumerate(jobs):
            width, height, steps = map(int, job.split("x"))
            request = Generate(
                PROMPT, width=width, height=height, steps=steps, seed=k, bundle=bundle.name, backend=engine
            )
            print(json.dumps(vars(_draw(studio, request, job, Path(folder)))), flush=True)


def _draw(studio: Studio, request: Generate, job: str, folder: Path) -> Drawn:
    started, look_s = time.perf_counter(), 0.0
    for event in studio.run(request, folder):
        if isinstance(event, Preview):
            look_s = look_s or time.perf_counter() - started
        if isinstance(event, Failed):
            sys.exit(f"{job}: {event.detail}")
    assert isinstance(event, Final)
    finish_s = time.perf_counter() - started
    loaded, _ = studio.loaded_bundles.get(request.bundle, request.backend)
    foretold = str(loaded.memory_plan((request.width or 0, request.height or 0)))
    return Drawn(job, round(look_s, 3), round(finish_s, 3), round(peak_mb()), event.reason, foretold, time.time())


if __name__ == "__main__":
    main()
