"""What the kernel says of this machine."""

from __future__ import annotations

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
    assert machine.processor_flags.__wrapped__() == frozenset()
