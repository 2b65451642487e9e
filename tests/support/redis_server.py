"""Debian's Redis on a port of this machine, whose log of changes outlives it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.brokers import free_port, wait_until

PROGRAM = shutil.which("redis-server")
MISSING = "redis-server is not installed (Debian: apt install redis-server)"
PASSWORD = "open-sesame"


class RedisServer:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.port, self._folder = free_port(), folder
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [PROGRAM or "redis-server", "--port", self.port, "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        command += ["--appendonly", "yes", "--save", "", "--dir", self._folder]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        wait_until(self._answers, "redis-server")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            time.sleep(0.02)
            return False

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(60)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Start it, and end it however the test does."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
