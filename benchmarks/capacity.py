"""
Where a studio that many machines work for comes to its end, piece by piece and with the real code: the queue's
database, the disk, one web process at the workers' door, and Redis with Celery. The machines here draw nothing: each
sends as many events as a portrait has, and a picture of its size, at once.

benchmarks/simulate.py takes these numbers to machines that nobody has.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import head
from benchmarks.workers import House, a_house, has_redis, redis_server
from engines import files
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Final, Generate, Preview, Progress
from engines.messages.status import BundleStatus, Choice, Status
from engines.worker.studio_client import StudioClient
from webui.people import WORKER
from webui.people.tokens import Tokens

EVENTS, PREVIEWS = 12, 4  # of a portrait of eight steps, its end aside
PICTURE_BYTES = 400_000
SECONDS, CLIENTS = 5.0, 8
ROWS = (1_000, 100_000)
BUNDLE = "elsewhere"  # which home does not have
HAS_IT = Status(
    "ready",
    bundles=(
        BundleStatus(
            BUNDLE, "portrait", {}, "", ((512, 512),), 8, 0.0, "ort", "",
            (Choice("ort", "edge", "accepted"),), digest="d",
        ),
    ),
)  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head("A studio's ends, each by itself", "what", "a second", "ms each")
        for rows in ROWS:
            _row(f"jobs through the database, {rows} in it", database_rate(folder / f"{rows}.db", rows))
        _row(f"pictures of {PICTURE_BYTES // 1000} KB on the disk, each for good", disk_rate(folder / "pictures"))
        if has_redis():
            with redis_server(folder) as url:
                _row("calls by Celery over Redis", call_rate(url))
        with a_house(folder / "studio", "") as house:
            _row(f"heartbeats at one web process, {CLIENTS} at one time", heartbeat_rate(house))
            _row(f"jobs at one web process, {CLIENTS} machines that take no time", door_rate(house))


def _row(what: str, rate: float) -> None:
    print(f"| {what} | {rate:.0f} | {1000 / rate:.2f} |", flush=True)


def database_rate(path: Path, rows: int, seconds: float = SECONDS) -> float:
    """Return the jobs a second that are submitted, begun and ended, one at a time, where so many have ended."""
    queue = SqliteQueue(path, path.with_suffix(".outputs"))
    with queue._transaction() as db:
        done = [(f"{k:032x}", "{}", "done", float(k)) for k in range(rows)]
        db.executemany("INSERT INTO job(id, request, state, ended) VALUES(?, ?, ?, ?)", done)

    def job(k: int) -> None:
        queue.submit(Generate(f"picture {k}"))
        job = queue.claim()
        assert job is not None
        for event in _events(k, ""):
            queue.publish(job, event)

    try:
        return _rate(job, seconds)
    finally:
        queue.close()


def disk_rate(folder: Path, seconds: float = SECONDS) -> float:
    folder.mkdir()
    picture = bytes(PICTURE_BYTES)
    return _rate(lambda k: files.write_atomic(folder / f"{k}.png", picture, durable=True), seconds)


def call_rate(url: str, seconds: float = SECONDS) -> float:
    from engines.jobs.celery_queue import TASK, calls_of, celery_app

    app = celery_app(url)
    return _rate(lambda k: app.send_task(TASK, (f"{k:032x}",), queue=calls_of("desk")), seconds)


def heartbeat_rate(house: House, clients: int = CLIENTS, seconds: float = SECONDS) -> float:
    return _together(house, clients, seconds, lambda client, k: client.announce(HAS_IT, "", False))


def door_rate(house: House, clients: int = CLIENTS, seconds: float = SECONDS) -> float:
    """Return the jobs a second that are submitted by one program and done by so many machines."""
    picture = house.home / "picture.png"
    picture.write_bytes(bytes(PICTURE_BYTES))  # nobody looks at it

    def job(client: StudioClient, k: int) -> None:
        house.submit({"prompt": f"picture {k}", "bundle": BUNDLE, "steps": 8})
        order = client.claim(10.0)
        if order is not None:
            name = client.send_picture(order, picture, f"outputs_20260101000000_{k:03}.png")
            for event in _events(k, name):
                client.send_events(order, [event])

    return _together(house, clients, seconds, job)


def _events(k: int, picture: str) -> list[Event]:
    name = picture or f"{k}.png"
    told: list[Event] = [Progress("denoise", step, EVENTS) for step in range(EVENTS - PREVIEWS)]
    told += [Preview(step, name) for step in range(PREVIEWS)]
    return [*told, Final(images=(name,), seed=k, seconds=1.0, engine="ort", reason="")]


def _rate(act: Callable[[int], object], seconds: float) -> float:
    act(0)
    started, k = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < seconds:
        k += 1
        act(k)
    return k / taken


def _together(house: House, clients: int, seconds: float, act: Callable[[StudioClient, int], object]) -> float:
    """Return how often a second so many machines act, all at one time."""
    counts, over, ready = [0] * clients, threading.Event(), threading.Barrier(clients + 1)
    tokens = Tokens(house.home / "state" / "tokens.json")

    def machine(place: int, token: str) -> None:
        client = StudioClient(house.url, token)
        client.announce(HAS_IT, "", False)
        ready.wait()
        while not over.is_set():
            act(client, place * 100_000 + counts[place])
            counts[place] += 1
        client.leave()
        client.close()

    named = [(place, tokens.add(f"{WORKER}m{place}")) for place in range(clients)]
    threads = [threading.Thread(target=machine, args=each) for each in named]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    over.wait(seconds)
    over.set()
    taken, done = time.perf_counter() - started, sum(counts)
    for thread in threads:
        thread.join()
    return done / taken
