"""What is written for systemd agrees with the program that it starts."""

from __future__ import annotations

import re

import pytest

from engines.settings import Settings
from tests.conftest import REPOSITORY
from webui import __main__ as root

UNIT = REPOSITORY / "deploy" / "systemd" / "awportrait-edge.service"


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """Every value of each name: systemd lets names come again."""
    values: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)
    return values


def test_the_server_alone_speaks_and_has_the_time_it_takes(unit: dict[str, list[str]]) -> None:
    assert (unit["Type"], unit["NotifyAccess"], unit["KillMode"]) == (["notify"], ["main"], ["mixed"])
    assert root.STOP_S + root.LEAVE_S < int(unit["TimeoutStopSec"][0]) < 20
    assert int(unit["WatchdogSec"][0]) >= 30, "a disk that is slow for a moment is no reason"
    assert unit["OOMPolicy"] == ["continue"], "the supervisor starts another worker"


def test_it_starts_what_run_sh_starts(unit: dict[str, list[str]]) -> None:
    """In the folder of the release that is meant, which it cannot write to: run.sh would install."""
    (command,) = unit["ExecStart"]
    folder = unit["WorkingDirectory"][0]
    assert command == f"{folder}/venv/bin/python -m webui"
    assert unit["ExecCondition"] == [f"{folder}/venv/bin/python -m engines.machine.preflight"]
    assert "exec .venv/bin/python -m webui" in (REPOSITORY / "run.sh").read_text(encoding="utf-8")


def test_what_it_keeps_is_private_and_where_it_may_write(unit: dict[str, list[str]]) -> None:
    home = next(value for value in unit["Environment"] if value.startswith("STUDIO_HOME="))
    assert home == f"STUDIO_HOME=%S/{unit['StateDirectory'][0]}"
    assert (unit["StateDirectoryMode"], unit["UMask"], unit["ProtectSystem"]) == (["0700"], ["0077"], ["strict"])
    assert unit["EnvironmentFile"][0].startswith("-"), "it starts without one"


def test_it_hides_no_gpu_and_lets_engines_compile(unit: dict[str, list[str]]) -> None:
    assert not {"PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset"} & set(unit)
    assert {"char-drm rw", "char-accel rw", "char-nvidia* rw"} <= set(unit["DeviceAllow"])


def test_every_setting_that_it_names_is_there() -> None:
    text = UNIT.read_text(encoding="utf-8") + (REPOSITORY / "docs" / "systemd.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"STUDIO_([A-Z_]+)", text)):
        assert hasattr(Settings, name.lower()), name
