"""The frame in real Chromium: it shows what it may, survives what happens to a server, and is never blank."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import CREDIT, Generate
from tests.support.browser_window import BROWSER, begin, serve, served, until_ready
from tests.support.queues import FINAL, claimed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = BROWSER
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (220, 220, 30)}
QUIET_MS, BACK_S = 100, 15.0
SECONDS = 3  # of a picture


def photo(path: Path, colour: str, size: tuple[int, int] = (900, 600), at: float = 1000.0) -> None:
    Image.new("RGB", size, COLOURS[colour]).save(path)
    os.utime(path, (at, at))


def wall(folder: Path, size: tuple[int, int] = (900, 600)) -> Path:
    folder.mkdir()
    for i, colour in enumerate(("red", "green")):
        photo(folder / f"{colour}.png", colour, size, 1000.0 + i)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder


@pytest.fixture
def shows(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a frame at an address."""
    contexts = []

    def opened(url: str, width: int = 1024, height: int = 600, query: str = "") -> Page:
        contexts.append(context := browser.new_context(viewport={"width": width, "height": height}, locale="zh-CN"))
        page = context.new_page()
        page.goto(f"{url}/frame?seconds={SECONDS}&{query}")
        return page

    yield opened
    for context in contexts:
        context.close()


def middle(page: Page) -> str:
    return at(page, 0.5)


def at(page: Page, share: float) -> str:
    """Return the colour half way down, so far from the left edge; "black", or "" while one fades into another."""
    screen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    pixel = screen[screen.shape[0] // 2, round(screen.shape[1] * share)]
    if pixel.max() < 12:
        return "black"
    return next((name for name, rgb in COLOURS.items() if np.abs(pixel - rgb).max() < 25), "")


def until(page: Page, wanted: Callable[[str], bool], seconds: float = BACK_S, begun: bool = True) -> str:
    """Look at the screen until it shows what is wanted; once it has `begun`, it must never show nothing instead."""
    end, last = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        last = middle(page)
        if wanted(last):
            return last
        assert last != "black" or not begun, "a blank screen"
        page.wait_for_timeout(QUIET_MS)
    raise AssertionError(f"after {seconds} s the screen shows {last!r}")


def first(page: Page) -> str:
    return until(page, lambda colour: colour in COLOURS, 30.0, begun=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    folders = wall(home / "wall"), wall(home / "tall", (600, 900))
    with served(home, STUDIO_ALBUMS=",".join(map(str, folders))) as address:
        yield address


def test_it_goes_from_one_to_the_next_and_passes_over_what_is_broken(
    url: str, home: Path, shows: Callable[..., Page]
) -> None:
    page = shows(url, query="show=folder:wall&clock=1")
    colours = [first(page)]
    for _ in range(4):
        colours.append(until(page, lambda colour, last=colours[-1]: colour in COLOURS and colour != last))
    assert set(colours) == {"red", "green"}
    assert page.locator("#credit").inner_text() == CREDIT and page.locator("#credit").is_visible()
    assert page.locator("#clock").inner_text().count(":") == 1
    assert page.locator("#note").is_hidden()
    assert "broken.jpg" in (home / "server.log").read_text()


def test_a_server_that_dies_is_not_missed_and_what_is_new_comes_at_once(
    tmp_path: Path, shows: Callable[..., Page]
) -> None:
    (home := tmp_path / "home").mkdir()
    folder = wall(tmp_path / "wall")
    server, url = serve(home, STUDIO_ALBUMS=str(folder))
    try:
        until_ready(url, server)
        page = shows(url, query="show=folder:wall")
        colours = {first(page)}
        colours.add(until(page, lambda colour: colour in COLOURS and colour not in colours))
        server.kill()
        server.wait()
        for _ in range(3):  # from memory
            last = until(page, lambda colour: colour in COLOURS)
            until(page, lambda colour, last=last: colour in COLOURS and colour != last)
        photo(folder / "blue.png", "blue", at=time.time())
        server = begin(home, urlsplit(url).port or 0, STUDIO_ALBUMS=str(folder))
        until_ready(url, server)
        until(page, lambda colour: colour == "blue", BACK_S)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def test_what_is_taken_out_of_the_album_leaves_the_wall(url: str, home: Path, shows: Callable[..., Page]) -> None:
    page = shows(url)
    page.locator("#note").wait_for()  # nothing yet: it says how a picture comes here
    assert "放入共享相册" in page.locator("#note").inner_text()
    queue = SqliteQueue(home / "state" / "jobs.db", home / "outputs")
    try:
        queue.submit(Generate("p"), "anna")
        job = claimed(queue)
        photo(queue.folder / "a.png", "yellow")
        assert queue.publish(job, replace(FINAL, images=("a.png",)))
        queue.share(job.id, True)
        until(page, lambda colour: colour == "yellow", begun=False)
        queue.share(job.id, False)
        until(page, lambda colour: colour == "black")
        page.locator("#note").wait_for()
    finally:
        queue.close()


def test_it_is_told_to_go_on_and_to_stay(url: str, shows: Callable[..., Page]) -> None:
    page = shows(url, query="show=folder:wall")
    last = first(page)
    assert httpx.post(f"{url}/frame/pause").json() == {"paused": True}
    page.wait_for_timeout(3000)
    last = until(page, lambda colour: colour in COLOURS)
    page.wait_for_timeout(2000 * SECONDS)
    assert middle(page) == last
    httpx.post(f"{url}/frame/next")
    until(page, lambda colour: colour in COLOURS and colour != last, 5.0)


def test_what_it_is_not_to_show_it_does_not_and_says_so(url: str, shows: Callable[..., Page]) -> None:
    page = shows(url, query="show=folder:secrets")
    page.locator("#note").wait_for()
    assert "folder:wall" in page.locator("#note").inner_text() and middle(page) != "red"
    assert page.locator("[data-shown]").count() == 0


@pytest.mark.parametrize(("clock", "dark"), [("23:30", True), ("12:00", False)])
def test_in_quiet_hours_it_is_black(url: str, shows: Callable[..., Page], clock: str, dark: bool) -> None:
    page = shows(url, query="show=folder:wall&black=22:00-7:00")
    page.clock.install(time=f"2026-11-30T{clock}:00")
    page.reload()
    page.clock.resume()
    wanted = ("black",) if dark else ("red", "green")
    until(page, lambda colour: colour in wanted, begun=False)
    assert page.locator("#dark").is_visible() is dark


def test_two_portraits_stand_side_by_side_on_a_wide_screen(url: str, shows: Callable[..., Page]) -> None:
    wide = shows(url, query="show=folder:tall")
    wide.locator('[data-shown*=","]').wait_for()
    until(wide, lambda _: {at(wide, share) for share in (0.25, 0.75)} == {"red", "green"}, begun=False)
    tall = shows(url, 390, 844, "show=folder:tall")
    tall.locator("[data-shown]").first.wait_for()
    assert tall.locator('[data-shown*=","]').count() == 0
    assert not tall.evaluate("document.documentElement.scrollWidth > innerWidth")
