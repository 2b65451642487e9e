"""
Other processors, by qemu-user: a virtual environment whose python is this one under a model of a processor. What that
python starts by `sys.executable` runs under it too; everything else a child might be runs as it is.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from engines.machine.preflight import ImportTrial
from tests.conftest import REPOSITORY

TRY = """
import dataclasses, json, sys
from engines.machine import preflight
from engines.machine.preflight import ImportTrial, examine
preflight.LONGEST_S = 3600.0  # who hangs is no good news here
trials = [ImportTrial(name, tuple(modules), last) for name, modules, last in json.loads(sys.argv[1])]
print(json.dumps({name: outcome.why for name, outcome in examine(trials, None).items()}))
"""
# Settings of this session, and what libraries are told of this very processor: numpy would run its kernels on any.
OF_THIS_MACHINE = ("STUDIO_", "PYTHON", "OPENBLAS_", "ONEDNN_", "ATEN_CPU_")
PATIENCE_S = 300.0  # a processor that is emulated is thirty times slower


@dataclass(frozen=True)
class Emulated:
    """A machine with another processor. `python` is what would be started there."""

    python: Path

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_THIS_MACHINE)}
        command = [str(self.python), *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env={**kept, **env}, capture_output=True, text=True, timeout=PATIENCE_S
        )


def qemu(architecture: str) -> str:
    """Return qemu-user for an architecture, or skip the test."""
    command = shutil.which(f"qemu-{architecture}") or shutil.which(f"qemu-{architecture}-static")
    if command is None:
        pytest.skip(f"qemu-{architecture} is not installed (apt-get install qemu-user)")
    return command


def environment(folder: Path, command: str, prefix: Path, packages: Path, home: Path) -> Emulated:
    """
    Make a virtual environment in `folder` with the site-packages of `packages`, whose python is `command`, for qemu, of
    the installation in `home`. `prefix` has files that the emulated machine sees in the place of this one's.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n", encoding="utf-8")
    library = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    library.mkdir(parents=True)
    (library / "site-packages").symlink_to(packages)
    python = folder / "bin" / "python"
    paths = [shlex.quote(str(path)) for path in (prefix, home / library.name)]
    python.write_text(f'#!/bin/sh\nexec {command} -L {paths[0]} -0 "$0" {paths[1]} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return Emulated(python)


def cpuinfo(prefix: Path, lines: Mapping[str, str], count: int = 2) -> None:
    """Let the emulated machine's kernel say this of each of its processors: qemu-user shows this machine's own."""
    text = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
    (prefix / "proc").mkdir(parents=True, exist_ok=True)
    (prefix / "proc" / "cpuinfo").write_text("".join(f"processor\t: {n}\n{text}\n" for n in range(count)))


def x86(folder: Path, model: str, flags: str) -> Emulated:
    """A PC with this model of processor (qemu-x86_64 -cpu help), whose kernel lists these flags, and our wheels."""
    if platform.machine() != "x86_64":
        pytest.skip("the installed wheels are of another architecture")
    command = qemu("x86_64")
    cpuinfo(folder / "sysroot", {"flags": flags})
    site = next(Path(path) for path in sys.path if path.endswith("site-packages") and Path(path, "numpy").is_dir())
    home = Path(sys.executable).resolve().parent
    return environment(folder / "venv", f"{command} -cpu {model}", folder / "sysroot", site, home)


def aarch64(folder: Path, model: str, features: str) -> Emulated:
    """
    A machine like a Raspberry Pi with this model of processor (qemu-aarch64 -cpu help), whose kernel lists these
    features, none: it says nothing; with the wheels of that platform. Skips the test where they have not been fetched.
    """
    fetched = Path(os.environ.get("STUDIO_TEST_AARCH64", ""))
    if not (fetched / "root" / "usr" / "bin").is_dir():
        pytest.skip("no aarch64 Python and wheels: python -m tests.machines FOLDER, then STUDIO_TEST_AARCH64=FOLDER")
    command, prefix = qemu("aarch64"), folder / "sysroot"
    prefix.mkdir()
    for path in (fetched / "root").iterdir():
        (prefix / path.name).symlink_to(path.resolve())
    # A Cortex-A72, for ONNX Runtime, which reads who has made it
    maker = {"CPU implementer": "0x41", "CPU architecture": "8", "CPU variant": "0x0", "CPU part": "0xd08"}
    cpuinfo(prefix, {"Features": features, **maker, "CPU revision": "3"} if features else {})
    home = (fetched / "root" / "usr" / "bin").resolve()
    return environment(folder / "venv", f"{command} -cpu {model}", prefix, (fetched / "site").resolve(), home)


def outcomes(machine: Emulated, *trials: ImportTrial) -> dict[str, str]:
    """Try this there, and return why what failed did."""
    done = machine.run("-c", TRY, json.dumps([astuple(trial) for trial in trials]))
    assert done.returncode == 0, done.stderr
    return {name: why for name, why in json.loads(done.stdout).items() if why}
