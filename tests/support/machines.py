"""A machine that works for a studio on another, as a process with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.support.proved import believe_engines


class Machine:
    """`./run.sh worker` in a process of its own. `url`: the studio's; empty: it looks for it."""

    def __init__(self, home: Path, url: str, token: str, **env: str) -> None:
        home.mkdir(exist_ok=True)
        believe_engines(home)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "GRADIO_"))}
        ours = {"STUDIO_HOME": str(home), "STUDIO_WORKER_TOKEN": token, "STUDIO_BACKEND": "edge"}
        self.home, self.log = home, home / "log"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "webui.cli", "worker", *(("--join", url) if url else ())],
                cwd=REPOSITORY,
                env={**kept, **ours, **env},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """As a power cut does: its engines end with it."""
        self.popen.kill()
        self.popen.wait(60)
