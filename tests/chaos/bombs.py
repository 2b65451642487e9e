"""Files that ask for a lot, and photos with some bits turned, one after the other: each is answered, and soon."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from tests.support.http import people
from tests.support.photo_files import encoded
from tests.support.server import Process
from tests.support.strange_files import BOMBS, LARGE, MORE_BOMBS, flipped

LIMIT_S, LIMIT_MB = 10.0, 50.0
KINDS = (
    ("JPEG", {"quality": 80}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("HEIF", {}),
)  # fmt: skip
FINE = (200, 413, 415, 422)  # restored; too large or too slow; no picture; no face


def run(count: int, seed: int) -> list[str]:
    """Send all bombs, and `count` photos with turned bits. Return what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        server = Process(Path(folder))
        try:
            server.until_ready()
            return _answers(server, count, seed)
        finally:
            server.stop()


def _answers(server: Process, count: int, seed: int) -> list[str]:
    faults, statuses = list[str](), Counter[int]()
    seconds: dict[str, float] = {}
    with httpx.Client(base_url=server.url, timeout=300) as client:
        client.post("/enhance", files={"image": ("a", encoded(people(), "PNG"))}).raise_for_status()
        before = most = server.memory_mb("VmRSS")
        for name, data in _files(count, seed):
            begun = time.perf_counter()
            answer = client.post("/enhance", files={"image": ("a", data)})
            seconds[name] = time.perf_counter() - begun
            statuses[answer.status_code] += 1
            most = max(most, server.memory_mb("VmRSS"))
            if answer.status_code not in FINE:
                faults.append(f"{name}: {answer.status_code} {answer.text[:200]}")
            if seconds[name] > LIMIT_S:
                faults.append(f"{name}: {seconds[name]:.1f} s")
    bombs = len(seconds) - count
    print(f"{bombs} bombs and {count} photos with turned bits, seed {seed}: {dict(statuses)}")
    print(f"{statistics.median(seconds.values()) * 1000:.0f} ms in the median; the longest:")
    for name in sorted(seconds, key=lambda name: -seconds[name])[:6]:
        print(f"  {seconds[name]:.1f} s  {name}")
    print(f"the server holds {before:.0f} MB before, {most:.0f} MB at most")
    if most - before > LIMIT_MB:
        faults.append(f"the server grew by {most - before:.0f} MB")
    if deaths := server.log.read_text(encoding="utf-8").count("the process with the engines has ended"):
        faults.append(f"{deaths} of them ended the process with the engines")
    return faults


def _files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    for name, make in {**BOMBS, **LARGE, **MORE_BOMBS}.items():
        yield name, make()
    lot, photos = np.random.default_rng(seed), [encoded(people(), kind, **how) for kind, how in KINDS]
    for k in range(count):
        yield f"photo {k}, {KINDS[k % len(KINDS)]}", flipped(photos[k % len(photos)], lot)
