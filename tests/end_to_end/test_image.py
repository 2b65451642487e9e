"""
The image of deploy/docker, built and run for real, and its page in Chromium. Only where STUDIO_TEST_BASE_IMAGE names
what it begins with (deploy/docker/base.sh makes that of Debian's packages), and podman, docker or STUDIO_TEST_ENGINE is
there. STUDIO_TEST_IMAGE names an image that is built already; STUDIO_TEST_BUILD has further words for the build.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.support.browser_window import BROWSER, Visit
from tests.support.http import encoded, people

if TYPE_CHECKING:
    from playwright.sync_api import Page

ENGINE = os.environ.get("STUDIO_TEST_ENGINE") or shutil.which("podman") or shutil.which("docker") or ""
BASE, IMAGE = os.environ.get("STUDIO_TEST_BASE_IMAGE", ""), os.environ.get("STUDIO_TEST_IMAGE", "")
pytestmark = [
    *BROWSER,
    pytest.mark.slow,
    pytest.mark.skipif(not ENGINE, reason="neither podman nor docker is installed"),
    pytest.mark.skipif(not (BASE or IMAGE), reason="STUDIO_TEST_BASE_IMAGE names no image to build upon"),
]
LARGEST_MB = 700
MB = 1_000_000
STOP_S = 10.0
RED = (220, 30, 30)
HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp:size=256m,mode=1777")
AS_ROOT = ("--cap-add=CHOWN", "--cap-add=SETGID", "--cap-add=SETUID")  # to become another user
# What Docker before 20.10.10 does: a call that its profile does not know is not permitted, rather than not there.
OLD_DOCKER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}
THREAD = "import threading as t; a = t.Thread(target=print, args=('it ran',)); a.start(); a.join()"


def engine(*words: str, check: bool = True, timeout: float = 120) -> str:
    done = subprocess.run([ENGINE, *words], capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout.strip() if check else done.stdout + done.stderr


@pytest.fixture(scope="module")
def image() -> str:
    if IMAGE:
        return IMAGE
    name = f"localhost/awportrait-test:{uuid4().hex[:8]}"
    words = ["build", "-f", "deploy/docker/Dockerfile", "--target", "edge", "--build-arg", f"BASE={BASE}", "-t", name]
    if "podman" in ENGINE:
        words += ["--format", "docker"]
    words += [*shlex.split(os.environ.get("STUDIO_TEST_BUILD", "")), str(REPOSITORY)]
    done = subprocess.run([ENGINE, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    return name


@dataclass(frozen=True)
class Container:
    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inside(self, *words: str) -> str:
        return engine("exec", self.name, *words)

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return answer.status == 200
        except HTTPError as exc:
            return exc.code == 200
        except OSError:
            return False

    def until_ready(self, patience_s: float = 120) -> None:
        deadline = time.monotonic() + patience_s
        while not self.ready():
            state = engine("inspect", "-f", "{{.State.Running}}", self.name)
            assert state == "true", engine("logs", self.name, check=False)
            assert time.monotonic() < deadline, engine("logs", self.name, check=False)
            time.sleep(0.2)


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"awportrait-test-{uuid4().hex[:8]}"
    engine("volume", "create", name)
    yield name
    engine("volume", "rm", "-f", name)


@pytest.fixture
def start(image: str, volume: str) -> Iterator[Callable[..., Container]]:
    """Start the image on a volume of its own, and wait until it is ready."""
    begun: list[Container] = []

    def started(*words: str) -> Container:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        container = Container(f"awportrait-test-{uuid4().hex[:8]}", port)
        network = ("--network=host", f"--env=STUDIO_PORT={port}", "--env=STUDIO_HOST=127.0.0.1")
        begun.append(container)
        engine("run", "-d", f"--name={container.name}", *network, *HARDENED, f"-v={volume}:/data", *words, image)
        container.until_ready()
        return container

    yield started
    for container in begun:
        engine("rm", "-f", container.name, check=False)


def shows(page: Page, colour: tuple[int, int, int]) -> bool:
    """Whether the middle of the screen has this colour."""
    screen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    return bool(np.abs(screen[screen.shape[0] // 2, screen.shape[1] // 2] - colour).max() < 25)


def own_users(container: Container) -> set[str]:
    """The users of all processes of the program, as the kernel says them."""
    script = "cat /proc/[0-9]*/status 2>/dev/null | grep -E '^(Pid|Uid)'"
    numbers = re.findall(r"Pid:\s+(\d+)\nUid:\s+(\d+)\s+(\d+)\s+(\d+)", container.inside("sh", "-c", script))
    return {user for _, *users in numbers[:2] for user in users}  # init and the server; what asks is root


def test_it_is_small_and_says_how_it_is_watched(image: str) -> None:
    about = json.loads(engine("inspect", "--type=image", image))[0]
    config = about["Config"]
    assert about["Size"] <= LARGEST_MB * MB
    assert config["StopSignal"] in ("SIGTERM", "15") and list(config["Volumes"]) == ["/data"]
    assert config["Entrypoint"] == ["/usr/local/bin/studio"] and config["Cmd"] == ["python3", "-m", "webui"]
    assert (config.get("Healthcheck") or about.get("Healthcheck"))["Test"] == ["CMD", "/usr/local/bin/studio-health"]


def test_nothing_in_it_installs_packages_or_makes_one_root(image: str) -> None:
    script = "find / -xdev -type f -perm /6000; for n in apt-get pip pip3 perl; do command -v $n; done; true"
    assert engine("run", "--rm", "--entrypoint=/bin/sh", image, "-c", script) == ""


def test_a_person_draws_restores_and_hangs_a_frame(start, browser, tmp_path: Path) -> None:
    photo, wall = tmp_path / "奶奶.png", tmp_path / "wall"
    photo.write_bytes(encoded(people(), "PNG"))
    wall.mkdir()
    Image.new("RGB", (900, 600), RED).save(wall / "red.png")
    container = start(*AS_ROOT, f"-v={wall}:/wall:ro", "--env=STUDIO_ALBUMS=/wall")
    window = Visit(browser, container.url)
    window.page.click("[data-preset=realistic]")
    window.page.wait_for_function("document.querySelector('textarea').value.length > 5")
    window.page.click("#generate")
    window.until("done")
    window.tab(1)
    window.page.set_input_files("#photo input[type=file]", photo)
    window.page.wait_for_selector("#photo img")
    window.page.click("#restore-start")
    window.until("done", "#restore-stage")
    assert window.complaints == []
    frame = window.context.new_page()
    frame.goto(f"{container.url}/frame?show=folder:wall")
    deadline = time.monotonic() + 30
    while not shows(frame, RED):
        assert time.monotonic() < deadline, "the frame does not show the wall"
        frame.wait_for_timeout(200)
    window.close()
    names = container.inside("studio", "ls", "/data/outputs").split()
    assert sum(name.startswith("outputs_") and name.endswith(".png") for name in names) == 2


@pytest.mark.parametrize(
    "words", [("--user=568:568",), (*AS_ROOT, "--env=PUID=568", "--env=PGID=568")], ids=["user", "PUID"]
)
def test_it_is_whoever_is_named_and_stops_in_time(start, words: tuple[str, ...]) -> None:
    container = start("--env=HOME=", *words)
    assert own_users(container) == {"568"}
    assert container.inside("stat", "-c", "%u:%g", "/data/state").strip() == "568:568"
    assert container.inside("studio-health") == ""
    begun = time.monotonic()
    engine("stop", "-t", "60", container.name)
    assert time.monotonic() - begun < STOP_S
    assert engine("inspect", "-f", "{{.State.ExitCode}}", container.name) == "0"


def test_a_worker_that_is_killed_comes_back_and_leaves_no_zombie(start) -> None:
    container = start(*AS_ROOT)
    pids = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q engines.worker && basename $p; done; true"
    worker = container.inside("sh", "-c", pids).split()[0]
    container.inside("studio", "python3", "-c", f"import os; os.kill({worker}, 9)")
    deadline = time.monotonic() + 60
    while container.inside("sh", "-c", pids).split() in ([], [worker]) or not container.ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    states = container.inside("sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null | grep ^State")
    assert "zombie" not in states


def test_threads_start_where_docker_is_old(image: str, tmp_path: Path) -> None:
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps(OLD_DOCKER))
    old = ("run", "--rm", f"--security-opt=seccomp={profile}", "--tmpfs=/data:mode=1777")
    bare = engine(*old, "--entrypoint=python3", image, "-c", THREAD, check=False)
    assert "can't start new thread" in bare, "this profile is no old Docker's"
    for words in (("--user=568:568", "--cap-drop=all"), ("--cap-drop=all", *AS_ROOT)):
        assert engine(*old, *words, image, "python3", "-c", THREAD) == "it ran"


def test_it_says_what_to_do_where_it_cannot_start(image: str, volume: str, tmp_path: Path) -> None:
    (bound := tmp_path / "roots").mkdir(mode=0o755)
    assert "chown -R 568:568" in engine(
        "run", "--rm", *HARDENED, f"-v={bound}:/data", "--user=568:568", image, check=False
    )
    assert "cap_add" in engine("run", "--rm", *HARDENED, f"-v={volume}:/data", image, check=False)
