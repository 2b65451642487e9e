"""A person's browser window on the real page, and the server behind it. Fixtures: tests/end_to_end/conftest.py."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from tests.support.proved import believe_engines

REPO = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 60_000
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"),
]


def serve(home: Path, **settings: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server of its own, as `./run.sh` starts it, and where it listens."""
    believe_engines(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return begin(home, port, **settings), f"http://127.0.0.1:{port}"


def begin(home: Path, port: int, **settings: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "STUDIO_HOME": str(home), "STUDIO_PORT": str(port), "STUDIO_HOST": "127.0.0.1", **settings}
    with (home / "server.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "webui"], cwd=REPO, env=env, stdout=log, stderr=log)


def until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert server.poll() is None, "the server ended"
        try:
            with urlopen(f"{url}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.25)
    raise AssertionError("the server was not ready in a minute")


@contextmanager
def served(home: Path, **settings: str) -> Iterator[str]:
    """The address of a server of its own that is ready, and stopped in the end."""
    server, url = serve(home, **settings)
    try:
        until_ready(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


OPEN: list[Visit] = []  # windows that were not closed yet


class Visit:
    """One person's window, and everything it asked for or complained about."""

    def __init__(
        self,
        browser,
        base: str,
        locale: str = "zh-CN",
        width: int = 1280,
        height: int = 900,
        start: str = "",
        first: str = "#stage .frame",
        touch: bool = False,
    ) -> None:
        self.context = browser.new_context(
            locale=locale,
            viewport={"width": width, "height": height},
            accept_downloads=True,
            has_touch=touch,
            is_mobile=touch,
        )
        self.page, self.base, self.start, self.first = self.context.new_page(), base, start, first
        OPEN.append(self)
        self.page.set_default_timeout(PATIENCE_MS)
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.hosts.add(urlsplit(r.url).netloc) if r.url.startswith("http") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.calls: list[str] = []  # what it said to Gradio's queue, and what was answered
        self.page.on("request", lambda r: self._note(r.method, r.url))
        self.page.on("response", lambda r: self._note(str(r.status), r.url))
        self.page.on("requestfailed", lambda r: self._note(f"failed, {r.failure}", r.url))
        self.open()

    def _note(self, what: str, url: str) -> None:
        if "/queue/" in url:
            self.calls.append(f"{time.monotonic() - self.opened:.2f} {what} {urlsplit(url).path.rpartition('/')[2]}")

    def open(self) -> None:
        self.opened = time.monotonic()
        said = list(self.complaints)
        self.page.goto(self.base + self.start, wait_until="commit")
        self.complaints[:] = said  # a page that is left says of what it was still waiting for that it was broken off
        self.page.wait_for_selector(self.first)

    def tab(self, number: int) -> None:
        self.page.locator("#tabs > .tab-wrapper [role=tab]").nth(number).click()

    def unfold(self, panel: str) -> None:
        self.page.locator(f"#{panel}-panel > button.label-wrap").click()
        self.page.locator(f"#{panel}").wait_for()

    def lift(self, lid: str, inside: str) -> None:
        """Open an accordion by its id, until what is inside can be seen."""
        self.page.locator(f"#{lid} > button.label-wrap").click()
        self.page.locator(inside).first.wait_for()

    def scrolls_sideways(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def more(self) -> None:
        self.page.get_by_role("button", name=re.compile("更多设置|More settings")).click()
        self.page.wait_for_selector("#seed input")

    def backend(self, name: str, group: str = "#backend") -> None:
        self.page.locator(f"{group} input[value={name}]").check()

    def enter(self, selector: str, value: str) -> None:
        """Key by key and out of the field, as people do. A value filled in at once was lost on the way, once, in CI."""
        self.page.locator(selector).press("Control+a")
        self.page.locator(selector).press_sequentially(value, delay=60)
        self.page.keyboard.press("Tab")

    def generate(self, prompt: str) -> None:
        self.page.fill("#prompt textarea", prompt)
        self.page.click("#generate")

    def until(self, state: str, stage: str = "#stage") -> None:
        self.page.wait_for_selector(f"{stage} .stage.is-{state}")

    def rest(self) -> None:
        """Until nothing scrolls any more: on a phone the page goes to what comes of a press."""
        still = "() => new Promise((done) => { const y = scrollY; setTimeout(() => done(scrollY === y), 200); })"
        self.page.wait_for_function(still)

    def picture(self, selector: str = "#stage .frame img") -> Path:
        return Path(self.page.get_attribute(selector, "src") or "")

    def report(self) -> str:
        """What the window shows, has complained of, and said to Gradio's queue: for a test that waited in vain."""
        shown = self.page.locator("body").inner_text()[:1000]
        return "\n".join([f"window at {self.base}:", shown, "complaints:", *self.complaints, "calls:", *self.calls])

    def close(self) -> None:
        self.context.close()
        OPEN.remove(self)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a - b) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)
