"""As many ask at one time as nobody can serve: some are let in, the others are told when to come again, and soon."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from tests.chaos.kills import states
from tests.support.server import Process

LIMIT, AT_ONCE = 64, 16
LONG = {"steps": 50, "count": 8, "preview": "off", "backend": "edge"}  # none ends meanwhile


def run(count: int, seed: int) -> list[str]:
    """Ask `count` times, AT_ONCE beside those that wait, then hang up. Return what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        server = Process(Path(folder), STUDIO_QUEUE_LIMIT=str(LIMIT))
        try:
            server.until_ready()
            return asyncio.run(_crowd(server, count, seed))
        finally:
            server.stop()


async def _crowd(server: Process, count: int, seed: int) -> list[str]:
    threads = _threads(server)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
        room = asyncio.Semaphore(LIMIT + AT_ONCE)
        asking = [asyncio.ensure_future(_ask(client, room, {"prompt": f"{seed} {k}", **LONG})) for k in range(count)]
        while sum(answer.done() for answer in asking) < count - LIMIT:
            await asyncio.sleep(0.05)
        meanwhile = _threads(server)
        health = (await client.get("/healthz")).status_code
        for answer in asking:
            answer.cancel()
        answers = [answer.result() for answer in asking if answer.done() and not answer.cancelled()]
    statuses = Counter(status for status, _ in answers)
    seconds = sorted(took for status, took in answers if status == 429)
    p95 = seconds[int(0.95 * len(seconds))] if seconds else 0.0
    print(
        f"{count} asked, {AT_ONCE} at once, limit {LIMIT}: {dict(statuses)}, the others wait. Refused after a median of"
    )
    middle = statistics.median(seconds or [0.0])
    print(f"{middle * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms. Threads: {threads}, then {meanwhile}.")
    faults = []
    if statuses != {429: count - LIMIT}:
        faults.append(f"not {count - LIMIT} refusals: {dict(statuses)}")
    if health != 200:
        faults.append(f"/healthz answers {health} meanwhile")
    for _ in range(100):
        if not await asyncio.to_thread(_waiting, server):
            break
        await asyncio.sleep(0.1)
    else:
        faults.append(f"{_waiting(server)} jobs wait on for clients that have hung up")
    return faults


async def _ask(client: httpx.AsyncClient, room: asyncio.Semaphore, asked: dict[str, object]) -> tuple[int, float]:
    async with room:
        begun = time.perf_counter()
        status = (await client.post("/generate", json=asked)).status_code
        return status, time.perf_counter() - begun


def _threads(server: Process) -> int:
    return len(list(Path(f"/proc/{server.popen.pid}/task").iterdir()))


def _waiting(server: Process) -> int:
    now = states(server.log.parent)
    return now["queued"] + now["running"]
