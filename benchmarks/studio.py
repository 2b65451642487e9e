"""
What a person waits for: from process start to ready, from the request to the first preview and to the picture, and for
a restored photo; and the memory that the server takes. The edge installation, which ./run.sh bench makes when it is
missing, is measured as it is started by hand, in a process of its own.

Medians of several jobs after one warm-up.
"""

from __future__ import annotations

import json
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
from typing import Any
from urllib.request import Request, urlopen

from PIL import Image

from engines import backends, machine
from engines.bundle import BUILT_IN, Shelf
from engines.messages import Enhance, Final, Generate, Preview
from engines.studio import Studio
from engines.worker.loop import RELEASE_S

REPO = Path(__file__).parents[1]
JOBS = 7
STARTS = 5
BOUNDARY = "photo"
PROMPT = "一位年轻女性的肖像，棕色长发，微笑，穿白色V领毛衣，灰色影棚背景，柔和影棚光，写实风格"


def main() -> None:
    print(
        f"{machine.cores()} cores\n\n| engine | first preview | picture | restored 512x512 photo |\n|---|---|---|---|"
    )
    for name in backends.names():
        if backends.engine(name).probe().ok:
            look, finish, restore = _jobs(name)
            print(f"| {name} | {look:.2f} s | {finish:.2f} s | {restore:.2f} s |")
    _edge()


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


def _edge() -> None:
    """`./run.sh edge` from the start of the process to /readyz, then its memory after pictures with each engine."""
    for engine in ("ort", "openvino"):
        with tempfile.TemporaryDirectory() as home:
            ready = []
            for start in range(STARTS):
                with _server(home, engine) as (url, process, started):
                    while not _ready(url):
                        time.sleep(0.02)
                    ready.append(time.perf_counter() - started)
                    if start == STARTS - 1:
                        asked = [f"{url}/generate?prompt=portrait&seed={seed}" for seed in range(3)]
                        picture = [_post(address)["images"][0] for address in asked][0]
                        _post(f"{url}/enhance", _form(urlopen(url + picture).read()))
                        after = _rss_mb(process.pid)
                        time.sleep(RELEASE_S + 2)
                        quiet = _rss_mb(process.pid)
            print(
                f"\nedge, {engine}: ready {ready[0]:.2f} s after its first start in a new home,"
                f" {statistics.median(ready[1:]):.2f} s later on;"
                f" RSS {after:.0f} MB after three pictures and a photo, {quiet:.0f} MB {RELEASE_S + 2:.0f} s later"
            )


def _post(url: str, form: bytes = b"") -> dict[str, Any]:
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if form else {}
    with urlopen(Request(url, data=form, headers=kind, method="POST"), timeout=300) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def _form(picture: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextmanager
def _server(home: str, engine: str) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "STUDIO_HOME": home, "STUDIO_PORT": str(port), "STUDIO_HOST": "127.0.0.1"}
    env["STUDIO_BACKEND"] = engine
    started = time.perf_counter()
    process = subprocess.Popen([REPO / "run.sh", "edge"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
