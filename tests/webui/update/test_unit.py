"""An installation that systemd runs: it is stopped and started by systemctl, with the settings of its unit."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import releases
from tests.support.releases import House

# A systemd of one unit, which notes what it is asked to do.
SYSTEMCTL = """\
#!/bin/bash
here="{here}"
alive() {{ [ -s "$here/pid" ] && kill -0 "$(cat "$here/pid")" 2>/dev/null; }}
case "$1" in
  show)
    echo "WorkingDirectory=$here/opt/current"
    if alive; then echo ActiveState=active; else echo ActiveState=inactive; fi
    echo NRestarts=0
    echo 'Environment=PYTHONFAULTHANDLER=1 STUDIO_HOME={here}/opt/data "STUDIO_NAMES=a.lan, b.lan"'
    echo "EnvironmentFiles=$here/env (ignore_errors=yes)" ;;
  start)
    echo "$*" >> "$here/calls"; cd "$here/opt/current"
    export STUDIO_HOME="$here/opt/data" $(grep -v '^#' "$here/env")
    setsid venv/bin/python -m webui </dev/null >/dev/null 2>&1 &
    echo $! > "$here/pid" ;;
  stop)
    echo "$*" >> "$here/calls"; if alive; then kill "$(cat "$here/pid")"; fi; while alive; do sleep 0.01; done ;;
  *) echo "$*" >> "$here/calls" ;;
esac
"""


@dataclass(frozen=True)
class Machine:
    here: Path
    house: House
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> list[str]:
        return (self.here / "calls").read_text(encoding="utf-8").splitlines()

    def update(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.house.do(*words, **self.env)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Version 1.0 in opt/, installed as install.sh does it, and running."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(here=tmp_path), encoding="utf-8")
    systemctl.chmod(0o755)
    (tmp_path / "env").write_text(f"# ours\nSTUDIO_PORT={port}\nSTUDIO_HOST=127.0.0.1\n", encoding="utf-8")
    house = House(tmp_path / "opt")
    house.root.mkdir()
    made = Machine(tmp_path, house, port, {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert made.update("update", str(releases.write(tmp_path / "one", "1.0")), "--edge").returncode == 0
    subprocess.run([str(systemctl), "start"], check=True, timeout=60)
    while house.version() != "1.0":
        pass
    house.add("first")
    (tmp_path / "calls").unlink()
    yield made
    subprocess.run([str(systemctl), "stop"], check=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root asks systemd to do anything")
def test_it_is_stopped_and_started_by_systemd(machine: Machine, tmp_path: Path) -> None:
    done = machine.update("update", str(releases.write(tmp_path / "two", "2.0")))
    assert done.returncode == 0, done.stderr
    assert machine.calls == [f"{verb} awportrait-edge.service" for verb in ("stop", "reset-failed", "start --no-block")]
    assert (machine.house.version(), machine.house.jobs()) == ("2.0", ["first"])
    assert "background" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root asks systemd to do anything")
def test_what_ends_is_left_and_the_journal_has_the_cause(machine: Machine, tmp_path: Path) -> None:
    broken = releases.write(tmp_path / "two", "2.0", "dies", (*releases.OLD, "size"))
    done = machine.update("update", str(broken))
    assert done.returncode == 1 and "journalctl -u awportrait-edge.service" in done.stderr
    while machine.house.version() != "1.0":
        pass
    assert machine.house.jobs() == ["first"] and machine.house.program.name.startswith("1.0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_only_root_may(machine: Machine, tmp_path: Path) -> None:
    done = machine.update("update", str(releases.write(tmp_path / "two", "2.0")))
    assert done.returncode == 1 and "sudo" in done.stderr
    assert machine.calls == []
