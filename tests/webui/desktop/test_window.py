"""Which browser shows the page, how it is asked to, and what becomes of it. The browsers are shell scripts."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Within
from webui.desktop import APP_ID, Unavailable, window

URL = "http://localhost:7860"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder of PATH that is not the system's, where there is no browser."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sleep"):
        (folder / name).symlink_to(Path("/bin", name))
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state" / "log").mkdir(parents=True)
    return tmp_path / "state"


def until(is_so: Callable[[], bool]) -> int:
    while not is_so():
        time.sleep(0.01)
    return 0


def write(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", window.COMMANDS)
def test_every_browser_of_that_kind_will_do(name: str, programs: Path) -> None:
    assert window.browser() is None
    write(programs / name, "")
    assert window.browser() == str(programs / name)


def test_macos_has_them_elsewhere(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert window.browser(tmp_path / "Applications") is None
    edge = tmp_path / "Applications" / "Microsoft Edge.app" / "Contents" / "MacOS" / "Microsoft Edge"
    write(edge, "")
    assert window.browser(tmp_path / "Applications") == str(edge)
    assert window.has_display({})


@pytest.mark.parametrize(
    ("env", "there"),
    [({}, False), ({"DISPLAY": ""}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True)],
)
def test_a_display_is_x11s_or_waylands(env: dict[str, str], there: bool) -> None:
    assert window.has_display(env) is there


def test_the_window_has_nothing_but_the_page_and_a_profile_of_its_own(programs: Path, state: Path) -> None:
    write(programs / "chromium", f'printf "%s\\n" "$@" > "{state}/arguments"')
    assert window.show(URL, state) is True
    arguments = (state / "arguments").read_text().splitlines()
    assert {f"--app={URL}", f"--user-data-dir={state}/window", f"--class={APP_ID}"} <= set(arguments)
    assert not [argument for argument in arguments if "sandbox" in argument]


def test_what_a_browser_refuses_is_said_in_its_words(programs: Path, state: Path) -> None:
    write(programs / "chromium", 'echo starting; echo "no usable sandbox" >&2; exit 1')
    with pytest.raises(Unavailable, match="no usable sandbox"):
        window.show(URL, state)
    write(programs / "chromium", "exit 7")
    with pytest.raises(Unavailable, match="7"):
        window.show(URL, state)
    (programs / "chromium").write_text("#!/no/such/shell\n")
    with pytest.raises(Unavailable, match="No such file"):
        window.show(URL, state)


def test_without_a_browser_of_that_kind_it_is_said(programs: Path, state: Path) -> None:
    with pytest.raises(Unavailable, match="Chromium"):
        window.show(URL, state)


def test_a_second_window_is_not_taken_for_one_that_was_closed(programs: Path, state: Path, within: Within[int]) -> None:
    """As Chromium does: the second process hands its page to the first, and ends at once."""
    write(
        programs / "chromium",
        f'[ -e "{state}/first" ] && exit; : > "{state}/first"; while [ ! -e "{state}/closed" ]; do sleep 0.02; done',
    )
    closed: list[bool] = []
    first = threading.Thread(target=lambda: closed.append(window.show(URL, state)), daemon=True)
    first.start()
    within(30, lambda: until((state / "first").exists))
    assert window.show(URL, state) is False
    assert not closed
    (state / "closed").touch()
    first.join(30)
    assert closed == [True]
    assert window.show(URL, state) is True


def test_a_window_that_nobody_waits_for_still_counts(programs: Path, state: Path, within: Within[int]) -> None:
    """Its `./run.sh app` was killed: the browser itself holds the lock."""
    write(programs / "chromium", f': > "{state}/first"; while [ ! -e "{state}/closed" ]; do sleep 0.02; done')
    code = f"from pathlib import Path; from webui.desktop import window; window.show({URL!r}, Path({str(state)!r}))"
    waiting = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    within(30, lambda: until((state / "first").exists))
    waiting.kill()
    waiting.wait(30)
    with (state / "window.lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (state / "closed").touch()
        within(30, lambda: fcntl.flock(lock, fcntl.LOCK_EX) or 0)
