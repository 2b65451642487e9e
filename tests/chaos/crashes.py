"""What an engine may do to its process, or a kernel without memory: the page goes on, the next job is done soon."""

from __future__ import annotations

import os
import random
import signal
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.kills import ask, faults, states
from tests.support.server import Process

DEATHS = (signal.SIGSEGV, signal.SIGKILL, signal.SIGSTOP)  # SIGKILL is what an OOM killer sends
ASKED: dict[str, Any] = {"steps": 8, "count": 2, "seed": 1, "backend": "edge"}
NEXT: dict[str, Any] = {"prompt": "next", "steps": 1, "preview": "off", "backend": "edge"}
NEXT_S, LATEST_S, LOOK_S = 5.0, 6.0, 0.05


def run(count: int, seed: int) -> list[str]:
    """Do it `count` times, each while a job is under way. Return what went wrong."""
    lot, waited = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder:
        server, gone = Process(Path(folder)), list[float]()
        try:
            server.until_ready()
            watch = threading.Thread(target=_watch, args=(server, gone, over := threading.Event()))
            watch.start()
            for k in range(count):
                number = lot.choice(DEATHS)
                client = threading.Thread(target=ask, args=(server.url, {"prompt": f"job {k % 5}", **ASKED}))
                client.start()
                time.sleep(lot.uniform(0.1, LATEST_S))
                os.kill(worker_of(server), number)
                begun = time.monotonic()
                client.join()  # it is tried again, in front of the next one
                resumed = time.monotonic()
                status = ask(server.url, NEXT)
                waited.append(time.monotonic() - resumed)
                print(
                    f"{k + 1}/{count} {number.name}: {status}, {resumed - begun:.1f} + {waited[-1]:.1f} s", flush=True
                )
            over.set()
            watch.join()
        finally:
            server.stop()
        wrong = faults(server.log.parent)
        print(f"\n{count} deaths, seed {seed}: {dict(states(server.log.parent))}. The page was away {len(gone)} times.")
        print(f"The next job took {statistics.median(waited):.1f} s in the median, {max(waited):.1f} s at most.")
    wrong += [f"the page did not answer, {when:.1f} s after the start" for when in gone]
    return wrong + [f"the next job took {took:.1f} s" for took in waited if took > NEXT_S]


def _watch(server: Process, gone: list[float], over: threading.Event) -> None:
    """Ask for the page all the time, and note when it did not come."""
    begun = time.monotonic()
    with httpx.Client(timeout=5) as client:
        while not over.wait(LOOK_S):
            try:
                answered = client.get(f"{server.url}/config").status_code == 200
            except httpx.TransportError:
                answered = False
            if not answered:
                gone.append(time.monotonic() - begun)


def worker_of(server: Process) -> int:
    """The process with the engines, which may just be starting."""
    while True:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == server.popen.pid:
                    return int(folder.name)
        time.sleep(0.01)
