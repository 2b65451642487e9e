"""install.sh and the units: what is installed, that nothing else is, and that systemd and the shell can read it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.tree import tree

FOLDER = REPOSITORY / "deploy" / "kiosk"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])
SCRIPTS = sorted(FOLDER.glob("*.sh"))
LIB, SYSTEM, SETTINGS = "usr/local/lib/awportrait-kiosk", "etc/systemd/system", "etc/default/awportrait-kiosk"


def install(root: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run install.sh as if that folder were /."""
    command = [str(FOLDER / "install.sh"), *arguments]
    env = {**os.environ, "DESTDIR": str(root)}
    return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=60)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def lines(unit: str) -> list[str]:
    return (FOLDER / unit).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("arguments", [(), ("--uninstall",)])
def test_a_dry_run_says_what_it_would_do_and_does_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    before = tree(tmp_path)
    done = install(tmp_path, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert SYSTEM in done.stdout and all(line.startswith("+ ") for line in done.stdout.splitlines())
    assert tree(tmp_path) == before


def test_a_dry_run_of_the_whole_machine_has_user_and_services() -> None:
    """It needs no root, and says what it would do as root."""
    done = install("", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "+ systemctl enable --quiet awportrait-kiosk.service" in done.stdout
    assert "useradd --system" in done.stdout or "exists and stays as it is" in done.stderr


def test_it_installs_once_and_again_the_same(tmp_path: Path) -> None:
    assert install(tmp_path).returncode == 0
    first = files(tmp_path)
    assert {f"{SYSTEM}/{unit.name}" for unit in UNITS} | {f"{LIB}/kiosk.sh", f"{LIB}/screen.sh", SETTINGS} <= first
    (tmp_path / SETTINGS).write_text("STUDIO_URL=http://studio:7860\n", encoding="utf-8")
    assert install(tmp_path).returncode == 0
    assert files(tmp_path) == first
    assert "http://studio" in (tmp_path / SETTINGS).read_text(encoding="utf-8"), "settings stay"


def test_uninstalling_leaves_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / SYSTEM).mkdir(parents=True)
    (tmp_path / SYSTEM / "other.service").touch()
    assert install(tmp_path).returncode == 0
    assert install(tmp_path, "--uninstall").returncode == 0
    assert files(tmp_path) == {f"{SYSTEM}/other.service"}
    assert install(tmp_path, "--uninstall").returncode == 0, "once more does no harm"


def test_uninstalling_leaves_settings_that_somebody_wrote(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / SETTINGS).write_text("SCREEN_ON=06:30\n", encoding="utf-8")
    install(tmp_path)
    done = install(tmp_path, "--uninstall")
    assert files(tmp_path) == {SETTINGS} and "your settings stay" in done.stderr


def test_times_become_drop_ins_and_go_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).parent.mkdir(parents=True)
    (tmp_path / SETTINGS).write_text("FRAME_QUERY=show=album&seconds=15\nSCREEN_OFF=23:05\n", encoding="utf-8")
    assert install(tmp_path).returncode == 0
    drop_in = tmp_path / SYSTEM / "awportrait-screen-off.timer.d" / "schedule.conf"
    assert drop_in.read_text(encoding="utf-8").splitlines() == ["[Timer]", "OnCalendar=", "OnCalendar=*-*-* 23:05"]
    assert not (tmp_path / SYSTEM / "awportrait-screen-on.timer.d").exists()
    (tmp_path / SETTINGS).write_text("", encoding="utf-8")
    assert install(tmp_path).returncode == 0
    assert not drop_in.exists()


def test_a_time_that_is_none_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).parent.mkdir(parents=True)
    (tmp_path / SETTINGS).write_text("SCREEN_ON=25:00\n", encoding="utf-8")
    done = install(tmp_path)
    assert done.returncode == 2 and "25:00" in done.stderr
    assert files(tmp_path) == {SETTINGS}


def test_the_pointer_is_one_pixel_of_nothing(tmp_path: Path) -> None:
    """As Xcursor reads it, in the default theme and in the theme that older versions of cage want."""
    install(tmp_path)
    for name in ("default/cursors/left_ptr", "left_ptr/cursors/left_ptr", "default/cursors/default"):
        data = (tmp_path / LIB / "icons" / name).read_bytes()
        magic, header, _, entries = struct.unpack_from("<4sIII", data)
        kind, _, at = struct.unpack_from("<III", data, header)
        chunk = struct.unpack_from("<9I", data, at)
        assert (magic, entries, kind, chunk[1]) == (b"Xcur", 1, 0xFFFD0002, kind)
        assert chunk[4:9] == (1, 1, 0, 0, 0) and data[at + chunk[0] :] == bytes(4)


def test_the_kiosk_is_started_again_for_ever_and_needs_no_server_here() -> None:
    unit = lines("awportrait-kiosk.service")
    assert {"Restart=always", "StartLimitIntervalSec=0", "OOMPolicy=stop"} <= set(unit)
    assert any(line.startswith("After=awportrait-edge.service") for line in unit)
    assert not [line for line in unit if line.startswith(("Requires=", "BindsTo=", "PrivateDevices=", "ProtectHome="))]
    assert f"ExecStart=/usr/bin/cage -s -- /{LIB}/kiosk.sh" in unit


def test_every_setting_of_the_example_is_of_use() -> None:
    programs = "".join(path.read_text(encoding="utf-8") for path in [*SCRIPTS, *UNITS])
    for line in lines("kiosk.env.example"):
        name, is_setting, _ = line.removeprefix("#").partition("=")
        if is_setting and name.isupper() and " " not in name:
            assert name in programs, name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_can_read_it(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_can_read_the_units(tmp_path: Path) -> None:
    """As they are installed, with a compositor that only pretends: verify wants programs to be there."""
    assert install(tmp_path).returncode == 0
    cage = tmp_path / "usr" / "bin" / "cage"
    cage.parent.mkdir()
    cage.write_text("#!/bin/sh\n", encoding="utf-8")
    cage.chmod(0o755)
    paths = []
    for unit in UNITS:
        text = (
            unit.read_text(encoding="utf-8").replace("/usr/bin/cage", str(cage)).replace(f"/{LIB}", f"{tmp_path}/{LIB}")
        )
        paths.append(tmp_path / unit.name)
        paths[-1].write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "awportrait" in line]
    assert (done.returncode, said) == (0, []), done.stderr
