"""What the kernel says of this machine."""

from __future__ import annotations

import mmap
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from engines import machine
from tests.conftest import REPOSITORY


def test_this_machine_has_memory() -> None:
    assert 10_000_000 < machine.free_bytes() <= machine.memory_bytes("MemTotal") < machine.UNLIMITED


def test_its_processor_has_flags() -> None:
    assert machine.processor_flags() & {"fpu", "fp", "half"}


def test_a_kernel_that_says_nothing_sets_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert machine.free_bytes() == machine.memory_bytes("SwapFree") == machine.UNLIMITED
    assert machine.held_bytes() == 0
    assert machine.processor_flags.__wrapped__() == frozenset()


def test_what_this_process_holds_is_counted_and_its_mapped_files_are_not(tmp_path: Path) -> None:
    size = 64_000_000
    (tmp_path / "weights").write_bytes(bytes(size))
    before = machine.held_bytes()
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # malloc may have as much left over
    for page in range(0, size, mmap.PAGESIZE):
        held[page] = 1
    with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) == 0  # every page is in memory now
        assert 0.9 * size < machine.held_bytes() - before < 1.5 * size
    assert len(held) == size


def test_what_the_heap_keeps_of_freed_memory_is_given_back() -> None:
    """In a process of its own, whose heap nobody else has used."""
    child = """
from engines import machine
blocks = [bytearray(100_000) for _ in range(1000)]  # less than what malloc maps by itself
del blocks[:-1]
kept = machine.held_bytes()
machine.trim_heap()
print(kept - machine.held_bytes())
"""
    ran = subprocess.run([sys.executable, "-c", child], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(ran.stdout) > (50_000_000 if platform.libc_ver()[0] == "glibc" else -1)
