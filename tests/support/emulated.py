"""
Other processors, by qemu-user: a virtual environment whose python is this one under a model of a processor. What that
python starts by `sys.executable` runs under it too; everything else a child might be runs as it is.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PATIENCE_S = 120.0  # a processor that is emulated is thirty times slower


@dataclass(frozen=True)
class Emulated:
    """A machine with another processor. `python` is what would be started there."""

    python: Path

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "PYTHON"))}
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
