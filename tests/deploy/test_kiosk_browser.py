"""
kiosk.sh with the Chromium that is installed, without a screen: it takes the flags, shows the page with nothing over it,
and does not outlive a page whose process has died.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import REPOSITORY, Within
from tests.support.browser_window import BROWSER

KIOSK = REPOSITORY / "deploy" / "kiosk" / "kiosk.sh"

# Windows that nobody sees and, for CI is root, without its sandbox: what the kiosk itself never asks for.
HIDDEN = "--headless --screen-info={1024x600} --no-sandbox --disable-gpu"
SCREEN = (600, 600)
PGREP = shutil.which("pgrep")
pytestmark = [
    *BROWSER,
    pytest.mark.slow,
    pytest.mark.skipif(PGREP is None, reason="pgrep is not installed (apt-get install procps)"),
]
PAGE = b"""<!doctype html><title>frame</title><script>
const say = () => fetch(`/seen?inside=${innerHeight}&outside=${outerHeight}`);
addEventListener("load", say); addEventListener("resize", say);
</script>"""


@dataclass(frozen=True)
class House:
    """A server with a frame page, which says how large it is."""

    url: str
    asked: list[str] = field(default_factory=list)

    def sizes(self) -> list[tuple[int, int]]:
        """Return each height of the page that was reported, and that of its window."""
        queries = [parse_qs(urlsplit(path).query) for path in list(self.asked) if path.startswith("/seen")]
        return [(int(query["inside"][0]), int(query["outside"][0])) for query in queries]


@pytest.fixture
def house() -> Iterator[House]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = PAGE if self.path.startswith("/frame") else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the test looks at what was asked."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield House(f"http://127.0.0.1:{server.server_port}", asked)
        server.shutdown()
        thread.join()


@pytest.fixture
def kiosk(house: House, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    looking = tmp_path / "bin" / "pgrep"
    looking.parent.mkdir()
    looking.write_text(f'#!/bin/bash\nset -o pipefail\n{PGREP} "$@" && : > "{tmp_path}/looks"\n', encoding="utf-8")
    looking.chmod(0o755)
    env = {
        **{name: value for name, value in os.environ.items() if name not in ("WAYLAND_DISPLAY", "DISPLAY")},
        "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "STUDIO_URL": house.url, "KIOSK_FLAGS": HIDDEN,
        "FRAME_QUERY": "show=album&seconds=15", "KIOSK_CHECK_S": "0.2",
        "PATH": f"{looking.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    with (tmp_path / "said").open("wb") as said:
        browser = subprocess.Popen([str(KIOSK)], env=env, stdout=said, stderr=said, start_new_session=True)
    yield browser
    if browser.poll() is None:
        os.killpg(browser.pid, signal.SIGTERM)
    browser.wait(30)


def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        time.sleep(0.05)


def page_processes(folder: Path) -> list[int]:
    """Return the processes of the browser with that profile that show a page."""
    pattern = f"[-]-type=renderer.*--user-data-dir={folder}"
    listed = subprocess.run(["pgrep", "-a", "-f", "--", pattern], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if "--top-chrome-webui" not in line]


def test_the_page_fills_the_window_and_nothing_lies_over_it(
    house: House, kiosk: subprocess.Popen[bytes], within: Within[None]
) -> None:
    within(60, lambda: until(lambda: SCREEN in house.sizes()))
    assert "/frame?show=album&seconds=15" in house.asked
    assert house.sizes()[-1] == SCREEN, (
        "a bar would take its height from the page, as that for --no-sandbox does elsewhere"
    )
    assert kiosk.poll() is None


def test_a_page_that_has_crashed_ends_the_browser(
    house: House, kiosk: subprocess.Popen[bytes], tmp_path: Path, within: Within[None]
) -> None:
    """So that systemd starts it again, where Chromium alone would show "Aw, Snap!" for ever."""
    within(60, lambda: until(lambda: SCREEN in house.sizes()))
    within(60, lambda: until((tmp_path / "looks").exists))
    for process in page_processes(tmp_path):
        os.kill(process, signal.SIGKILL)
    within(60, lambda: kiosk.wait())
    assert "重启浏览器" in (tmp_path / "said").read_text(encoding="utf-8", errors="replace")
