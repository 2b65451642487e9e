"""Releases and wheelhouses: the same commit gives the same file, and what was collected installs without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.stub_commands import is_bilingual
from webui.update import release

PROJECT = """\
[project]
name = "awportrait-edge"
version = "1.2"
dependencies = ["tiny"]
[project.optional-dependencies]
torch = []
build = []
"""
NO_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_EXTRA_INDEX_URL": ""}


def wheel(folder: Path, name: str, *requires: str, tag: str = "py3-none-any") -> Path:
    """Write a wheel of one module that has its name."""
    path = folder / f"{name}-1.0-{tag}.whl"
    about = f"{name}-1.0.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"NAME = {name!r}\n")
        file.writestr(f"{about}/METADATA", "\n".join(metadata) + "\n")
        file.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A program that needs one package, and that another from Python 3.13 on."""
    folder = tmp_path / "project"
    (folder / "deploy").mkdir(parents=True)
    for name in ("run.sh", "deploy/release.sh", "deploy/wheelhouse.py"):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "constraints.txt").write_text("tiny==1.0\n", encoding="utf-8")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Stands for the index: all wheels that there are."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder, "tiny", "later; python_version >= '3.99'", "arm; platform_machine == 'aarch64'")
    wheel(folder, "later")
    for machine in ("x86_64", "aarch64"):
        wheel(folder, "arm", tag=f"py3-none-manylinux_2_28_{machine}")
    return folder


def run(project: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "PIP_"))}
    return subprocess.run(
        ["bash", "run.sh", *words], cwd=project, env={**outside, **NO_INDEX, **env}, capture_output=True, text=True
    )


def collected(project: Path, index: Path, *words: str) -> set[str]:
    done = run(project, "wheelhouse", "wheels", *words, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(index))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (project / "wheels").glob("*.whl")}
    sums = [line.split("  ") for line in (project / "wheels" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    assert {name for _, name in sums} == names
    for value, name in sums:
        assert hashlib.sha256((project / "wheels" / name).read_bytes()).hexdigest() == value
    return names


def test_what_was_collected_installs_without_a_network(project: Path, index: Path) -> None:
    collected(project, index)
    done = run(project, "setup", "edge", "--wheelhouse", "wheels")
    assert done.returncode == 0, done.stderr
    assert subprocess.run([project / ".venv-edge" / "bin" / "python", "-c", "import tiny"]).returncode == 0
    assert run(project, "setup", "edge").returncode == 0, "it is installed"


def test_without_what_was_collected_it_does_not(project: Path) -> None:
    (project / "wheels").mkdir()
    assert run(project, "setup", "edge", STUDIO_WHEELHOUSE="wheels").returncode != 0
    assert not (project / ".venv-edge" / ".installed-base").exists()


def test_what_was_changed_on_its_way_is_refused(project: Path, index: Path) -> None:
    collected(project, index)
    (project / "wheels" / "tiny-1.0-py3-none-any.whl").write_bytes(b"another")
    done = run(project, "setup", "edge", "--wheelhouse=wheels")
    assert done.returncode == 1 and "SHA256SUMS" in done.stderr and is_bilingual(done.stderr)


def test_another_machine_and_python_have_requirements_of_their_own(project: Path, index: Path) -> None:
    """pip itself asks the Python that it runs in."""
    names = collected(project, index, "--platform", "aarch64", "--python", "3.99")
    assert names == {
        "tiny-1.0-py3-none-any.whl", "later-1.0-py3-none-any.whl", "arm-1.0-py3-none-manylinux_2_28_aarch64.whl",
    }  # fmt: skip


def git(project: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *words], cwd=project, check=True, capture_output=True)


def test_the_same_commit_gives_the_same_file(project: Path, tmp_path: Path) -> None:
    for name in ("__main__.py", "server.py"):
        (project / "webui").mkdir(exist_ok=True)
        (project / "webui" / name).touch()
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "a")
    (project / "secret").write_text("not committed", encoding="utf-8")
    packed = []
    for folder in ("first", "second"):
        done = subprocess.run(
            ["bash", "deploy/release.sh", tmp_path / folder], cwd=project, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        packed.append(tmp_path / folder / "awportrait-edge-1.2.tar.gz")
        os.utime(project / "run.sh", (0, 0))
    assert packed[0].read_bytes() == packed[1].read_bytes()
    source = release.examine(packed[0])  # its sum lies beside it
    assert (source.version, source.top) == ("1.2", "awportrait-edge-1.2")
    with tarfile.open(packed[0]) as tar:
        assert "awportrait-edge-1.2/secret" not in tar.getnames()
        assert len({member.mtime for member in tar}) == 1
    packed[0].write_bytes(packed[0].read_bytes() + b"x")
    with pytest.raises(release.NotDone):
        release.examine(packed[0])


def test_what_is_no_clone_is_not_packed(project: Path) -> None:
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(project.parent)}
    done = subprocess.run(["bash", "deploy/release.sh"], cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and is_bilingual(done.stderr)
