"""
Fifty people and programs use one house for minutes or hours: pages, pictures, photos, jobs that are followed or given
up, nonsense. Nothing may be answered with an error of the server's, and neither memory nor open files may grow.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.chaos.crashes import worker_of
from tests.chaos.kills import faults, states
from tests.support.http import encoded, people
from tests.support.server import Process

CLIENTS = 50
REST_S = 4.0  # of a client between two acts, on average
SAMPLE_S = 5.0
SETTLED = 1 / 3  # of the time, after which nothing is warmed up any more
MOST_MB_PER_H = 1.0
LONG_S = 1200.0  # a slope of less says nothing
QUEUE = "16"  # small, so that refusals for want of room are among the answers
QUICK: dict[str, Any] = {"steps": 2, "width": 256, "height": 256, "backend": "edge"}
ASYNC = {"Prefer": "respond-async"}
MAY_BE = (
    200,
    202,
    204,
    304,
    400,
    404,
    405,
    409,
    413,
    415,
    422,
    429,
)  # whatever is the caller's, or is told to come again


def run(count: int, seed: int) -> list[str]:
    """Use it for `count` minutes. Return what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        server = Process(Path(folder), STUDIO_QUEUE_LIMIT=QUEUE)
        try:
            server.until_ready()
            watch = asyncio.run(_use(server, 60.0 * count, seed))
        finally:
            server.stop()
        wrong = faults(server.log.parent)
        if "Traceback" in server.log.read_text(encoding="utf-8"):
            wrong.append(f"a traceback in the log: {server.log.read_text(encoding='utf-8')[-2000:]}")
        print(
            f"\n{count} min, {CLIENTS} clients, seed {seed}: {dict(watch.statuses)}; {dict(states(server.log.parent))}"
        )
    for name, took in sorted(watch.took.items()):
        p95 = sorted(took)[int(0.95 * len(took))]
        print(f"  {name:10} {len(took):6}, median {1000 * statistics.median(took):6.0f} ms, p95 {1000 * p95:6.0f} ms")
    return wrong + watch.wrong + [line for name, samples in watch.samples.items() for line in _grown(name, samples)]


class Sample(NamedTuple):
    """`own_mb`: what no file holds, swapped out or not. The kernel takes and gives back pages of files as it likes."""

    at_s: float
    mb: float
    own_mb: float
    files: int


@dataclass
class Watch:
    """`samples`: by process, at what second, how many megabytes, how many of them its own, and how many open files."""

    statuses: Counter[int] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)


async def _use(server: Process, seconds: float, seed: int) -> Watch:
    watch, until = Watch(), time.monotonic() + seconds
    clients = [_client(server.url, random.Random(f"{seed} {k}"), watch, until) for k in range(CLIENTS)]
    sampling = asyncio.create_task(_sample(server, watch))
    await asyncio.gather(*clients)
    sampling.cancel()  # before the clients have closed their connections
    return watch


async def _sample(server: Process, watch: Watch) -> None:
    begun = time.monotonic()
    while True:
        with suppress(OSError, StopIteration):
            for name, pid in (("server", server.popen.pid), ("worker", worker_of(server))):
                watch.samples[name].append(_look(pid, time.monotonic() - begun))
        await asyncio.sleep(SAMPLE_S)


def _look(pid: int, at_s: float) -> Sample:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mb = {name: int(lines[name].split()[0]) / 1000 for name in ("VmRSS", "RssAnon", "VmSwap")}
    return Sample(at_s, mb["VmRSS"], mb["RssAnon"] + mb["VmSwap"], len(os.listdir(f"/proc/{pid}/fd")))


def _grown(name: str, samples: list[Sample]) -> list[str]:
    """Return what of a process has grown since all was warmed up, by least squares."""
    settled = [sample for sample in samples if sample.at_s >= samples[-1].at_s * SETTLED]
    slope, own = (_slope(settled, attrgetter(kind)) for kind in ("mb", "own_mb"))
    files = [sample.files for sample in settled]
    print(
        f"{name}: {_course(samples, attrgetter('mb'))} MB, {slope:+.2f} MB/h; {min(files)} to {max(files)} open files"
    )
    print(f"  of these its own: {_course(samples, attrgetter('own_mb'))} MB, {own:+.2f} MB/h")
    return [f"the {name} grows by {own:.1f} MB/h"] if own > MOST_MB_PER_H and samples[-1].at_s > LONG_S else []


def _slope(samples: list[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.linear_regression([sample.at_s / 3600 for sample in samples], [*map(value, samples)]).slope


def _course(samples: list[Sample], value: Callable[[Sample], float]) -> str:
    tenth = max(1, len(samples) // 10)
    tenths = (samples[at : at + tenth] for at in range(0, len(samples), tenth))
    return " ".join(f"{statistics.median(map(value, part)):.1f}" for part in tenths)


async def _client(url: str, lot: random.Random, watch: Watch, until: float) -> None:
    """One browser, with a cookie of its own. It uses no connection again that the server may just be closing."""
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        await client.get("/me")
        while time.monotonic() < until:
            act = lot.choice(ACTS)
            name, begun = act.__name__.strip("_"), time.monotonic()
            try:
                answers = await act(client, lot)
            except httpx.HTTPError as exc:
                watch.wrong.append(f"{name}: {exc!r}")
                answers = []
            watch.took.setdefault(name, []).append(time.monotonic() - begun)
            watch.statuses.update(answer.status_code for answer in answers)
            watch.wrong += [
                f"{name}: {answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:200]}"
                for answer in answers
                if answer.status_code not in MAY_BE
            ]
            await asyncio.sleep(lot.expovariate(1 / REST_S))


async def _page(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    return [await client.get(path) for path in ("/", "/config", "/thumbnails/nobody.webp")]


async def _looks(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    return [await client.get(path) for path in ("/healthz", "/readyz", "/metrics", "/jobs", "/v1/models")]


async def _draws(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    answers = [await client.post("/generate", json={"prompt": f"somebody {lot.random()}", **QUICK})]
    if answers[0].status_code == 200:
        answers += [await client.get(address) for address in answers[0].json()["images"]]
    return answers


async def _restores(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    (photo := people()).putpixel((0, 0), (lot.randrange(256), lot.randrange(256), lot.randrange(256)))
    return [await client.post("/enhance", files={"image": ("a.png", encoded(photo, "PNG"))})]


async def _follows(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    """To the end, or not: pages are closed."""
    answers = [await client.post("/generate", json={"prompt": "followed", **QUICK}, headers=ASYNC)]
    if answers[0].status_code == 202:
        job = answers[0].headers["location"]
        async with client.stream("GET", f"{job}/events") as events:
            heard = lot.randrange(6)
            async for _ in events.aiter_lines():
                if (heard := heard - 1) < 0:
                    break
        answers += [await client.get(job), await client.delete(job), await client.get(job)]
    return answers


async def _hangs_up(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    with suppress(httpx.TimeoutException):
        return [await client.post("/generate", json={"prompt": "never mind", **QUICK}, timeout=lot.uniform(0.05, 1.0))]
    return []


async def _errs(client: httpx.AsyncClient, lot: random.Random) -> list[httpx.Response]:
    return [
        await client.post("/generate", json={"prompt": "x", "steps": 9999}),
        await client.post("/generate", content=b"{", headers={"Content-Type": "application/json"}),
        await client.post("/enhance", files={"image": ("a.jpg", b"no picture " * lot.randrange(1, 999))}),
        await client.get(f"/jobs/{lot.getrandbits(128):032x}"),
        await client.get("/outputs/nobodys/outputs_20260101000000.png"),
        await client.post("/v1/images/generations", json={"model": "nobody", "prompt": "x"}),
    ]


Act = Callable[[httpx.AsyncClient, random.Random], Awaitable[list[httpx.Response]]]
ACTS: tuple[Act, ...] = (_page, _page, _looks, _looks, _draws, _restores, _follows, _hangs_up, _errs)
