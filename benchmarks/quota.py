"""
How long the built-in portrait takes where a process may use one processor's time on a machine with more, as in
`docker run --cpus 1`: with a thread for each processor of the machine, with as many as `machine.cores` counts, and
beside that on one processor without a limit. Makes a real control group, and so needs to be root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.timing import head, in_turn
from engines import backends, machine
from engines.bundle import BUILT_IN, Shelf
from engines.machine import cgroup
from engines.messages import Final, Generate
from engines.studio import Studio

PERIOD_US = 100_000
ROUNDS = 7
CHILD = (sys.executable, "-m", "benchmarks.quota")


@contextmanager
def one_processors_time() -> Iterator[Path]:
    """Make a group that may use one processor's time, of whichever generation this kernel has."""
    root = Path("/sys/fs/cgroup")
    v1 = (root / "cpu").is_dir()
    group = (root / "cpu" if v1 else root) / f"awportrait-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("cpu.cfs_quota_us" if v1 else "cpu.max")).write_text(str(PERIOD_US), encoding="ascii")
        yield group
    finally:
        group.rmdir()


def main() -> None:
    all_of_them = len(os.sched_getaffinity(0))
    head("built-in portrait", "engine", "one processor", f"a thread for each of {all_of_them}", "as counted", "ratio")
    with one_processors_time() as group:
        for engine in ("openvino", "ort", "pytorch"):
            if not any(each.group == engine or each.name == engine for each in backends.engines() if each.probe().ok):
                continue
            free = _seconds(engine, "", 1)
            before, counted = (_seconds(engine, str(group), threads) for threads in (all_of_them, 0))
            print(f"| {engine} | {free:.2f} s | {before:.2f} s | {counted:.2f} s | {counted / free:.2f} |", flush=True)


def _seconds(engine: str, group: str, threads: int) -> float:
    """`threads`: 0 for as many as are counted. Without a group the child is held to one processor."""
    ran = subprocess.run([*CHILD, engine, group, str(threads)], capture_output=True, text=True, check=True)
    return float(ran.stdout.split()[-1])


def draw(engine: str, group: str, threads: int) -> None:
    """Print the seconds that a portrait takes in this process."""
    if group:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        assert cgroup.cpu_quota() == 1
    else:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if threads:
        machine.cores = lambda: threads
        for module in [module for name, module in sys.modules.items() if name.endswith("_backend")]:
            vars(module)["cores"] = machine.cores
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        studio = Studio(Shelf((BUILT_IN,)), folder)

        def portrait() -> None:
            *_, last = studio.run(Generate("微笑的女孩", seed=1, backend=engine, preview="off"), folder)
            assert isinstance(last, Final), last

        print(in_turn({"portrait": portrait}, ROUNDS)["portrait"])


if __name__ == "__main__":
    draw(sys.argv[1], sys.argv[2], int(sys.argv[3]))
