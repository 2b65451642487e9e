"""
The installed wheels on other PCs, by qemu-user: which of them can be imported, and what the program says where one
cannot. What is slow to emulate is left out: PyTorch (25 s), and a whole server.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import backends
from engines.machine.preflight import BASE, BASELINE, LACKS
from tests.support.emulated import outcomes, x86
from tests.support.http import CJK

CORE_2 = "fpu sse sse2 pni cx16 ssse3 lahf_lm"  # of 2006: core2duo, in the words of its kernel
V2 = " ".join(("sse2", *BASELINE["x86_64"]))


def test_its_children_are_emulated_too(tmp_path: Path) -> None:
    """Or everything below would be about this machine's own processor."""
    asked = "import subprocess, sys; print(sys.prefix, flush=True); subprocess.run([sys.executable, '-c', sys.argv[1]])"
    name = "import numpy; from numpy._core._multiarray_umath import __cpu_features__ as f; print(f['SSE42'], f['AVX'])"
    done = x86(tmp_path, "Nehalem", V2).run("-c", asked, name)
    assert done.stdout.split() == [str(tmp_path / "venv"), "True", "False"], done.stderr


@pytest.mark.parametrize("module", ["webui", "engines.machine.preflight"])
def test_below_numpys_baseline_the_start_is_refused_in_a_sentence(tmp_path: Path, module: str) -> None:
    done = x86(tmp_path, "core2duo", CORE_2).run("-m", module, STUDIO_HOME=str(tmp_path / "home"), STUDIO_PORT="0")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "numpy" in done.stderr and "popcnt, sse4_1, sse4_2" in done.stderr and CJK.search(done.stderr)


@pytest.mark.parametrize(
    ("model", "why"), [("core2duo", LACKS), ("Penryn", "cannot be imported (RuntimeError: NumPy was built")]
)
def test_where_the_kernel_says_nothing_a_child_finds_out(tmp_path: Path, model: str, why: str) -> None:
    """numpy dies by SIGILL on one, and on the other it refuses by itself."""
    done = x86(tmp_path, model, "").run("-m", "webui", STUDIO_HOME=str(tmp_path / "home"), STUDIO_PORT="0")
    assert done.returncode == 2 and f"numpy {why}" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("model", ["Westmere", "Haswell", "max"])
def test_above_it_what_the_program_needs_can_be_imported(tmp_path: Path, model: str) -> None:
    assert outcomes(x86(tmp_path, model, V2), BASE, backends.engine("ort").trial) == {}


def test_on_the_oldest_so_can_each_engine_with_its_plugins(tmp_path: Path) -> None:
    trials = BASE, backends.engine("ort").trial, backends.engine("openvino").trial
    assert outcomes(x86(tmp_path, "Nehalem", V2), *trials) == {}


def test_below_it_each_engine_is_refused(tmp_path: Path) -> None:
    trials = backends.engine("ort").trial, backends.engine("openvino").trial
    assert outcomes(x86(tmp_path, "core2duo", ""), *trials) == dict.fromkeys(("ort", "openvino"), f"{LACKS} (SIGILL)")
