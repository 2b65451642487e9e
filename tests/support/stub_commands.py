"""Scripts of deploy/, run with a PATH of one folder: commands that only pretend, and a few true ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRUE_COMMANDS = ("bash", "cat", "grep", "id", "mkdir", "mktemp", "pgrep", "readlink", "rm", "sleep")


@dataclass(frozen=True)
class Commands:
    """The one folder of PATH, and a file that the pretended commands write their arguments to, one a line."""

    folder: Path

    @classmethod
    def below(cls, home: Path, true_commands: tuple[str, ...] = TRUE_COMMANDS) -> Commands:
        commands = cls(home / "bin")
        commands.folder.mkdir()
        for name in true_commands:
            commands.link(name)
        return commands

    @property
    def calls(self) -> list[str]:
        """Return each call so far: the name of the command and its arguments, one a line, as they came."""
        log = self.folder.parent / "calls"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def link(self, name: str) -> None:
        """Make a true command of this machine one of those in PATH; without it the test could say nothing."""
        true = shutil.which(name)
        assert true, f"{name} is not installed"
        (self.folder / name).symlink_to(true)

    def stub(self, name: str, script: str = "") -> None:
        """Pretend a command: it notes how it was called, then does what the script says."""
        log = self.folder.parent / "calls"
        path = self.folder / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> "{log}"\n{script}\n', encoding="utf-8")
        path.chmod(0o755)

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return what a script sees: nothing of this machine's display, and a runtime folder of its own."""
        home = self.folder.parent
        own = {"PATH": str(self.folder), "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "LC_ALL": "C.UTF-8"}
        return {**own, **env}

    def run(self, script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end; a test that would hang fails."""
        command = [str(script), *arguments]
        return subprocess.run(
            command, env=self.environment(env), capture_output=True, text=True, encoding="utf-8", timeout=20
        )

    def begin(self, script: Path, **env: str) -> subprocess.Popen[str]:
        """Start a script in a group of its own, so that what it leaves behind can be ended with it."""
        return subprocess.Popen(
            [str(script)],
            env=self.environment(env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )


def is_bilingual(sentence: str) -> bool:
    """Return whether it has Chinese characters, and English words."""
    return bool(re.search("[\u4e00-\u9fff]", sentence) and re.search("[A-Za-z]{3}", sentence))
