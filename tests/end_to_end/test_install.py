"""run.sh: what it says, that a second start installs nothing, and that the edge installation lives without PyTorch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

REPO = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "safetensors", "onnx")
NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}  # installing would fail


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, **env}
    return subprocess.run(["./run.sh", *args], cwd=REPO, env=full, capture_output=True, text=True, check=False)


def test_help_lists_every_verb_and_setting() -> None:
    from dataclasses import fields

    from engines.settings import Settings

    said = run("help").stdout
    for verb in ("serve", "edge", "app", "setup", "test", "build", "models", "bench"):
        assert verb in said
    for field in fields(Settings):
        assert f"STUDIO_{field.name.upper()}" in said
    assert "webUI二次开发 by 科哥" in said


def test_an_unknown_verb_is_refused_with_the_list() -> None:
    done = run("fly")
    assert done.returncode == 1
    assert "fly" in done.stderr and "./run.sh edge" in done.stdout


def test_an_old_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")  # answers the version question with no
    old.chmod(0o755)
    script = (REPO / "run.sh").read_text().replace('cd "$(dirname "${BASH_SOURCE[0]}")"', f'cd "{tmp_path}"')
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((REPO / name).read_bytes())
    (tmp_path / "run.sh").write_text(script)
    env = {**os.environ, "PYTHON": str(old)}
    done = subprocess.run(
        ["bash", "run.sh", "edge"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "3.11" in done.stderr


def pretend(folder: Path, *venvs: str) -> None:
    """Have installations in the folder whose Python says how it was called."""
    for name in ("run.sh", "pyproject.toml", "constraints.txt"):
        (folder / name).write_bytes((REPO / name).read_bytes())
    stamp = "cat pyproject.toml constraints.txt | sha256sum"
    want = subprocess.run(["bash", "-c", stamp], cwd=folder, capture_output=True, check=True).stdout
    for venv in venvs:
        python = folder / venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho {venv} "$@"\n')
        python.chmod(0o755)
        for extra in ("base", "torch", "build"):
            (folder / venv / f".installed-{extra}").write_bytes(want)


def pretended(folder: Path, *args: str) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    done = subprocess.run(["bash", "run.sh", *args], cwd=folder, env=outside, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("there", "used"), [([".venv-edge"], ".venv-edge"), ([".venv", ".venv-edge"], ".venv")])
def test_the_window_is_opened_with_the_installation_that_is_there(there: list[str], used: str, tmp_path: Path) -> None:
    pretend(tmp_path, *there)
    assert pretended(tmp_path, "app", "--stop") == f"{used} -m webui.cli app --stop\n"


@pytest.mark.parametrize(
    ("args", "called"),
    [
        ([], ".venv -m webui.cli"),
        (["--https"], ".venv -m webui.cli --https"),
        (["serve", "--https"], ".venv -m webui.cli serve --https"),
        (["--https", "edge"], ".venv-edge -m webui.cli --https edge"),
        (["app", "--https"], ".venv -m webui.cli app --https"),
        (["bench", "gpen"], ".venv -m benchmarks gpen"),
        (["restore", "a b.tar"], ".venv -m webui.cli restore a b.tar"),
    ],
)
def test_every_verb_is_the_command_s(args: list[str], called: str, tmp_path: Path) -> None:
    pretend(tmp_path, ".venv", ".venv-edge")
    assert pretended(tmp_path, *args) == f"{called}\n"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`./run.sh edge` on its own port and home, installed if it is not yet."""
    home = tmp_path_factory.mktemp("edge")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "STUDIO_HOME": str(home), "STUDIO_PORT": str(port), "STUDIO_HOST": "127.0.0.1"}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(["./run.sh", "edge"], cwd=REPO, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):  # an installation from a slow index may take minutes
            assert server.poll() is None, (home / "log").read_text()
            if _status(f"{url}/readyz") == 200:
                break
            time.sleep(0.5)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(40)


def _status(url: str) -> int:
    try:
        with urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except HTTPError as exc:
        return exc.code
    except OSError:
        return 0


def ask(url: str, body: bytes = b"", kind: str = "application/json") -> dict[str, object]:
    with urlopen(Request(url, body, {"Content-Type": kind}), timeout=120) as answer:
        answered: dict[str, object] = json.load(answer)
        return answered


@pytest.mark.slow
def test_the_edge_installation_has_no_torch(edge: str) -> None:
    python = REPO / ".venv-edge" / "bin" / "python"
    for name in HEAVY:
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode != 0, name
    with urlopen(f"{edge}/healthz") as answer:
        assert "not installed" in json.load(answer)["engines"]["torch"]


@pytest.mark.slow
def test_the_edge_installation_draws_and_restores(edge: str) -> None:
    drawn = ask(f"{edge}/generate", json.dumps({"prompt": "戴眼镜的长发女孩,蓝色背景", "seed": 5}).encode())
    assert drawn["engine"] == "ort" and drawn["seed"] == 5
    with urlopen(f"{edge}{drawn['images'][0]}") as answer:  # type: ignore[index]
        picture = answer.read()
    boundary = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture + b"\r\n--b--\r\n"
    )
    restored = ask(f"{edge}/enhance", boundary, "multipart/form-data; boundary=b")
    assert restored["status"] == "success" and restored["engine"] == "ort"


@pytest.mark.slow
def test_the_edge_installation_says_why_pytorch_cannot_be_had(edge: str) -> None:
    with pytest.raises(HTTPError) as refused:
        ask(f"{edge}/generate", json.dumps({"prompt": "x", "backend": "pytorch"}).encode())
    answer = json.load(refused.value)
    assert refused.value.code == 503 and answer["code"] == "engine_unavailable" and "not installed" in answer["message"]
    with urlopen(f"{edge}/config") as config:
        page = config.read().decode()
    assert "engines_no_torch" in page and '"pytorch"' not in page


@pytest.mark.slow
def test_a_second_start_installs_nothing(edge: str, tmp_path: Path) -> None:
    env = {**NO_INDEX, "STUDIO_HOME": str(tmp_path), "STUDIO_NONSENSE": "1"}
    done = run("edge", **env)
    assert done.returncode == 2 and "STUDIO_NONSENSE" in done.stderr  # it reached Python, which refused the setting
    assert "Installing" not in done.stdout


@pytest.fixture
def updated(tmp_path: Path) -> Path:
    """A clone in which an update has left a newer program."""
    clone, release = tmp_path / "clone", tmp_path / "clone" / "releases" / "2.0"
    release.mkdir(parents=True)
    pretend(clone, ".venv")
    pretend(release, ".venv-edge")
    (clone / "current").symlink_to("releases/2.0")
    return clone


def test_the_newer_program_is_meant_and_files_are_named_from_the_clone(updated: Path) -> None:
    called = ".venv-edge -m webui.cli"
    assert pretended(updated, "edge", "--https") == f"{called} edge --https\n"
    assert pretended(updated, "backup", "a.tar", "--models") == f"{called} backup {updated}/a.tar --models\n"
    assert pretended(updated, "restore", "/b/a.tar") == f"{called} restore /b/a.tar\n"
    assert pretended(updated, "token", "camera") == f"{called} token camera\n"
    done = subprocess.run(["bash", "run.sh", "rollback"], cwd=updated, capture_output=True, text=True)
    assert done.stdout == ".venv-edge -B -m webui.update rollback\n"


def test_who_starts_what_an_update_was_killed_over_hears_of_the_way_back(updated: Path) -> None:
    (updated / "releases" / "step").write_text("start 2.0")
    done = subprocess.run(["bash", "run.sh", "edge"], cwd=updated, capture_output=True, text=True)
    assert "./run.sh rollback" in done.stderr and done.returncode == 0


def test_a_light_installation_can_be_made_without_being_started(tmp_path: Path) -> None:
    pretend(tmp_path, ".venv-edge")
    assert "installed" in pretended(tmp_path, "setup", "edge")
    assert not (tmp_path / ".venv").exists()
