"""The program as a service of systemd's: what it says of itself, from its start to its stop."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.notified import listening
from tests.support.server import Process


def children(pid: int) -> list[Path]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")  # each thread has its own
    return [Path("/proc", child) for task in tasks for child in task.read_text().split()]


def test_systemd_hears_of_a_start_of_life_and_of_a_stop(tmp_path: Path) -> None:
    with listening(tmp_path) as ear:
        server = Process(tmp_path / "home", NOTIFY_SOCKET=ear.address, WATCHDOG_USEC="400000")
        try:
            assert ear.hear()[0] == "READY=1", "the first that it says"
            for _ in range(2):
                ear.until(lambda lines: "WATCHDOG=1" in lines)
            environments = [(child / "environ").read_bytes() for child in children(server.popen.pid)]
            assert environments and not any(b"NOTIFY_SOCKET" in environment for environment in environments)
        finally:
            server.stop(signal.SIGTERM)
        ear.until(lambda lines: lines[0] == "STOPPING=1")
