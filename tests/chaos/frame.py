"""
A frame on a wall for a day, in real Chromium whose clock runs fast: huge photos, panoramas, HEIC, broken files, and a
server that goes away ten times. It must never be blank, never show what is not for it, and not grow.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image
from pillow_heif import register_heif_opener

from tests.support.browser_window import CHROMIUM, begin, serve, until_ready
from tests.support.devtools import DevTools, opened

SECONDS = 10  # of a picture: 8,640 in a day
SCREEN = (1280, 720)
OUTAGES, OUTAGE_S, BACK_S = 10, (5, 600), 15.0
MOST_GROWTH = 0.05
LIMIT_BYTES = 1_000_000_000
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
GREEN, NEW, PRIVATE = (20, 190, 60), (20, 60, 220), (230, 20, 220)
BLANK, NEAR = 12, 60  # levels
BEHIND = 0.6  # as light as its picture is what lies behind one that does not fill the screen
FRONT = "document.querySelector('.layer.is-on:last-child')?.dataset.shown ?? ''"
LOADED_S = 20.0
PACE = 150  # times as fast as the true clock
# The page's clock and timers. What the network and the processor take, they take by the true clock. An interval is
# always short, as who has set it looks at the clock; `pace` changes how fast that runs.
CLOCK = """{
  const now = Date.now.bind(Date), every = setInterval.bind(window);
  let pace = PACE, since = now(), shown = since;
  const clock = () => shown + (now() - since) * pace;
  Date.now = () => Math.round(clock());
  window.pace = (wanted) => { shown = clock(); since = now(); pace = wanted; };
  window.setInterval = (call, ms) => every(call, ms / PACE);
  window.setTimeout = (call, ms) => {
    const due = clock() + ms;
    const timer = every(() => { if (clock() >= due) { clearInterval(timer); call(); } }, 4);
    return timer;
  };
}""".replace("PACE", str(PACE))


@dataclass
class Watch:
    """`mb`: of all of Chromium's processes, once a simulated hour. `loads`: of the page, which loads itself anew."""

    pictures: int = 0
    loads: int = 0
    probes: int = 0
    mb: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run(count: int, seed: int) -> list[str]:
    """Show `count` hundreds of pictures. Return what went wrong."""
    watch, rng = Watch(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, _limited() as (browser_path, limited):
        home, wall, private = (Path(folder) / name for name in ("home", "wall", "private"))
        for each in (home, wall, private):
            each.mkdir()
        _hang(wall)
        Image.new("RGB", (800, 600), PRIVATE).save(private / "private.png")
        server, url = serve(home, STUDIO_ALBUMS=f"{wall},{private}")
        try:
            until_ready(url, server)
            _watch_a_day(_Wall(home, wall, private, url, server, rng), browser_path, 100 * count, watch)
        finally:
            with suppress(psutil.Error):
                for process in psutil.Process(server.pid).children(recursive=True):
                    process.kill()
            server.kill()
            server.wait()
    half = len(watch.mb) // 2
    early, late = (statistics.median(part) if part else 0.0 for part in (watch.mb[1:half], watch.mb[half:]))
    print(
        f"\n{watch.pictures} pictures, {watch.probes} looks at the screen, {watch.loads} loads of the page,"
        f" Chromium {early:.0f} -> {late:.0f} MB"
        f" ({'limited to 1 GB' if limited else 'without a limit: no cgroup to be had'}), seed {seed};"
        f" back after outages in {', '.join(f'{s:.1f}' for s in watch.back_s)} s"
    )
    if early and late > early * (1 + MOST_GROWTH):
        watch.wrong.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    return watch.wrong


@dataclass
class _Wall:
    home: Path
    folder: Path
    private: Path
    url: str
    server: Any
    rng: random.Random

    def away(self) -> None:
        self.server.kill()
        self.server.wait()

    def back(self) -> None:
        Image.new("RGB", (900, 600), NEW).save(self.folder / "new.png")
        os.utime(self.folder / "new.png", (time.time(),) * 2)
        port = urlsplit(self.url).port or 0
        self.server = begin(self.home, port, STUDIO_ALBUMS=f"{self.folder},{self.private}")
        until_ready(self.url, self.server)


def _hang(wall: Path) -> None:
    """Sixty photos of every kind that people have, and some files that are none."""
    register_heif_opener()
    sizes = itertools.cycle([(4000, 3000), (3000, 4000), (1200, 800), (900, 1600)])
    for i, size in zip(range(48), sizes, strict=False):
        _green(size, i).save(wall / f"{i:02}.{('jpg', 'png', 'webp', 'heic')[i % 4 if max(size) < 2000 else 0]}")
    for i in range(3):
        _green((8660, 5770), i).save(wall / f"huge{i}.jpg", quality=90)
        _green((14000, 900), i).save(wall / f"panorama{i}.jpg")
        _green((600, 9000), i).save(wall / f"tower{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    _green((1600, 1200), 0).save(wall / "lying.jpg", exif=exif)
    whole = (wall / "00.jpg").read_bytes()
    for name, data in (
        ("cut.jpg", whole[: len(whole) // 3]),
        ("empty.jpg", b""),
        ("none.heic", b"no"),
        ("x.png", b"\x89PNG"),
    ):
        (wall / name).write_bytes(data)
    for i, path in enumerate(sorted(wall.iterdir())):
        os.utime(path, (1e9 + i,) * 2)


def _green(size: tuple[int, int], number: int) -> Image.Image:
    """A photo by whose middle one knows that it is one of the wall's."""
    small = np.random.default_rng(number).integers(-15, 15, (40, 40, 3)) + np.array(GREEN)
    return Image.fromarray(small.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _watch_a_day(wall: _Wall, browser_path: str, pictures: int, watch: Watch) -> None:
    outages = {pictures * (i + 1) // (OUTAGES + 1) for i in range(OUTAGES)}
    with opened(browser_path, *SCREEN, ["--force-prefers-reduced-motion"]) as page:  # the fast clock knows no motion
        page.send("Page.addScriptToEvaluateOnNewDocument", source=CLOCK)
        page.send("Page.navigate", url=f"{wall.url}/frame?show=folder:wall&seconds={SECONDS}&clock=1")
        shown = _until_changed(page, "", watch)
        while watch.pictures < pictures:
            shown = _until_changed(page, shown, watch)
            if watch.pictures % 6 == 0:
                _look(page, watch)
            if watch.pictures % 360 == 0:
                watch.mb.append(_chromium_mb())
                print(f"{watch.pictures} pictures, {watch.mb[-1]:.0f} MB, {page.loads} loads", flush=True)
            if watch.pictures in outages:
                _outage(page, wall, watch)
        watch.loads = page.loads


def _until_changed(page: DevTools, before: str, watch: Watch) -> str:
    """Return what is shown when it is another than before."""
    end = time.monotonic() + LOADED_S
    watch.pictures += 1
    while time.monotonic() < end:
        if (shown := page.evaluate(FRONT)) != before:
            return str(shown)
        time.sleep(0.005)
    watch.wrong.append(f"the same picture for {LOADED_S} s, after {watch.pictures}")
    return before


def _look(page: DevTools, watch: Watch) -> None:
    watch.probes += 1
    colour = _middle(page)
    if colour.max() < BLANK:
        watch.wrong.append(f"a blank screen after {watch.pictures} pictures")
    elif _is_near(colour, PRIVATE):
        watch.wrong.append(f"a picture of another folder after {watch.pictures}")
    elif not any(_is_near(colour / light, wanted) for wanted in (GREEN, NEW) for light in (1.0, BEHIND)):
        watch.wrong.append(f"{colour} is none of the pictures, after {watch.pictures}")


def _middle(page: DevTools) -> Any:
    screen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    return screen[screen.shape[0] // 2, screen.shape[1] // 3]


def _is_near(colour: Any, wanted: Sequence[int]) -> bool:
    return bool(np.abs(colour - np.array(wanted)).max() <= NEAR)


def _outage(page: DevTools, wall: _Wall, watch: Watch) -> None:
    """The server is away for a while; when it is back there is a new picture, which is soon on the wall."""
    with suppress(OSError):
        (wall.folder / "new.png").unlink()
    wall.away()
    end = time.monotonic() + wall.rng.randint(*OUTAGE_S) / PACE
    while time.monotonic() < end:
        _look(page, watch)
    page.evaluate("pace(1)")  # how long it takes to come back is a matter of the true clock
    wall.back()
    begun = time.monotonic()
    while not _is_near(_middle(page), NEW) and time.monotonic() - begun < 4 * BACK_S:
        time.sleep(0.05)
    watch.back_s.append(time.monotonic() - begun)
    page.evaluate(f"pace({PACE})")
    if watch.back_s[-1] > BACK_S:
        watch.wrong.append(f"{watch.back_s[-1]:.1f} s until the new picture was there after an outage")


def _chromium_mb() -> float:
    """What all of Chromium's processes hold alone, and their share of what several hold."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in process.name():
                total += process.memory_full_info().pss
    return total / 1e6


@contextmanager
def _limited() -> Iterator[tuple[str, bool]]:
    """Give a command that is Chromium in a gigabyte of memory; on a machine that gives no such group, without."""
    assert CHROMIUM is not None, "Chromium is not installed"
    group = MEMORY_GROUPS / f"frame{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError:
        yield CHROMIUM, False
        return
    with tempfile.TemporaryDirectory() as folder:
        command = Path(folder) / "chromium"
        command.write_text(f'#!/bin/sh\necho $$ > {group}/cgroup.procs\nexec {CHROMIUM} "$@"\n')
        command.chmod(0o755)
        try:
            yield str(command), True
        finally:
            with suppress(OSError):
                print(f"most of it: {int((group / 'memory.max_usage_in_bytes').read_text()) / 1e6:.0f} MB")
                group.rmdir()
