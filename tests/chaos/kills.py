"""The server is killed, or stopped in order, at moments drawn from a seed, while jobs wait and run."""

from __future__ import annotations

import json
import random
import signal
import socket
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.support.server import Process

JOBS = 5  # that are asked for between two kills
ASKED = {"steps": 4, "count": 2, "seed": 1, "backend": "edge"}
LATEST_S = 8.0  # until the kill, from the start or from when it serves
STARTING = 0.25  # of the lives end while it may still be starting, which takes seconds or many


def run(count: int, seed: int) -> list[str]:
    """Kill it `count` times. Return what went wrong."""
    return _lives(count, seed, signal.SIGKILL)


def run_stops(count: int, seed: int) -> list[str]:
    """Stop it in order `count` times: no job may pay for that with an attempt."""
    return _lives(count, seed, signal.SIGTERM)


def _lives(count: int, seed: int, number: signal.Signals) -> list[str]:
    lot, taken, took = random.Random(seed), set[str](), []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2 * JOBS) as clients:
        home = Path(folder)
        for k in range(count):
            server = Process(home)
            if lot.random() >= STARTING:
                _until_served(server)
            taken |= _ask(server, clients, time.monotonic() + lot.uniform(0.5, LATEST_S))
            begun = time.monotonic()
            server.stop(number)
            took.append(time.monotonic() - begun)
            print(f"{k + 1}/{count} {number.name}: {dict(states(home))}", flush=True)
        last = Process(home)
        last.until_ready()
        while {"queued", "running"} & states(home).keys():
            time.sleep(0.2)
        last.stop()
        wrong = faults(home, taken, number)
        print(f"\n{len(taken)} jobs, {count} x {number.name}, seed {seed}: {dict(states(home))}; {len(wrong)} faults")
        if number is signal.SIGTERM:
            print(f"a stop took {statistics.median(took):.1f} s in the median, {max(took):.1f} s at most")
    return wrong


def _ask(server: Process, clients: ThreadPoolExecutor, due: float) -> set[str]:
    """Submit jobs as soon as the door is open, and wait with them until it is `due`. Return those that were taken."""
    home, taken, asked = server.log.parent, set[str](), 0
    while time.monotonic() < due:
        if asked < JOBS and _open(server.url):
            clients.submit(ask, server.url, {"prompt": f"job {asked}", **ASKED})
            asked += 1
        taken |= {job_id for job_id, _ in query(home, "SELECT id, 0 FROM job")}
        time.sleep(0.03)
    return taken


def _until_served(server: Process) -> None:
    """It has taken its port long before."""
    while server.popen.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200:
                return
        time.sleep(0.03)


def _open(url: str) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1):
        return True
    return False


def ask(url: str, asked: dict[str, Any]) -> int:
    """Return the status; 0: the server went away meanwhile."""
    try:
        return httpx.post(f"{url}/generate", json=asked, timeout=300).status_code
    except httpx.TransportError:
        return 0


def query(home: Path, sql: str) -> list[tuple[str, int]]:
    path = home / "state" / "jobs.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=10)) as db, suppress(sqlite3.OperationalError):
        return db.execute(sql).fetchall()
    return []


def states(home: Path) -> Counter[str]:
    return Counter(state for state, _ in query(home, "SELECT state, 0 FROM job"))


def pictures_of(home: Path) -> dict[str, str]:
    """Return the pictures of the jobs that are done, each with its job; not what is damaged."""
    pictures: dict[str, str] = {}
    for body, job in query(home, "SELECT body, job FROM event WHERE body LIKE '%\"final\"%'"):
        with suppress(ValueError, KeyError, TypeError):  # damaged
            pictures |= dict.fromkeys(json.loads(body)["images"], str(job))
    return pictures


def faults(home: Path, taken: AbstractSet[str] = frozenset(), number: signal.Signals = signal.SIGKILL) -> list[str]:
    """Look at every job and at every file."""
    wrong = []
    if lost := taken - {job_id for job_id, _ in query(home, "SELECT id, 0 FROM job")}:
        wrong.append(f"{len(lost)} jobs are lost")
    named: list[str] = []
    for job_id, attempts in query(home, "SELECT id, attempts FROM job WHERE state='done'"):
        events = [json.loads(body) for body, _ in query(home, f"SELECT body, 0 FROM event WHERE job='{job_id}'")]
        finals = [event for event in events if event["kind"] == "final"]
        if len(finals) != 1:
            wrong.append(f"{job_id} ended {len(finals)} times after {attempts} attempts")
        named += [name for final in finals for name in final["images"]]
    if len(set(named)) != len(named):
        wrong.append("two jobs have the same picture")
    outputs = home / "outputs"
    for name in named:
        try:
            with Image.open(outputs / name) as picture:
                picture.load()
        except OSError as exc:
            wrong.append(f"{name}: {exc}")
    failed = query(home, "SELECT id, attempts FROM job WHERE state='failed'")
    print(f"{len(named)} pictures are shown; {len(failed)} jobs failed")
    if number is signal.SIGTERM and failed:
        wrong.append(f"{len(failed)} jobs failed though nothing crashed")
    shown = {json.loads(body).get("image", "") for body, _ in query(home, "SELECT body, 0 FROM event")}
    for path in outputs.glob("outputs_*"):
        if path.name not in named and path.name not in shown:
            wrong.append(f"{path.name} is nobody's")
    wrong += _different(home) + [f"{path.name} is half written" for path in outputs.glob(".*.tmp")]
    return wrong


def _different(home: Path) -> list[str]:
    """One prompt and one seed are one picture, however often the worker died in its middle: all are compared."""
    first: dict[tuple[str, int], bytes] = {}
    wrong, attempts = [], 0
    for job_id, tried in query(home, "SELECT id, attempts FROM job WHERE state='done'"):
        ((request, _),) = query(home, f"SELECT request, 0 FROM job WHERE id='{job_id}'")
        final = json.loads(
            query(home, f"SELECT body, 0 FROM event WHERE job='{job_id}' ORDER BY seq DESC LIMIT 1")[0][0]
        )
        attempts += tried > 1
        for k, name in enumerate(final["images"]):
            with Image.open(home / "outputs" / name) as picture:
                pixels = picture.tobytes()
            asked = json.loads(request)
            if asked.get("seed", -1) >= 0 and first.setdefault((asked["prompt"], k), pixels) != pixels:
                wrong.append(f"{name} is another picture than that of the same seed")
    print(f"{attempts} jobs were drawn in more than one attempt, {len(first)} different pictures")
    return wrong
