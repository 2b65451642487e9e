"""
Chromium and a server for it, one of each for all modules that carry the marks of BROWSER. They end with this folder:
where Playwright runs, asyncio.run() fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser_window import CHROMIUM, OPEN, Visit, served


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failure shows every window that is open: what was waited for is seldom what went wrong."""
    report = yield
    if report.failed and call.when == "call":
        report.sections += [("window", window.report()) for window in OPEN]
    return report


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="package")
def base(home: Path) -> Iterator[str]:
    with served(home) as url:
        yield url


@pytest.fixture(scope="package")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: ./run.sh test")
    with playwright.sync_playwright() as p:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a camera, which may be used
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, base: str) -> Iterator[Visit]:
    window = Visit(browser, base)
    yield window
    window.close()
