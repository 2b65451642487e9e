"""deploy/systemd/install.sh: what is installed, whose it is, what stays, and that systemd and the shell can read it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support import releases
from tests.support.stub_commands import is_bilingual
from tests.support.tree import tree

SCRIPT = Path("deploy", "systemd", "install.sh")
BASE, SETTINGS, STATE = Path("opt/awportrait-edge"), Path("etc/awportrait-edge.env"), Path("var/lib/awportrait-edge")
UNIT = Path("etc/systemd/system/awportrait-edge.service")
# Our own updater, for a release that only pretends has none.
PYTHON = """\
#!/bin/bash
[[ "$*" != *webui.update* ]] || cd "{repository}"
exec "{python}" "$@"
"""


@dataclass(frozen=True)
class Machine:
    """A folder as if it were /, and a release that somebody has unpacked."""

    root: Path
    release: Path
    bin: Path

    def install(self, *words: str, root: Path | str | None = None) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "DESTDIR": str(self.root if root is None else root),
            "PYTHON": str(self.bin / "python"),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        command = [str(self.release / SCRIPT), *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=120)

    def stub(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (self.bin / name).chmod(0o755)

    @property
    def current(self) -> Path:
        return (self.root / BASE / "current").resolve()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "root", releases.write(tmp_path / "release", "1.0"), tmp_path / "bin")
    made.root.mkdir()
    made.bin.mkdir()
    for folder in ("systemd", "kiosk"):
        shutil.copytree(REPOSITORY / "deploy" / folder, made.release / "deploy" / folder)
    (made.bin / "python").write_text(PYTHON.format(repository=REPOSITORY, python=sys.executable), encoding="utf-8")
    (made.bin / "python").chmod(0o755)
    return made


@pytest.mark.parametrize("words", [(), ("--uninstall",), ("--uninstall", "--purge")])
def test_a_dry_run_says_what_it_would_do_and_does_nothing(words: tuple[str, ...], machine: Machine) -> None:
    before = tree(machine.root)
    done = machine.install("--dry-run", *words)
    assert done.returncode == 0, done.stderr
    assert str(BASE) in done.stdout and all(line.startswith("+ ") for line in done.stdout.splitlines())
    assert tree(machine.root) == before


def test_a_dry_run_of_the_whole_machine_has_user_and_service(machine: Machine) -> None:
    """It needs no root, and says what it would do as root."""
    machine.stub("systemctl", "exit 1")
    machine.stub("getent", "exit 2")
    python = machine.bin / "python"
    python.write_text(python.read_text().replace("exec", '[[ "$*" != *base_prefix* ]] || { echo /usr; exit; }\nexec'))
    done = machine.install("--dry-run", root="")
    assert done.returncode == 0, done.stderr
    assert "+ useradd --system" in done.stdout and "+ systemctl restart awportrait-edge.service" in done.stdout


def test_a_python_that_the_service_cannot_see_is_refused(machine: Machine) -> None:
    machine.stub("systemctl", "exit 1")
    python = machine.bin / "python"
    python.write_text(
        python.read_text().replace("exec", '[[ "$*" != *base_prefix* ]] || { echo /home/anna; exit; }\nexec')
    )
    done = machine.install("--dry-run", root="")
    assert done.returncode == 2 and "in somebody's home" in done.stderr and is_bilingual(done.stderr)


def test_it_installs_a_program_that_all_can_read_and_root_alone_write(machine: Machine) -> None:
    for path in [machine.release, *machine.release.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o700)  # a clone of somebody who shares nothing
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert (machine.root / BASE / "run.sh").resolve() == machine.current / "run.sh"
    for path in (machine.root / BASE).rglob("*"):
        if not path.is_symlink() and path.name != ".lock":
            wanted = 0o755 if path.is_dir() or path.suffix == ".sh" else 0o644
            assert path.stat().st_mode & 0o777 == wanted, path
    assert (machine.current / "venv").resolve() == machine.current / ".venv-edge"
    assert (machine.root / SETTINGS).stat().st_mode & 0o777 == 0o640
    assert (machine.root / UNIT).stat().st_mode & 0o777 == 0o644


def test_once_more_is_an_update_and_settings_stay(machine: Machine) -> None:
    assert machine.install().returncode == 0
    (machine.root / SETTINGS).write_text("STUDIO_PORT=8080\n", encoding="utf-8")
    releases.write(machine.release, "2.0")
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert machine.current.name.startswith("2.0")
    assert (machine.root / SETTINGS).read_text(encoding="utf-8") == "STUDIO_PORT=8080\n"
    assert (machine.current / "venv").resolve().name == ".venv-edge", "what it was"


@pytest.mark.parametrize(("word", "venv"), [("--edge", ".venv-edge"), ("--full", ".venv")])
def test_with_pytorch_or_without(word: str, venv: str, machine: Machine) -> None:
    assert machine.install(word).returncode == 0
    assert (machine.current / "venv").resolve().name == venv


def test_packages_come_from_a_folder_where_there_is_no_network(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    assert machine.install("--wheelhouse", str(tmp_path / "wheels")).returncode == 0
    assert (machine.current / "installed-from").read_text().strip() == str(tmp_path / "wheels")


def test_what_was_installed_by_hand_is_set_aside(machine: Machine) -> None:
    releases.write(machine.root / BASE, "0.1")
    done = machine.install()
    assert done.returncode == 0, done.stderr
    (aside,) = (machine.root / "opt").glob("awportrait-edge.before-*")
    assert (aside / "webui").is_dir() and str(aside) in done.stderr
    assert machine.current.name.startswith("1.0")


def test_the_unit_names_no_group_that_is_missing(machine: Machine) -> None:
    for script, line in (("exit 2", "#SupplementaryGroups=render"), ("exit 0", "SupplementaryGroups=render")):
        machine.stub("getent", script)
        assert machine.install().returncode == 0
        assert line in (machine.root / UNIT).read_text(encoding="utf-8").splitlines()


def test_a_kiosk_may_come_with_it(machine: Machine) -> None:
    assert machine.install("--kiosk").returncode == 0
    assert (machine.root / "etc/systemd/system/awportrait-kiosk.service").exists()
    assert machine.install("--kiosk", "--uninstall").returncode == 0
    assert not (machine.root / "etc/systemd/system/awportrait-kiosk.service").exists()


def test_uninstalling_leaves_data_and_settings_and_says_where(machine: Machine) -> None:
    assert machine.install().returncode == 0
    (machine.root / STATE).mkdir(parents=True)
    (machine.root / STATE / "picture.png").touch()
    done = machine.install("--uninstall")
    assert done.returncode == 0, done.stderr
    assert not (machine.root / BASE).exists() and not (machine.root / UNIT).exists()
    assert (machine.root / STATE / "picture.png").exists() and (machine.root / SETTINGS).exists()
    assert str(machine.root / STATE) in done.stderr and is_bilingual(done.stderr)
    assert machine.install("--uninstall", "--purge").returncode == 0, "once more does no harm"
    assert not (machine.root / STATE).exists() and not (machine.root / SETTINGS).exists()


def test_data_elsewhere_are_never_deleted(machine: Machine, tmp_path: Path) -> None:
    (machine.root / SETTINGS).parent.mkdir(parents=True)
    (machine.root / SETTINGS).write_text(f"STUDIO_HOME={tmp_path / 'elsewhere'}\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    done = machine.install("--uninstall", "--purge")
    assert done.returncode == 0 and (tmp_path / "elsewhere").is_dir()
    assert f"not touched: {tmp_path / 'elsewhere'}" in done.stderr


@pytest.mark.parametrize("words", [("--purge",), ("--fast",), ("--wheelhouse",)])
def test_what_it_does_not_understand_it_does_not_do(words: tuple[str, ...], machine: Machine) -> None:
    before = tree(machine.root)
    assert machine.install(*words).returncode == 2
    assert tree(machine.root) == before


@pytest.mark.parametrize("script", [REPOSITORY / SCRIPT, REPOSITORY / "deploy" / "release.sh", REPOSITORY / "run.sh"])
def test_the_shell_can_read_it(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_can_read_the_unit(machine: Machine, tmp_path: Path) -> None:
    """As it is installed, with a Python that is there: verify wants programs to be."""
    machine.stub("getent", "exit 2")
    assert machine.install().returncode == 0
    text = (machine.root / UNIT).read_text(encoding="utf-8").replace("/opt/", f"{machine.root}/opt/")
    (tmp_path / UNIT.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "awportrait" in line]
    assert (done.returncode, said) == (0, []), done.stderr
