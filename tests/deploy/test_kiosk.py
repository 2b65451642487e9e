"""kiosk.sh waits for the server, and becomes a browser that shows the frame page and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.stub_commands import Commands, is_bilingual

KIOSK = REPOSITORY / "deploy" / "kiosk" / "kiosk.sh"
FORBIDDEN = (
    "web-security",
    "no-sandbox",
    "ignore-certificate",
    "allow-running-insecure",
    "remote-debugging",
    "site-isolation",
)
NOBODY = "http://127.0.0.1:9"  # the discard port, which nobody listens on


@dataclass(frozen=True)
class Door:
    """A server that turns the first so many requests away, and notes the paths of all."""

    away: int  # requests
    open_paths: tuple[str, ...] = ("/readyz",)
    asked: list[str] = field(default_factory=list)

    def status(self, path: str) -> int:
        self.asked.append(path)
        return 200 if len(self.asked) > self.away and path in self.open_paths else 503


@contextmanager
def answering(door: Door) -> Iterator[str]:
    """Serve on a free port, and say where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(door.status(self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the test looks at what was asked."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    commands = Commands.below(tmp_path)
    commands.link("curl")
    return commands


def started(commands: Commands, **env: str) -> tuple[list[str], str]:
    """Return the browser's arguments, and what was said, of a kiosk whose server answers at once."""
    with answering(Door(0)) as url:
        done = commands.run(KIOSK, STUDIO_URL=url, KIOSK_PAUSES="0.05", KIOSK_CHECK_S="0.05", **env)
    assert done.returncode == 0, done.stderr
    (call,) = [call for call in commands.calls if "/frame" in call]
    return call.split(" "), done.stderr


def test_it_waits_while_the_server_is_away_and_then_becomes_the_browser(commands: Commands) -> None:
    commands.stub("chromium")
    door = Door(away=7)
    with answering(door) as url:
        done = commands.run(KIOSK, STUDIO_URL=url, KIOSK_PAUSES="0.05 0.1", KIOSK_CHECK_S="0.05")
    assert done.returncode == 0, done.stderr
    assert len(commands.calls) == 1 and commands.calls[0].endswith(f" {url}/frame")
    assert len(door.asked) > 7 and set(door.asked) == {"/readyz", "/healthz"}
    waiting = done.stderr.splitlines()
    assert len(waiting) == 2 and all(map(is_bilingual, waiting)), "a line each time that it begins to wait longer"


def test_a_server_that_cannot_work_yet_can_show_pictures(commands: Commands) -> None:
    commands.stub("chromium")
    with answering(Door(0, open_paths=("/healthz",))) as url:
        assert commands.run(KIOSK, STUDIO_URL=url, KIOSK_CHECK_S="0.05").returncode == 0
    assert len(commands.calls) == 1


def test_it_never_gives_up(commands: Commands) -> None:
    """Nobody listens there; it is still looking when it is ended after many looks."""
    commands.stub("chromium")
    commands.folder.joinpath("curl").unlink()
    commands.stub("curl", "exit 7")
    kiosk = commands.begin(KIOSK, STUDIO_URL=NOBODY, KIOSK_PAUSES="0.01")
    assert kiosk.stderr
    kiosk.stderr.readline()
    while len(commands.calls) < 60:
        assert kiosk.poll() is None
        time.sleep(0.01)
    kiosk.terminate()
    kiosk.wait(30)
    kiosk.stderr.close()
    assert not [call for call in commands.calls if call.startswith("chromium")]


def test_wget_will_do_where_there_is_no_curl(commands: Commands) -> None:
    commands.folder.joinpath("curl").unlink()
    commands.link("wget")
    commands.stub("chromium")
    assert started(commands)[0][0] == "chromium"


def test_with_neither_it_says_so(commands: Commands) -> None:
    commands.folder.joinpath("curl").unlink()
    commands.stub("chromium")
    done = commands.run(KIOSK, STUDIO_URL=NOBODY)
    assert done.returncode == 2 and is_bilingual(done.stderr) and not commands.calls


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_every_browser_of_that_kind_will_do(name: str, commands: Commands) -> None:
    commands.stub(name)
    commands.stub("cog")
    arguments, _ = started(commands)
    assert arguments[0] == name and "--kiosk" in arguments
    assert not [each for each in arguments for word in FORBIDDEN if word in each]


def test_without_one_it_is_cog(commands: Commands) -> None:
    commands.stub("cog")
    arguments, _ = started(commands, WAYLAND_DISPLAY="wayland-0", FRAME_QUERY="show=album")
    assert arguments[:3] == ["cog", "--webprocess-failure=exit", "--platform=wl"]
    assert arguments[-1].endswith("/frame?show=album")


def test_without_any_it_says_so_at_once(commands: Commands) -> None:
    done = commands.run(KIOSK, STUDIO_URL=NOBODY)
    assert done.returncode == 2 and is_bilingual(done.stderr) and "chromium" in done.stderr


@pytest.mark.parametrize("query", ["show=album&seconds=15", "?show=album&seconds=15"])
def test_the_page_has_the_parameters_that_somebody_chose(query: str, commands: Commands) -> None:
    commands.stub("chromium")
    assert started(commands, FRAME_QUERY=query)[0][-1].endswith("/frame?show=album&seconds=15")


def test_profile_and_cache_are_in_memory(commands: Commands, tmp_path: Path) -> None:
    commands.stub("chromium")
    arguments, _ = started(commands)
    folders = {
        f"--user-data-dir={tmp_path}/awportrait-kiosk/profile",
        f"--disk-cache-dir={tmp_path}/awportrait-kiosk/cache",
    }
    assert folders <= set(arguments)
    assert not [each for each in arguments if each.startswith("--ozone-platform")], "there is no compositor"


def test_a_login_can_last_and_flags_can_be_added(commands: Commands, tmp_path: Path) -> None:
    commands.stub("chromium")
    profile = tmp_path / "a folder that stays"
    arguments, _ = started(commands, KIOSK_PROFILE=str(profile), KIOSK_FLAGS="--a --b=1", WAYLAND_DISPLAY="wayland-0")
    assert profile.is_dir() and profile.stat().st_mode & 0o777 == 0o700
    assert arguments[-3:-1] == ["--a", "--b=1"] and "--ozone-platform=wayland" in arguments


def test_a_lock_that_a_power_failure_left_is_dropped(commands: Commands, tmp_path: Path) -> None:
    """Of a process that is gone; that of one which lives stays."""
    commands.stub("chromium")
    profile = tmp_path / "awportrait-kiosk" / "profile"
    profile.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (profile / "SingletonLock").symlink_to(f"other-name-{gone.pid}")
    started(commands)
    assert not (profile / "SingletonLock").is_symlink()
    (profile / "SingletonLock").symlink_to(f"other-name-{os.getpid()}")
    commands.folder.parent.joinpath("calls").unlink()
    started(commands)
    assert (profile / "SingletonLock").is_symlink()


@pytest.mark.parametrize(
    ("page_dies", "browser", "code"),
    [
        (True, "exec sleep 30", -15),
        (True, "trap '' TERM; exec sleep 30", -9),
        (False, 'until [ "{looks}" -gt 5 ]; do sleep 0.02; done', 0),
    ],
)
def test_a_browser_whose_page_has_died_is_ended(
    page_dies: bool, browser: str, code: int, commands: Commands, tmp_path: Path
) -> None:
    """Processes are pretended: a page that is there twice and then no more, or until the browser ends."""
    calls, line = tmp_path / "calls", f"99 x --type=renderer --user-data-dir={tmp_path}/awportrait-kiosk/profile"
    looks = f'$(grep -c "^pgrep" "{calls}")'
    commands.folder.joinpath("pgrep").unlink()
    commands.stub("pgrep", f'echo "{line}"' if not page_dies else f'[ "{looks}" -gt 2 ] || echo "{line}"')
    commands.stub("chromium", browser.replace("{looks}", looks))
    with answering(Door(0)) as url:
        kiosk = commands.begin(KIOSK, STUDIO_URL=url, KIOSK_CHECK_S="0.05")
        _, words = kiosk.communicate(timeout=60)
    assert kiosk.returncode == code
    assert bool(re.search("browser is started again", words)) is page_dies
