"""The wheel: holds all that the program needs, and is one, away from the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.support.brokers import free_port

PACKAGES = ("engines", "presets", "webui")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git has, as from a clone: what lies about in a working tree is no part of it."""
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel without asking an index")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("what belongs to the program is what git lists, and this is no clone")
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    for name in names:
        if Path(name).parts[0] in PACKAGES or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(REPOSITORY / name)
    command = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which it is installed; the libraries are those of the tests."""
    folder = tmp_path_factory.mktemp("site")
    command = ["pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(folder), str(wheel)]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, text=True)
    return folder


def environment(installed: Path, home: Path, **settings: object) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    ours = {name: str(value) for name, value in settings.items()}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "HOME": str(home), "LANG": "C.UTF-8", **ours}


def awportrait(installed: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(installed / "bin" / "awportrait"), *words]
    return subprocess.run(
        command, cwd=home, env=environment(installed, home), capture_output=True, text=True, check=False
    )


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert set(listed.stdout.splitlines()) - names == set()
    others = {name for name in names if Path(name).parts[0] not in PACKAGES and ".dist-info/" not in name}
    assert others == set(), "names that are too common to be taken by us in everybody's site-packages"
    assert wheel.stat().st_size < 90e6, "an index takes 100 MB"


def test_what_it_says_speaks_of_its_own_command(installed: Path, tmp_path: Path) -> None:
    said = awportrait(installed, tmp_path, "help").stdout
    assert "awportrait serve" in said and "run.sh" not in said
    assert str(tmp_path / ".local" / "share" / "awportrait-edge") in said
    assert "pip install" in awportrait(installed, tmp_path, "setup").stdout
    for verb in ("models", "token", "watch", "app", "backup"):
        done = awportrait(installed, tmp_path, verb, "--help")
        assert done.returncode == 0 and "awportrait" in done.stdout and "run.sh" not in done.stdout, done.stderr


@pytest.mark.slow
def test_it_serves_away_from_the_source_tree(installed: Path, tmp_path: Path) -> None:
    """With its own weights, from a folder with a file that is called like one of its packages."""
    (folder := tmp_path / "elsewhere").mkdir()
    (folder / "webui.py").write_text("raise SystemExit('not this')")
    port = free_port()
    env = environment(installed, tmp_path / "person", STUDIO_PORT=port, STUDIO_HOST="127.0.0.1")
    command = [sys.executable, "-P", str(installed / "bin" / "awportrait"), "edge"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        ready = _ready(server, f"http://127.0.0.1:{port}/readyz", tmp_path / "log")
    finally:
        server.terminate()
        server.wait(30)
    assert {"portrait", "restorer", "detector"} <= set(ready["bundles"])
    assert [path.name for path in (tmp_path / "person").iterdir()] == [".local"], "nothing else is left in the home"
    assert [path.name for path in folder.iterdir()] == ["webui.py"]


def _ready(server: subprocess.Popen[bytes], url: str, log: Path) -> dict[str, object]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if (answer := httpx.get(url, timeout=5)).status_code == 200:
                return dict(answer.json())
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())
