"""
Machines that work for a studio are killed at moments drawn from a seed, and now and then the studio, and the Redis over
which they are called, while hundreds of jobs wait and run.
"""

from __future__ import annotations

import random
import signal
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from tests.chaos.kills import faults, query, states
from tests.support.machines import Machine
from tests.support.redis_server import PROGRAM, RedisServer
from tests.support.server import Process
from webui.people import WORKER
from webui.people.tokens import Tokens

MACHINES = 3  # beside the studio's own worker
JOBS_PER_KILL = 400 / 60
ASKED = {"steps": 6, "count": 2, "backend": "edge"}  # so long that most kills are in the middle of one
KILLS_PER_RESTART = 30  # of a machine, for one of the studio
KILLS_PER_OUTAGE, OUTAGE_S = 20, 5.0  # and for one of Redis, if it is installed
EARLIEST_S, LATEST_S = 1.0, 15.0  # until the next kill; a machine takes ten to start
PICTURES = 40  # that are different: the others are the same, drawn elsewhere perhaps
TAKEN_OVER_S = 15.0  # of 19 in 20: who dies while the studio starts anew is missed 10 s after that


def run(count: int, seed: int) -> list[str]:
    """Kill machines `count` times. Return what went wrong."""
    lot, jobs = random.Random(seed), round(count * JOBS_PER_KILL)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as beside:
        home = Path(folder, "studio")
        home.mkdir()
        redis = RedisServer(Path(folder, "redis")) if PROGRAM else None
        if redis is not None:
            redis.start()
        env = {"STUDIO_QUEUE": redis.url} if redis else {}
        server = Process(home, **env)
        server.until_ready()
        port = int(server.url.rpartition(":")[2])
        tokens = Tokens(home / "state" / "tokens.json")
        keys = {f"m{k}": tokens.add(f"{WORKER}m{k}") for k in range(MACHINES)}
        machines = {name: Machine(Path(folder, name), server.url, token, **env) for name, token in keys.items()}
        asking = beside.submit(_ask, server.url, jobs)
        took: list[float] = []
        for k in range(count):
            time.sleep(lot.uniform(EARLIEST_S, LATEST_S))
            name = lot.choice(sorted(machines))
            machines[name].kill()
            took += _taken_over(home, name)
            machines[name] = Machine(Path(folder, name), server.url, keys[name], **env)
            if k % KILLS_PER_RESTART == KILLS_PER_RESTART - 1:
                server.stop(signal.SIGKILL)
                server = Process(home, STUDIO_PORT=str(port), **env)
                server.url = f"http://127.0.0.1:{port}"
            if redis is not None and k % KILLS_PER_OUTAGE == KILLS_PER_OUTAGE - 1:
                redis.kill()
                time.sleep(OUTAGE_S)
                redis.start()
            print(f"{k + 1}/{count} {name}: {dict(states(home))}, taken over in {took[-1:]}", flush=True)
        taken = asking.result()
        while {"queued", "running"} & states(home).keys():
            time.sleep(0.2)
        for machine in machines.values():
            machine.popen.terminate()
        by = dict(query(home, "SELECT CASE worker WHEN '' THEN 'home' ELSE worker END, COUNT(*) FROM job GROUP BY 1"))
        server.stop()
        if redis is not None:
            redis.kill()
        wrong = faults(home, taken)
    wrong += [f"{len(taken)} of {jobs} jobs were taken"] if len(taken) != jobs else []
    restarts, outages = count // KILLS_PER_RESTART, count // KILLS_PER_OUTAGE if PROGRAM else 0
    killed = f"{count} kills of machines, {restarts} of the studio, {outages} of Redis"
    print(f"\n{len(taken)} jobs, {killed}, seed {seed}: {by}")
    if len(took) > 1:
        median, last = statistics.median(took), statistics.quantiles(took, n=20)[-1]
        wrong += [f"jobs were taken over after {last:.1f} s (p95)"] if last > TAKEN_OVER_S else []
        print(f"{len(took)} taken over: median {median:.1f} s, p95 {last:.1f} s; {len(wrong)} faults")
    return wrong


def _ask(url: str, count: int) -> set[str]:
    """Submit so many jobs, as fast as the studio takes them. Return those that it took."""
    taken: set[str] = set()
    while len(taken) < count:
        with suppress(httpx.TransportError):
            headers = {"Prefer": "respond-async"}
            k = len(taken) % PICTURES
            asked = {"prompt": f"picture {k}", "seed": k, **ASKED}
            answer = httpx.post(f"{url}/generate", json=asked, headers=headers, timeout=60)
            if answer.status_code == 202:
                taken.add(answer.json()["id"])
                continue
        time.sleep(0.5)
    return taken


def _taken_over(home: Path, name: str) -> list[float]:
    """Wait until nothing is a dead machine's any more; return how long that took, if it had something."""
    begun, had = time.monotonic(), False
    while query(home, f"SELECT id, 0 FROM job WHERE state='running' AND worker='{name}'"):
        had = True
        time.sleep(0.1)
        if time.monotonic() - begun > 4 * TAKEN_OVER_S:
            break
    return [time.monotonic() - begun] if had else []
