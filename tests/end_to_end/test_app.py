"""`./run.sh app` with real servers: one for a home, which outlives its window, and words where there is none."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from engines.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.browser_window import BROWSER, CHROMIUM
from tests.support.http import CJK
from tests.support.proved import believe_engines
from webui import home_lock
from webui.doctor import server
from webui.doctor.server import Holder

if TYPE_CHECKING:
    from tests.support.server import Process

LONG = {"prompt": "slow", "steps": 50, "preview": "off", "count": 8}  # outlasts every window here
WAIT_S = 300


@dataclass(frozen=True)
class Desk:
    """Somebody's desktop: a home, and a folder of programs, which is all that PATH has besides a shell."""

    home: Path
    programs: Path
    env: dict[str, str]

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def app(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        with self.begin(*arguments, **env) as running:
            out, err = running.communicate(timeout=WAIT_S)
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)

    @contextmanager
    def begin(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Inside it runs, in a group of processes of its own, which are ended on the way out."""
        command = [sys.executable, "-m", "webui.desktop", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        full = {**self.env, **env}
        running = subprocess.Popen(command, cwd=REPOSITORY, env=full, text=True, start_new_session=True, **pipes)
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.communicate()

    def holder(self) -> Holder | None:
        return server.holder(self.home / "state" / "lock")

    @property
    def url(self) -> str:
        holder = self.holder()
        assert holder and holder.port
        return f"http://127.0.0.1:{holder.port}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Whatever server was begun there is stopped in the end."""
    made = _desk(tmp_path / "home", tmp_path / "bin", STUDIO_PORT="0")
    believe_engines(made.home)
    yield made
    if (holder := made.holder()) and holder.port:
        os.kill(holder.process, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while made.holder() and time.monotonic() < deadline:
            time.sleep(0.05)


@pytest.fixture
def beside(process: Process, tmp_path: Path) -> Desk:
    """A desktop where the server of all tests is at work."""
    return _desk(process.log.parent, tmp_path / "bin")


def _desk(home: Path, programs: Path, **settings: str) -> Desk:
    home.mkdir(exist_ok=True)
    programs.mkdir()
    for name in ("sh", "sleep"):
        (programs / name).symlink_to(Path("/bin", name))
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "GRADIO_"))}
    ours = {"STUDIO_HOME": str(home), "STUDIO_HOST": "127.0.0.1", "STUDIO_BACKEND": "edge", **settings}
    desktop = {"PATH": str(programs), "DISPLAY": ":77", "WAYLAND_DISPLAY": "", "BROWSER": "browser-of-the-desktop"}
    return Desk(home, programs, {**outside, **ours, **desktop})


def recording(folder: Path, name: str) -> str:
    """A script that writes its arguments into a file, one a line, and ends."""
    return f'printf "%s\\n" "$@" >> "{folder}/{name}"'


def both_languages(text: str) -> str:
    assert CJK.search(text) and re.search("[A-Za-z]{4}", text), text
    return text


def test_the_studio_is_begun_once_and_outlives_its_window(desk: Desk) -> None:
    desk.program("chromium", recording(desk.home, "opened"))
    first = desk.app()
    holder = desk.holder()
    assert first.returncode == 0 and holder and httpx.get(f"{desk.url}/healthz").status_code == 200, first.stderr
    assert "no job is unfinished" in both_languages(first.stdout) and "./run.sh app --stop" in first.stdout
    for _ in range(3):
        httpx.post(f"{desk.url}/generate", json=LONG, headers={"Prefer": "respond-async"}).raise_for_status()
    deadline = time.monotonic() + 60
    while "1 running and 2 waiting" not in (second := desk.app()).stdout:  # the worker has begun
        assert "0 running and 3 waiting" in second.stdout and time.monotonic() < deadline, second.stdout
    assert "1 个任务在做,2 个在排队" in second.stdout
    assert desk.holder() == holder, "a second one was begun"
    opened = (desk.home / "opened").read_text().splitlines()
    assert set(opened[:1]) == {f"--app=http://localhost:{holder.port}"} and len(opened) % 2 == 0
    log = desk.home / "state" / "log" / "start.log"
    assert "Local:" in log.read_text() and log.stat().st_mode & 0o077 == 0

    stopped = desk.app("--stop")
    assert stopped.returncode == 0 and str(holder.process) in both_languages(stopped.stdout)
    assert desk.holder() is None
    again = desk.app("--stop")
    assert again.returncode == 0 and "no server" in both_languages(again.stdout)


def test_ctrl_c_closes_the_window_and_nothing_else(beside: Desk, process: Process) -> None:
    beside.program("chromium", f': > "{beside.programs}/open"; exec sleep 600')
    with beside.begin() as app:
        deadline = time.monotonic() + 60
        while not (beside.programs / "open").exists():
            assert app.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)  # the shell becomes what sleeps
        os.killpg(app.pid, signal.SIGINT)  # as a terminal does
        out, err = app.communicate(timeout=60)
    assert (app.returncode, err) == (0, "") and "the studio goes on" in out
    assert process.popen.poll() is None and httpx.get(f"{process.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("chromium", "why"),
    [("", "no browser of Chromium's kind"), ("echo Running as root is not supported >&2; exit 1", "Running as root")],
)
def test_else_the_default_browser_opens_it_and_why_is_said(beside: Desk, chromium: str, why: str) -> None:
    if chromium:
        beside.program("chromium", chromium)
    beside.program("browser-of-the-desktop", recording(beside.programs, "opened"))
    done = beside.app()
    holder = beside.holder()
    assert holder and (beside.programs / "opened").read_text() == f"http://localhost:{holder.port}\n"
    assert done.returncode == 0 and why in both_languages(done.stdout) and "./run.sh app --stop" in done.stdout


def test_without_any_browser_the_address_is_said(beside: Desk, process: Process) -> None:
    done = beside.app()
    port = process.url.rpartition(":")[2]
    assert done.returncode == 0 and f"do so yourself: http://localhost:{port}" in both_languages(done.stdout)


def test_without_a_display_the_address_is_said(beside: Desk, process: Process) -> None:
    beside.program("chromium", recording(beside.programs, "opened"))
    done = beside.app(DISPLAY="")
    port = process.url.rpartition(":")[2]
    assert done.returncode == 0 and "no display here" in both_languages(done.stdout)
    assert f"Local:   http://localhost:{port}" in done.stdout and not (beside.programs / "opened").exists()


def test_who_began_it_from_a_menu_hears_of_it(beside: Desk) -> None:
    """There is no terminal: the desktop shows it."""
    beside.program("chromium", "exit 0")
    beside.program("notify-send", recording(beside.programs, "shown"))
    beside.app()
    assert "the studio goes on" in both_languages((beside.programs / "shown").read_text())


def test_a_server_that_cannot_start_says_why(desk: Desk) -> None:
    desk.program("chromium", recording(desk.home, "opened"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = desk.app(STUDIO_PORT=port)
    assert done.returncode == 1 and f"STUDIO_PORT={port}" in both_languages(done.stderr)
    assert "Address already in use" in done.stderr and not (desk.home / "opened").exists()
    (desk.home / "file").touch()
    done = desk.app(STUDIO_HOME=str(desk.home / "file" / "home"))
    assert done.returncode == 1 and "STUDIO_HOME" in both_languages(done.stderr) and "Errno" not in done.stderr
    done = desk.app(STUDIO_HOEM="x")
    assert done.returncode == 1 and "STUDIO_HOEM" in done.stderr


def test_a_home_that_another_machine_works_in_is_left_to_it(desk: Desk) -> None:
    with home_lock.take(Settings(home=desk.home)) as lock:
        lock.truncate(0)
        lock.write("process 1 on elsewhere.example, port 7860\n")
        lock.flush()
        for arguments in ((), ("--stop",)):
            done = desk.app(*arguments)
            assert done.returncode == 1 and "elsewhere.example" in both_languages(done.stderr)


def test_who_is_about_to_serve_is_not_taken_for_the_last_one(desk: Desk) -> None:
    """The lock had the process of the last server until the new one was open: --stop would have ended a stranger."""
    lock = desk.home / "state" / "lock"
    lock.write_text(f"process {os.getpid()} on {socket.gethostname()}, port 7860\n")
    with home_lock.take(Settings(home=desk.home)):
        assert desk.holder() == Holder(0, "", 0)
        done = desk.app("--stop")
    assert done.returncode == 1 and f"process {os.getpid()}" in done.stderr and "starting" in done.stderr


@BROWSER[0]
@BROWSER[1]
def test_a_real_window_shows_the_page_until_it_is_closed(beside: Desk) -> None:
    """
    Chromium with windows that nobody sees and, for CI is root, without its sandbox: what the program never asks for.
    """
    flags = "--ozone-platform=headless --no-sandbox --disable-gpu --remote-debugging-port=0"
    beside.program("chromium", f'PATH={os.environ["PATH"]}; exec {CHROMIUM} {flags} "$@"')
    port_file = beside.home / "state" / "window" / "DevToolsActivePort"
    with beside.begin() as app:
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert app.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        tools = f"http://127.0.0.1:{port_file.read_text().split()[0]}/json"
        page = next(each for each in httpx.get(f"{tools}/list").json() if each["type"] == "page")
        assert page["url"] == beside.url.replace("127.0.0.1", "localhost") + "/"
        httpx.get(f"{tools}/close/{page['id']}").raise_for_status()
        out, err = app.communicate(timeout=60)
    assert app.returncode == 0 and "the studio goes on" in out, out + err
