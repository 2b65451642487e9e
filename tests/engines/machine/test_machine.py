"""What the kernel says of this machine."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from engines import machine


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
