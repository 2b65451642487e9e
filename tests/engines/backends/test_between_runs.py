"""
What sessions hold between their runs: memory, of ONNX Runtime's in one arena, which is given back when it is asked for;
and no processor.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from engines import backends
from tests.conftest import REPOSITORY

# In a process of its own: what others have freed in this one would be used again. Sizes are of the whole process, in
# megabytes, while the built-in full decoder decodes 512 x 512 pixels.
CHILD = """
import time
import numpy as np
from pathlib import Path
from engines import backends
from engines.bundle import BUILT_IN, Shelf

def resident_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))

bundle, engine = Shelf((BUILT_IN,)).open("portrait"), backends.engine("{name}")
engine.load(bundle, bundle.part("preview_decoder", engine.formats)).close()
begun_mb = resident_mb()
sessions = [engine.load(bundle, bundle.part("decoder", engine.formats)) for _ in range(2)]
latents = np.random.default_rng(0).standard_normal((1, 16, 32, 32)).astype(np.float32)
sizes = [resident_mb()]
for session in sessions:
    for _ in range(3):
        session.run({{"latents": latents}})
    sizes.append(resident_mb())
busy_s = time.process_time()
time.sleep(0.1)
busy_s = time.process_time() - busy_s
for session in sessions:
    session.release_memory()
sizes.append(resident_mb())
for session in sessions:
    session.close()
print(begun_mb, *sizes, resident_mb(), busy_s)
"""


@cache
def measured(name: str) -> tuple[float, ...]:
    """
    Megabytes before, once both are loaded, after runs of one, after runs of both, given back, and closed; seconds busy
    in 0.1 s.
    """
    if not backends.engine(name).probe().ok:
        pytest.skip(f"{name} cannot work here")
    ran = subprocess.run(
        [sys.executable, "-c", CHILD.format(name=name)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return tuple(float(number) for number in ran.stdout.split())


def test_sessions_of_onnx_runtime_share_an_arena() -> None:
    _, loaded, first, both, *_ = measured("ort")
    assert first - loaded > 50, "a decode takes something"
    assert both - first < 0.3 * (first - loaded), "the second takes what the first has left"


@pytest.mark.parametrize("name", ["ort", "openvino"])
def test_what_was_taken_is_given_back(name: str) -> None:
    _, loaded, _, both, released, *_ = measured(name)
    assert released - loaded < 0.5 * (both - loaded)


@pytest.mark.parametrize("name", ["ort", "openvino"])
def test_what_is_closed_leaves_nothing_behind(name: str) -> None:
    begun, _, _, both, _, closed, _ = measured(name)
    assert closed - begun < 0.25 * (both - begun)


@pytest.mark.parametrize("name", ["ort", "openvino"])
def test_threads_do_not_spin_when_a_run_is_over(name: str) -> None:
    """They would share the processors with the next session's."""
    assert measured(name)[-1] < 0.005
