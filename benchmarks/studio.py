"""
What a person waits for: from process start to ready, from the request to the first preview and to the picture, and for
a restored photo; and the memory that the server takes. The edge installation, which ./run.sh bench makes when it is
missing, is measured as it is started by hand, in a process of its own.

Medians of several jobs after one warm-up.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from PIL import Image

from engines import backends, machine
from engines.bundle import BUILT_IN, Shelf
from engines.messages import Enhance, Final, Generate, Preview
from engines.studio import Studio

REPO = Path(__file__).parents[1]
JOBS = 7
PROMPT = "一位年轻女性的肖像，棕色长发，微笑，穿白色V领毛衣，灰色影棚背景，柔和影棚光，写实风格"


def main() -> None:
    print(
        f"{machine.cores()} cores\n\n| engine | first preview | picture | restored 512x512 photo |\n|---|---|---|---|"
    )
    for name in backends.names():
        if backends.engine(name).probe().ok:
            look, finish, restore = _jobs(name)
            print(f"| {name} | {look:.2f} s | {finish:.2f} s | {restore:.2f} s |")
    ready_s, rss_mb = _edge()
    told = ", ".join(f"{mb:.0f} MB after one with {name}" for name, mb in rss_mb.items())
    print(f"\nedge: ready {ready_s:.2f} s after the start of the process; RSS {told}")


def _jobs(engine: str) -> tuple[float, float, float]:
    """Median seconds to the first preview, to the finished picture, and to a restored photo."""
    with tempfile.TemporaryDirectory() as folder:
        studio, out = Studio(Shelf((BUILT_IN,)), Path(folder)), Path(folder)
        draws = [_draw(studio, out, engine, seed) for seed in range(JOBS + 1)][1:]
        photo = _photo(out)
        orders = [Enhance(str(photo), strength=60 + k, backend=engine) for k in range(JOBS + 1)]  # none remembered
        restores = [_seconds(studio, order, out) for order in orders][1:]
    looks, finishes = zip(*draws, strict=True)
    return statistics.median(looks), statistics.median(finishes), statistics.median(restores)


def _draw(studio: Studio, out: Path, engine: str, seed: int) -> tuple[float, float]:
    started, look = time.perf_counter(), 0.0
    for event in studio.run(Generate(PROMPT, seed=seed, backend=engine), out):
        if isinstance(event, Preview) and not look:
            look = time.perf_counter() - started
    assert isinstance(event, Final), event
    return look, time.perf_counter() - started


def _seconds(studio: Studio, request: Enhance, out: Path) -> float:
    started = time.perf_counter()
    *_, last = studio.run(request, out)
    assert isinstance(last, Final), last
    return time.perf_counter() - started


def _photo(folder: Path) -> Path:
    """One of the portraits just drawn, enlarged: a face, and not a sharp one."""
    path = folder / "photo.jpg"
    with Image.open(min(folder.glob("outputs_*.png"))) as drawn:
        drawn.resize((512, 512)).save(path)
    return path


def _edge() -> tuple[float, dict[str, float]]:
    """`./run.sh edge` from the start of the process to /readyz, then its memory after a picture with each engine."""
    with tempfile.TemporaryDirectory() as home, _server(home) as (url, process, started):
        while not _ready(url):
            time.sleep(0.02)
        ready_s = time.perf_counter() - started
        rss_mb = {}
        for name in ("auto", "ort", "openvino"):
            with urlopen(f"{url}/generate?prompt=portrait&seed=1&backend={name}", data=b"") as answer:
                assert answer.status == 200
            rss_mb[name] = _rss_mb(process.pid)
        return ready_s, rss_mb


@contextmanager
def _server(home: str) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "STUDIO_HOME": home, "STUDIO_PORT": str(port), "STUDIO_HOST": "127.0.0.1"}
    started = time.perf_counter()
    process = subprocess.Popen([REPO / "run.sh", "edge"], env=env, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", process, started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _rss_mb(pid: int) -> float:
    """
    Of the server, and of the process with the engines. run.sh ends in exec, so the first is Python itself. (proc(5):
    PPid, VmRSS in kB)
    """
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended meanwhile
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
            if pid in (int(fields["Pid"]), int(fields["PPid"])):
                total += int(fields["VmRSS"].split()[0]) / 1000
    return total
