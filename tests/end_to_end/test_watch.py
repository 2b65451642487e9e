"""`python -m webui.watch` and the server with STUDIO_INBOX, as they are started, with the built-in restorer."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.support.http import encoded, people
from tests.support.proved import believe_engines
from tests.support.server import Process
from webui.watch.report import NAME

WAIT_S = 120.0
Started = Callable[..., subprocess.Popen[str]]


def environment(home: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    return {**others, "STUDIO_HOME": str(home), "STUDIO_BACKEND": "edge"}


@pytest.fixture
def begin() -> Iterator[Started]:
    """begin(home, *arguments): the command, with what it says in a pipe. What still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def popen(home: Path, *arguments: str) -> subprocess.Popen[str]:
        home.mkdir(exist_ok=True)
        believe_engines(home)
        command = [sys.executable, "-m", "webui.watch", *arguments]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def await_file(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} does not come"
        time.sleep(0.1)


def test_a_folder_is_watched_without_a_server(begin: Started, tmp_path: Path) -> None:
    inbox, restored = tmp_path / "inbox", tmp_path / "restored"
    (inbox / "2004").mkdir(parents=True)
    original = inbox / "2004" / "合影.jpg"
    original.write_bytes(encoded(people(), "JPEG"))
    original.chmod(0o644)
    os.utime(original, ns=(10**18, 10**18))
    (inbox / "bad.jpg").write_bytes(b"\xff\xd8 no picture \xff\xd9")
    process = begin(tmp_path / "home", str(inbox))
    await_file(restored / "2004" / "合影.jpg")
    await_file(restored / NAME)
    result = restored / "2004" / "合影.jpg"
    with Image.open(result) as after, Image.open(original) as before:
        assert after.size == before.size and after.format == "JPEG" and after.tobytes() != before.tobytes()
    assert (result.stat().st_mtime_ns, result.stat().st_mode & 0o777) == (10**18, 0o644)
    assert original.stat().st_mtime_ns == 10**18 and original.read_bytes() == encoded(people(), "JPEG")
    assert "bad.jpg" in (restored / NAME).read_text(encoding="utf-8")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=40)
    assert process.returncode == 0 and str(inbox) in said and "Traceback" not in said


def test_a_server_that_has_the_home_is_named(begin: Started, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "home" / "state").mkdir(parents=True)
    with (tmp_path / "home" / "state" / "lock").open("w") as lock:
        lock.write("process 7 on somewhere, port 7860\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        said, _ = begin(tmp_path / "home", str(tmp_path)).communicate(timeout=60)
    assert "port 7860" in said and "请在它那里设置 STUDIO_INBOX" in said and "set STUDIO_INBOX there" in said


@pytest.mark.parametrize(
    ("arguments", "why"), [((), "STUDIO_INBOX"), (("",), "STUDIO_INBOX"), ((" ",), "STUDIO_INBOX")]
)
def test_without_an_inbox_it_says_what_to_do(begin: Started, tmp_path: Path, arguments: list[str], why: str) -> None:
    process = begin(tmp_path / "home", *arguments)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and why in said and "Traceback" not in said


def test_a_server_watches_too(tmp_path: Path) -> None:
    home, inbox = tmp_path / "home", tmp_path / "inbox"
    home.mkdir()
    inbox.mkdir()
    server = Process(home, STUDIO_INBOX=str(inbox), STUDIO_OUTBOX=str(inbox / "better"), STUDIO_HOST="127.0.0.1")
    try:
        people().save(data := io.BytesIO(), "PNG")
        (inbox / "a.png").write_bytes(data.getvalue())
        await_file(inbox / "better" / "a.png")
    finally:
        assert server.stop() == 0, server.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["inbox_crashes", "stack_crashes"])
def test_killed_before_each_single_step_it_loses_and_doubles_nothing(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-m", f"tests.support.{module}", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    points, *wrong = done.stdout.splitlines()
    assert wrong == [] and done.returncode == 0, done.stderr
    assert int(points) > 100
