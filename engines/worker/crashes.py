"""
What is written down when the process with the engines has ended in the middle of a job: enough to make it happen again,
for whoever is asked for help. Of the person nothing: no photo, no prompt, no path.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import get_args

from engines import files, logs, machine
from engines.errors import StorageError
from engines.jobs import Lane
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import BUNDLE_NAME, Develop, Enhance, Generate, Progress, Request
from engines.settings import installation

log = logging.getLogger(__name__)
MOST = 200  # the oldest go
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")
NOWHERE = Progress("load", 0, 0)


@dataclass(frozen=True)
class Crash:
    """`stage`, `step` and `total`: how far the attempt had said it was."""

    when: str  # UTC
    cause: str
    job: str  # the first letters, as in the log
    kind: str
    attempt: int
    stage: str
    step: int
    total: int
    bundle: str
    backend: str  # as it was asked for
    versions: dict[str, str]
    platform: str
    processor: tuple[str, ...]


def record(path: Path, queue: SqliteQueue, why: str) -> None:
    """Append a line for each job that ran, if one did. What the disk refuses is logged, and lost."""
    try:
        jobs = [running[0] for lane in get_args(Lane) if (running := queue.running(lane))]
        if jobs:
            _append(path, [json.dumps(asdict(crash(queue, job_id, why)), ensure_ascii=False) for job_id in jobs])
    except (OSError, StorageError) as exc:
        log.error("the crash is not written down: %s", exc)


def crash(queue: SqliteQueue, job_id: str, why: str) -> Crash:
    job = queue.job(job_id)
    said = [event for _, event in queue.since(job_id, 0)[0] if isinstance(event, Progress)]
    last = said[-1] if said else NOWHERE
    bundle, backend = map(_name, _asked(job.request))
    return Crash(
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cause=why,
        job=job.id[: logs.LETTERS],
        kind=type(job.request).__name__.lower(),
        attempt=job.attempts,
        stage=last.stage,
        step=last.step,
        total=last.total,
        bundle=bundle,
        backend=backend,
        versions=versions(),
        platform=platform.platform(),
        processor=machine.fast_flags(platform.machine(), machine.processor_flags()),
    )


def _asked(request: Request) -> tuple[str, str]:
    """The bundle and the backend; empty where none is asked for."""
    match request:
        case Generate() | Enhance():
            return request.bundle, request.backend
        case Develop():
            return "", request.backend
    return "", ""


def _name(text: str) -> str:
    """A name, or nothing of it: somebody may have asked for anything."""
    return text if not text or BUNDLE_NAME.fullmatch(text) else "?"


def versions() -> dict[str, str]:
    """Of the program, of Python, and of the engines' libraries that are installed; none is imported."""
    installed = {"program": installation.version(), "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _append(path: Path, lines: list[str]) -> None:
    """As a whole: a file that is half written would be read by nobody. OSError."""
    before = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    files.write_atomic(path, "".join(f"{line}\n" for line in (*before, *lines)[-MOST:]).encode())
