"""Packages that end who imports them, as a wheel does that was built for another processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DIES = "import os, signal\nos.kill(os.getpid(), signal.{name})\n"


def broken(folder: Path, name: str, text: str = DIES.format(name="SIGILL")) -> Path:
    """Write a package into `folder` that hides the one of this name where the folder stands in PYTHONPATH."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(text, encoding="utf-8")
    return folder


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process look for packages in `folder` first, and every child too. It imports none of them itself."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
