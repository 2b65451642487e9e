"""
What the built-in jobs take by instruction set, number of threads, engine and precision: seconds, memory, and decibels
against PyTorch in float32. Writes machines.md beside this file.

Smaller instruction sets than this processor's are emulated: oneDNN, which OpenVINO and PyTorch compute with, is told to
use no more (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY). Its kernels are then those of such a processor, at this one's
clock and caches. ONNX Runtime cannot be told, so it has one row. Each row is a proof in a process of its own, as a
server makes it.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.timing import head
from engines import backends, machine
from engines.backends import Candidate
from engines.backends.openvino_backend import WITHOUT_REDUCED
from engines.bundle import BUILT_IN, Bundle, Shelf
from engines.messages.status import Verdict
from engines.studio import trials

TABLE = Path(__file__).with_name("machines.md")
JOBS = {"portrait": "portrait, 512×512, 8 steps", "restorer": "a face, 256×256"}
# By oneDNN's name: what the kernel calls what it needs, and the processors that it is of
SETS = {
    "SSE41": ("sse4_1", "Celeron J and N up to 2020"),
    "AVX2": ("avx2", "Core since 2013, Ryzen"),
    "AVX2_VNNI": ("avx_vnni", "N100, Core since 2021"),
    "AVX512_CORE_VNNI": ("avx512_vnni", "Xeon since 2019"),
    "AVX512_CORE_BF16": ("avx512_bf16", "Ryzen since 2022, EPYC"),
    "AVX512_CORE_AMX": ("amx_int8", "Xeon since 2023"),
}
OBEY = ("openvino", "torch")
FOR_PYTORCH = {"SSE41": "default", "AVX2": "avx2", "AVX2_VNNI": "avx2"}  # ATEN_CPU_CAPABILITY; else as it likes


def main() -> None:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        _write()
    TABLE.write_text(written.getvalue().lstrip(), encoding="utf-8")
    print(written.getvalue())


def _write() -> None:
    flags = machine.processor_flags()
    print("# The built-in jobs by processor\n")
    said = ", ".join(machine.fast_flags(platform.machine(), flags))
    print(f"Made by `./run.sh bench machines` on {datetime.now(UTC).date()}; this processor has {said}.")
    print("Instruction sets below its own are emulated: its clock, its caches, their kernels.")
    for bundle in map(Shelf((BUILT_IN,)).open, JOBS):
        for threads in sorted({1, machine.cores()}):
            head(
                f"## {JOBS[bundle.name].capitalize()}, {threads} {'thread' if threads == 1 else 'threads'}",
                "instructions", "as on", "engine", "seconds", "memory", "dB",
            )  # fmt: skip
            with _held_to(threads):
                for row in _rows(bundle, flags):
                    print(row)


def _rows(bundle: Bundle, flags: Set[str]) -> Iterator[str]:
    candidates = [c for c in backends.ways(bundle) if not c.refused and c.probe.device == "CPU"]
    for name, (flag, of) in SETS.items():
        if flag in flags:
            with _environment(ONEDNN_MAX_CPU_ISA=name, ATEN_CPU_CAPABILITY=FOR_PYTORCH.get(name, "")):
                able = [
                    c for c in candidates if c.engine.name in OBEY and c.precision in _computed(c.engine.name, name)
                ]
                yield from _proofs(bundle, able, name, of)
    yield from _proofs(bundle, [c for c in candidates if c.engine.name not in OBEY], "its own", "this one")


def _computed(engine: str, instructions: str) -> tuple[str, ...]:
    """Return what it computes in with these instructions: what OpenVINO has no narrow float for, it does in float32."""
    narrow = ("bf16",) if engine == "openvino" and instructions not in WITHOUT_REDUCED else ()
    return ("fp32", "int8", *narrow)


def _proofs(bundle: Bundle, candidates: Sequence[Candidate], name: str, of: str) -> Iterator[str]:
    for candidate in candidates:
        verdict = trials.prove_apart(bundle, candidate)
        assert verdict is not None  # nobody stops it
        yield f"| {name} | {of} | {candidate.engine.name} {candidate.precision} | {_numbers(verdict)} |"


def _numbers(verdict: Verdict) -> str:
    if not verdict.finish_s:
        return f"cannot: {verdict.failing.strip().splitlines()[-1]} | | "
    busy = " (busy)" if verdict.disturbed else ""
    failed = f" **{verdict.failing}**" if verdict.failing else ""
    return f"{verdict.finish_s:.3f}{busy} | {verdict.peak_mb:.0f} MB | {verdict.psnr_db:.1f}{failed}"


@contextmanager
def _held_to(threads: int) -> Iterator[None]:
    """Hold this process, and the children that it starts meanwhile, to so many processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Give children these variables meanwhile; an empty one is not set."""
    before = {name: os.environ.pop(name, None) for name in values}
    os.environ.update({name: value for name, value in values.items() if value})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
