"""
Jobs a second by the studio's own worker, by one on another machine that has joined it, and by two of those, all on this
machine: whether what lies between (HTTP, a second queue, pictures that are sent) costs anything. Where Redis and Celery
are installed, by those who are called too.

The others alone have the bundle that they draw by, so that home keeps out of it. Two workers have half of the
processors each. Every round does each in turn; the table has medians of the rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from benchmarks.timing import head
from engines import machine
from engines.bundle import BUILT_IN
from webui.people import WORKER
from webui.people.tokens import Tokens

ROUNDS, JOBS, STEPS = 3, 24, 8
NAMES = ("desk", "den")
PATIENCE_S = 300.0
QUIET = "00:00-23:59"  # no engine is proved meanwhile


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        queue = (
            stack.enter_context(redis_server(folder)) if shutil.which("redis-server") and find_spec("celery") else ""
        )
        house = stack.enter_context(a_house(folder / "studio", queue))
        _measure(house, folder, queue)


def has_redis() -> bool:
    return shutil.which("redis-server") is not None and find_spec("celery") is not None


def _measure(house: House, folder: Path, queue: str) -> None:
    ways: dict[str, tuple[int, str]] = {"one joined": (1, ""), "two joined": (2, "")}
    if queue:
        ways |= {"one called over Redis": (1, queue), "two called over Redis": (2, queue)}
    rates: dict[str, list[float]] = {name: [] for name in ("the studio's own", *ways)}
    for _ in range(ROUNDS):
        rates["the studio's own"].append(house.rate("portrait"))
        for name, (count, called) in ways.items():
            with house.joined(folder, NAMES[:count], called):
                rates[name].append(house.rate("joined"))
    own = statistics.median(rates["the studio's own"])
    cores = machine.cores()
    head(f"Built-in portraits of {STEPS} steps, {JOBS} in a row, {cores} cores", "worker", "jobs/s", "ratio", "ms/job")
    for name, measured in rates.items():
        rate = statistics.median(measured)
        print(f"| {name} | {rate:.2f} | {rate / own:.2f} | {1000 * (1 / rate - 1 / own):+.0f} |")


class House:
    """A studio that runs, at `url`."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.url = home, url

    def rate(self, bundle: str) -> float:
        """Return jobs a second, after one that is not counted."""
        for count in (1, JOBS):
            started = time.perf_counter()
            for seed in range(count):
                self.submit({"prompt": "a woman", "bundle": bundle, "steps": STEPS, "seed": seed, "backend": "edge"})
            while self._left():
                time.sleep(0.01)
        return JOBS / (time.perf_counter() - started)

    @contextmanager
    def joined(self, folder: Path, names: Sequence[str], queue: str) -> Iterator[None]:
        """Have machines of these names work for it."""
        shares = list(_shares(len(names)))
        processes = []
        for name, share in zip(names, shares, strict=True):
            home = folder / f"{name}-{len(share)}"
            if not home.exists():
                _give_bundle(home / "models" / "joined")
            token = Tokens(self.home / "state" / "tokens.json").add(WORKER + name)
            env = {
                "STUDIO_SERVER": self.url,
                "STUDIO_WORKER_TOKEN": token,
                "STUDIO_QUEUE": queue,
            }
            processes.append(_start(home, ["webui.cli", "worker"], share, **env))
        try:
            _until(lambda: self.ready().get("workers") == dict.fromkeys(names, "ready"))
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(60)

    def ready(self) -> dict[str, Any]:
        with suppress(OSError), urlopen(f"{self.url}/readyz", timeout=10) as answer:
            return dict(json.load(answer))
        return {}

    def submit(self, values: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        request = Request(f"{self.url}/generate", json.dumps(values).encode(), headers)
        with urlopen(request, timeout=60) as answer:
            answer.read()

    def states(self) -> dict[str, int]:
        """Return how many jobs there are, by their states."""
        with closing(sqlite3.connect(self.home / "state" / "jobs.db")) as db:
            return dict(db.execute("SELECT state, COUNT(*) FROM job GROUP BY state").fetchall())

    def _left(self) -> int:
        states = self.states()
        if failed := states.get("failed", 0):
            raise RuntimeError(f"{failed} jobs failed: see {self.home}/log")
        return states.get("queued", 0) + states.get("running", 0)


@contextmanager
def a_house(home: Path, queue: str) -> Iterator[House]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    process = _start(home, ["webui"], next(_shares(1)), STUDIO_PORT=str(port), STUDIO_QUEUE=queue)
    house = House(home, f"http://127.0.0.1:{port}")
    try:
        _until(lambda: house.ready().get("status") == "ready")
        yield house
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(60)


def _shares(count: int) -> Iterator[list[int]]:
    """Return the processors of each of so many workers."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[k::count] or cores for k in range(count))


def _start(home: Path, module: list[str], cores: list[int], **settings: str) -> subprocess.Popen[bytes]:
    home.mkdir(parents=True, exist_ok=True)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "GRADIO_"))}
    ours = {"STUDIO_HOME": str(home), "STUDIO_QUIET_HOURS": QUIET, **settings}
    with (home / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", *module], env={**bare, **ours}, stdout=log, stderr=log)
    os.sched_setaffinity(process.pid, cores)  # before it has any thread
    return process


def _give_bundle(folder: Path) -> None:
    shutil.copytree(BUILT_IN / "portrait", folder)
    manifest = folder / "bundle.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text("utf-8")), "name": folder.name}), encoding="utf-8")


def _until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a process did not become ready")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
