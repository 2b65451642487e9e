"""The doctor beside a server at work."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import REPOSITORY
from tests.support.tree import tree

if TYPE_CHECKING:
    from tests.support.server import Process


def test_it_asks_the_server_and_disturbs_nothing(process: Process) -> None:
    home, port = process.log.parent, process.url.rpartition(":")[2]
    env = {**os.environ, "STUDIO_HOME": str(home), "STUDIO_HOST": "127.0.0.1", "STUDIO_PORT": port}
    before = set(tree(home))
    done = subprocess.run([str(REPOSITORY / "run.sh"), "doctor"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"port {port} is this program's own" in done.stdout
    assert f"at work and ready (process {process.popen.pid})" in done.stdout
    assert "the jobs' database is whole" in done.stdout
    assert set(tree(home)) == before
