"""As many ask at one time as nobody can serve: some are let in, the others are told when to come again, and soon."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

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
    room = asyncio.Semaphore(LIMIT + AT_ONCE)
    asking = [asyncio.ensure_future(_ask(server.url, room, {"prompt": f"{seed} {k}", **LONG})) for k in range(count)]
    while sum(answer.done() for answer in asking) < count - LIMIT:
        await asyncio.sleep(0.05)
    meanwhile = _threads(server)
    health = (await asyncio.to_thread(httpx.get, f"{server.url}/healthz")).status_code
    for answer in asking:
        answer.cancel()
    await asyncio.wait(asking)
    answers = [answer.result() for answer in asking if not answer.cancelled()]
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


async def _ask(url: str, room: asyncio.Semaphore, asked: dict[str, object]) -> tuple[int, float]:
    """By a bare socket: for 16 at once, on two cores, a client library takes longer than the server does."""
    place, body = urlsplit(url), json.dumps(asked)
    head = f"Host: {place.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    async with room, asyncio.timeout(60):
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            writer.write(f"POST /generate HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
            status = int((await reader.readline()).split()[1])
        finally:
            writer.close()
        return status, time.perf_counter() - begun


def _threads(server: Process) -> int:
    return len(list(Path(f"/proc/{server.popen.pid}/task").iterdir()))


def _waiting(server: Process) -> int:
    now = states(server.log.parent)
    return now["queued"] + now["running"]
