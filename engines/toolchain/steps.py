"""
A long piece of work as steps that are done once: what is finished leaves a record in the working folder, and a second
try begins where the first one stopped. Knows order, records and time; not what the steps do.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import files
from engines.messages import Event, Note, Progress, Stage

Emit = Callable[[Event], None]
Say = Callable[[str], None]
RECORDS = ".records"
EARLY = 0.15  # of the work: nothing is foretold from less: costs are guesses


def unheard(event: Event) -> None:
    """Drop an event: for callers who do not listen."""


@dataclass(frozen=True)
class Step:
    """
    A piece of the work. `cost` is a guess of the seconds; only its share of the whole counts. `run` returns what the
    report will say.
    """

    stage: Stage
    title: str
    cost: float
    run: Callable[[Say], dict[str, Any]]


def resume(work: Path, inputs: str) -> None:
    """Keep the working folder if it was begun from the same inputs, else begin anew."""
    mark = work / RECORDS / "inputs"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != inputs:
        shutil.rmtree(work, ignore_errors=True)
        mark.parent.mkdir(parents=True)
        mark.write_text(inputs, encoding="utf-8")


def run(steps: Sequence[Step], work: Path, emit: Emit) -> list[dict[str, Any]]:
    """Announce the plan, then take every step. Return their records, each with its title and seconds."""
    total, started, before = sum(step.cost for step in steps), time.perf_counter(), 0.0
    for i, step in enumerate(steps, start=1):
        emit(Note(f"{i}. {step.title}" + (" ✓" if _record(work, step).is_file() else "")))
    records, done = [], 0.0
    for i, step in enumerate(steps):
        emit(Progress(step.stage, i, len(steps), _eta_s(time.perf_counter() - started, done, total - before)))
        if _record(work, step).is_file():
            before += step.cost
        else:
            emit(Note(f"— {step.title}"))
            _do(work, step, lambda text: emit(Note(f"   {text}")))
            done += step.cost
        records.append(json.loads(_record(work, step).read_text(encoding="utf-8")))
    return records


def _eta_s(passed_s: float, done: float, total: float) -> float | None:
    return round(passed_s * (total - done) / done, 1) if done > EARLY * total else None


def _do(work: Path, step: Step, say: Say) -> None:
    begun = time.perf_counter()
    facts = step.run(say)
    record = {"step": step.title, "stage": step.stage, "seconds": round(time.perf_counter() - begun, 1), **facts}
    text = json.dumps(record, ensure_ascii=False)
    files.write_atomic(_record(work, step), text.encode())  # the step is done when its record stands


def _record(work: Path, step: Step) -> Path:
    return work / RECORDS / f"{step.title.replace('/', '-')}.json"
