"""Nothing that an engine is made of tells anybody that it is used, nor leaves anything with whoever runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines import backends
from tests.conftest import REPOSITORY

# Libraries ask whether they run in a CI, and tell then what they would keep to themselves, or the other way round.
CI = ("CI", "TF_BUILD", "JENKINS_URL")
LISTENED = """
import json, sys, time
from pathlib import Path
events = []
sys.addaudithook(lambda event, args: events.append(event))
from engines import backends
from engines.bundle import Shelf
import numpy as np
builtin, name = Path(sys.argv[1]), sys.argv[2]
engine, bundle = backends.engine(name), Shelf((builtin,)).open("restorer")
session = engine.load(bundle, bundle.part("restorer", engine.formats))
side = bundle.face.size_px
session.run({"face": np.zeros((1, 3, side, side), np.float32)})
time.sleep(0.5)  # what is sent is sent by a thread
print(json.dumps(sorted(set(events))))
"""


@pytest.mark.parametrize("name", backends.names())
def test_an_engine_neither_goes_online_nor_forks(builtin: Path, tmp_path: Path, name: str) -> None:
    """OpenVINO told Google Analytics of each import, through a fork that could hang and hold the home's lock."""
    if not (probe := backends.engine(name).probe()).ok:
        pytest.skip(f"{name}: {probe.reason}")
    env = {key: value for key, value in os.environ.items() if key not in CI}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", LISTENED, str(builtin), name],
        cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    events = set(json.loads(done.stdout.splitlines()[-1]))
    assert "open" in events, "it listens"
    assert not events & {"socket.connect", "socket.getaddrinfo", "urllib.Request", "os.fork", "os.forkpty"}
    assert [path.name for path in tmp_path.rglob("*")] == [], "something is left in the home of whoever runs it"
