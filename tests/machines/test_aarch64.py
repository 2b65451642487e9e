"""The wheels of aarch64 on its processors, by qemu-user."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import backends
from engines.machine.preflight import BASE
from tests.support.emulated import aarch64, outcomes
from tests.support.http import CJK

ENGINES = backends.engine("ort").trial, backends.engine("openvino").trial
ARMV8 = "fp asimd evtstrm crc32 cpuid"  # of a Raspberry Pi 4


@pytest.mark.parametrize("model", ["cortex-a53", "cortex-a72", "max"])
def test_everything_can_be_imported_from_the_first_armv8_on(tmp_path: Path, model: str) -> None:
    assert outcomes(aarch64(tmp_path, model, ARMV8), BASE, *ENGINES) == {}


def test_an_engine_that_crashes_is_refused_and_the_other_one_is_not(tmp_path: Path) -> None:
    """ONNX Runtime looks who has made the processor, and dies where the kernel does not say."""
    why = outcomes(aarch64(tmp_path, "cortex-a72", ""), *ENGINES)
    assert why == {"ort": "crashes when it is imported (SIGSEGV)"}


def test_without_vectors_the_start_is_refused_in_a_sentence(tmp_path: Path) -> None:
    machine = aarch64(tmp_path, "cortex-a53", "fp")
    done = machine.run("-m", "webui", STUDIO_HOME=str(tmp_path / "home"), STUDIO_PORT="0")
    assert done.returncode == 2 and "(asimd)" in done.stderr and CJK.search(done.stderr), done.stderr
