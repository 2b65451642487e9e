"""
How much of the machine this process may use, by its control groups: what a container, a service or a person has set.
Both generations (v2 in one tree, v1 a tree for each controller), and every group above this one, as each limits it.

Files: Linux's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory.rst,cpusets.rst}, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # below which the kernel's own files are; of tests another
MOUNT = "sys/fs/cgroup"
UNIFIED = ("", "unified")  # where v2 is mounted, below MOUNT: alone, or beside v1
UNLIMITED = 2**62  # bytes


def cpu_quota() -> float:
    """Return how many processors' time this process may use at most; infinite where nobody limits it."""
    limits = [quota for folder in _groups("cpu") for quota in (_cpu_max(folder), _cfs_quota(folder))]
    return min(limits, default=math.inf)


def memory_left() -> int:
    """
    Return the bytes that may still be taken; UNLIMITED where nobody limits it. Pages of files do not count as used:
    the kernel takes them back when it needs them.
    """
    return min((_left(folder) for folder in _groups("memory")), default=UNLIMITED)


def _groups(controller: str) -> Iterator[Path]:
    """
    Yield the folders of the groups that limit this process, of both generations. In a container the path is often that
    of the host, of which only the end is mounted: then the mount itself is the group.
    """
    for line in _lines(ROOT / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in (controllers, controller) if controllers else UNIFIED:
            top = ROOT / MOUNT / mount
            group = top.joinpath(*(part for part in Path(path).parts[1:] if part != ".."))
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top) and folder.is_dir())


def _cpu_max(folder: Path) -> float:
    """v2: `200000 100000`, or `max 100000`"""
    match " ".join(_lines(folder / "cpu.max")).split():
        case [quota, period] if quota != "max":
            return int(quota) / int(period)
    return math.inf


def _cfs_quota(folder: Path) -> float:
    """v1: two files; -1 stands for no limit"""
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else math.inf


def _left(folder: Path) -> int:
    limits = [_number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    used = [_number(folder / name) for name in ("memory.current", "memory.usage_in_bytes")]
    limit = min((number for number in limits if number is not None), default=UNLIMITED)
    usage = next((number for number in used if number is not None), None)
    if limit >= UNLIMITED or usage is None:
        return UNLIMITED
    statistics = dict(line.split()[:2] for line in _lines(folder / "memory.stat"))
    total = "total_" if "total_inactive_file" in statistics else ""  # v1, where the plain names leave out groups below
    files = sum(int(statistics.get(f"{total}{name}", 0)) for name in ("inactive_file", "active_file"))
    return max(limit - usage + files, 0)


def _number(path: Path) -> int | None:
    """Return the number in a file; None: there is none, or it says `max`."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0] != "max" else None


def _lines(path: Path) -> list[str]:
    """Return a file's lines; none: it cannot be read, as where no such group or no Linux is."""
    try:
        return path.read_text(encoding="ascii").split("\n")[:-1]
    except OSError:
        return []
