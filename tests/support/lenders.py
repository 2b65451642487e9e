"""A machine that lends parts of models, as a process with a home of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from engines import machine
from tests.conftest import REPOSITORY
from tests.support.proved import believe_imports

TOKEN = "a token for parts of models"


class LendingMachine:
    """`./run.sh parts` in a process of its own. `start` begins it again on the same port, after `kill` or `stop`."""

    def __init__(self, home: Path, **env: str) -> None:
        home.mkdir(exist_ok=True)
        believe_imports(home)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "GRADIO_"))}
        ours = {"STUDIO_HOME": str(home), "STUDIO_HOST": "127.0.0.1", "STUDIO_PARTS_TOKEN": TOKEN}
        self.home, self.log, self.env = home, home / "log", {**kept, **ours, **env}
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "webui.cli", "parts", "--port", str(self.port)],
                cwd=REPOSITORY,
                env=self.env,
                stdout=log,
                stderr=log,
            )
        cores = psutil.Process().cpu_affinity()[: machine.cores()]  # as many as in this process: sums are the same
        os.sched_setaffinity(self.popen.pid, cores)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.popen.poll() is None and time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.post(f"{self.url}/parts/open", timeout=5).status_code == 401
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Stop it as a person does; return its status."""
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(30)

    def kill(self) -> None:
        """As a power cut does."""
        self.popen.kill()
        self.popen.wait(30)

    def logs(self) -> str:
        return self.log.read_text(encoding="utf-8")[-4000:]
