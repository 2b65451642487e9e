"""
A window with nothing but the page: a browser of Chromium's kind with a profile of its own, so that its process lives
as long as the window. What such a browser refuses, the default one gets.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from engines import logs
from webui.desktop import APP_ID, Unavailable

COMMANDS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "microsoft-edge-stable",
    "brave-browser", "brave", "vivaldi", "vivaldi-stable",
)  # fmt: skip
APPLICATIONS = ("Google Chrome", "Chromium", "Microsoft Edge", "Brave Browser", "Vivaldi")  # as macOS calls them
FLAGS = (f"--class={APP_ID}", "--window-size=1280,900", "--no-first-run", "--no-default-browser-check")
REFUSED_S = 10.0  # a browser that ends badly as soon as this has shown no window
LEAVE_S = 5.0


def browser(applications: Path = Path("/Applications")) -> str | None:
    """Return the program of an installed browser that can show a page as an application; None: there is none."""
    if sys.platform == "darwin":
        programs = (applications / f"{name}.app" / "Contents" / "MacOS" / name for name in APPLICATIONS)
        return next((str(program) for program in programs if os.access(program, os.X_OK)), None)
    return next(filter(None, map(shutil.which, COMMANDS)), None)


def has_display(env: Mapping[str, str]) -> bool:
    return sys.platform == "darwin" or bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))


def show(url: str, state: Path) -> bool:
    """
    Open the page, and wait until its window is closed (on macOS: until that browser is quit). Return whether it was;
    False: a window that is open already has been given another, and who opened that one waits for both. Unavailable:
    there is no such browser, or it refuses; why, in its own words.
    """
    program, words = browser(), logs.folder(state) / "window.log"
    if program is None:
        raise Unavailable("没有装 Chromium 类浏览器 · no browser of Chromium's kind is installed")
    with (state / "window.lock").open("w") as lock, words.open("wb") as said:
        first, begun = _taken(lock.fileno()), time.monotonic()
        try:
            opened = subprocess.Popen(
                [program, f"--app={url}", f"--user-data-dir={state / 'window'}", *FLAGS, *_trust(url, state)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[lock.fileno()] if first else (),  # free when it has ended, though nobody waits any more
            )
        except OSError as exc:
            raise Unavailable(f"{program}: {exc.strerror}") from exc
        code = _wait(opened)
    if code > 0 and time.monotonic() - begun < REFUSED_S:
        last = words.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise Unavailable(f"{program} 打不开窗口 · {program} opened no window: {last or code}")
    return first


def _trust(url: str, state: Path) -> tuple[str, ...]:
    """Let this window, and nothing else on this machine, trust the home's own authority."""
    if not url.startswith("https:"):
        return ()
    from webui import certificates

    return (f"--ignore-certificate-errors-spki-list={certificates.pin(certificates.Certificates.of(state).authority)}",)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(opened: subprocess.Popen[bytes]) -> int:
    """Return how the browser ended. Ctrl+C closes the window: the terminal sends it to both."""
    try:
        return opened.wait()
    except KeyboardInterrupt:
        try:
            return min(opened.wait(LEAVE_S), 0)
        except subprocess.TimeoutExpired:
            opened.terminate()
            return min(opened.wait(), 0)
