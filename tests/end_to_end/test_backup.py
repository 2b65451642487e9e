"""A backup of a server at work, and another server on what is made out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.support.server import Process


def backup(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**{name: value for name, value in os.environ.items() if "STUDIO" not in name}, "STUDIO_HOME": str(home)}
    command = [sys.executable, "-m", "webui.backup", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=120)


def test_a_picture_has_the_same_address_in_the_restored_home(
    process: Process, start: Callable[[Path], Process], tmp_path: Path
) -> None:
    drawn = httpx.post(f"{process.url}/generate", json={"prompt": "y", "steps": 1}, timeout=300).json()
    (address,) = drawn["images"]
    content = httpx.get(f"{process.url}{address}").raise_for_status().content
    done = backup(process.log.parent, "backup", str(tmp_path / "studio.tar"))
    assert done.returncode == 0, done.stderr
    done = backup(process.log.parent, "restore", str(tmp_path / "studio.tar"), "--replace")
    assert done.returncode == 1 and f"process {process.popen.pid}" in done.stderr, "somebody is at work there"
    done = backup(tmp_path / "home", "restore", str(tmp_path / "studio.tar"))
    assert done.returncode == 0, done.stderr
    server = start(tmp_path / "home")
    server.until_ready()
    assert httpx.get(f"{server.url}{address}").raise_for_status().content == content
    assert httpx.post(f"{server.url}/generate", json={"prompt": "z", "steps": 1}, timeout=300).status_code == 200
