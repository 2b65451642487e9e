"""
What this machine has, by what its kernel says of it: processor and memory. Knows no engine, and needs no installation:
the doctor asks here too, where nothing else may be installed.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path

from engines.machine import cgroup
from engines.machine.cgroup import UNLIMITED

__all__ = [
    "FAST",
    "UNLIMITED",
    "cores",
    "fast_flags",
    "free_bytes",
    "held_bytes",
    "memory_bytes",
    "processor_flags",
    "trim_heap",
    "wished",
]

# What makes engines fast, in the kernel's words; without the first they are slow.
FAST: Mapping[str, tuple[str, ...]] = {
    "x86": ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    "arm": ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
}


@cache
def processor_flags() -> frozenset[str]:
    """List what this processor can do, in the kernel's words ("avx512_bf16", "asimdhp"); empty where nobody says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.startswith(("flags", "Features")) for word in line.split()[2:])


def wished(kind: str) -> tuple[str, ...]:
    """Return what makes engines fast on this kind of machine ("x86_64", "aarch64")."""
    return FAST["arm" if kind.startswith(("arm", "aarch")) else "x86"]


def fast_flags(kind: str, flags: Set[str]) -> tuple[str, ...]:
    """Return those of the flags that make engines fast."""
    return tuple(flag for flag in wished(kind) if flag in flags)


def free_bytes() -> int:
    """Return the bytes a process may still take: of the machine's memory, or of the container's if that is less."""
    return min(memory_bytes("MemAvailable"), cgroup.memory_left())


def held_bytes() -> int:
    """
    Return the bytes that this process has for itself, and gives back when it unloads what it holds; 0 where nobody
    says. Pages of files do not count: they are free in `free_bytes` too.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def trim_heap() -> None:
    """Give back to the system what the C library keeps of freed memory, where it is one that can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def cores() -> int:
    """
    Count the processors whose time this process may use: of the machine's as taskset and a container's set of them
    limit them, and no more than the container's share of their time (`docker run --cpus 1.5` makes two).
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    return ours if quota >= ours else max(math.ceil(quota), 1)


def memory_bytes(name: str) -> int:
    """Return one of the numbers of /proc/meminfo ("MemTotal", "SwapFree"), in bytes; UNLIMITED where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return UNLIMITED
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
