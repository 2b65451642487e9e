"""
Where releases lie, and which of them is meant:

    ROOT/current -> releases/NAME    the only thing that an update changes, in one rename
    ROOT/releases/NAME/              a program with its packages; RELEASE in it says what it has replaced
    ROOT/releases/step               what an update is about to do; only one that was killed leaves it

A clone that was never updated has no `current`, and is meant itself: CLONE is its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engines.settings.installation import RELEASE, root_of
from webui.update import NotDone

CURRENT, RELEASES, STEP = "current", "releases", "step"
CLONE = "."
VENV = "venv"  # in a release: the link to the one that a unit starts it with
VENVS = {"full": ".venv", "edge": ".venv-edge"}


@dataclass(frozen=True)
class Installation:
    root: Path

    @classmethod
    def of(cls, program: Path) -> Installation:
        """Return the one that a program is part of."""
        return cls(root_of(program))

    @property
    def releases(self) -> Path:
        return self.root / RELEASES

    @property
    def current(self) -> str | None:
        """The release that is meant; None: there is none yet."""
        link = self.root / CURRENT
        if link.is_symlink():
            return Path(os.readlink(link)).name
        return CLONE if (self.root / "webui").is_dir() else None

    def folder(self, name: str) -> Path:
        return self.root if name == CLONE else self.releases / name

    def previous(self, name: str) -> str | None:
        """Return what that release has replaced; None: nothing, or it is not there any more."""
        try:
            before = json.loads((self.folder(name) / RELEASE).read_text(encoding="utf-8"))["replaces"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return before if isinstance(before, str) and (self.folder(before) / "run.sh").is_file() else None

    def kind(self, name: str) -> str | None:
        """Return which packages that release has, as it was installed, or as run.sh decides it; None: none."""
        link = self.folder(name) / VENV
        if link.is_symlink():
            return next((kind for kind, venv in VENVS.items() if os.readlink(link) == venv), None)
        for kind, venv in VENVS.items():
            if os.access(self.folder(name) / venv / "bin" / "python", os.X_OK):
                return kind
        return None

    def new(self, version: str) -> Path:
        """Make the folder of a release that replaces the present one, when it is switched to. OSError."""
        stem = f"{version}-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
        names = (stem, *(f"{stem}-{number}" for number in range(2, 100)))  # of one second
        folder = next(path for name in names if not (path := self.releases / name).exists())
        folder.mkdir()
        (folder / RELEASE).write_text(json.dumps({"replaces": self.current}), encoding="utf-8")
        return folder

    def switch(self, name: str) -> None:
        """Let this release be meant from now on, at one moment, which outlasts a power failure. OSError."""
        link, beside = self.root / CURRENT, self.root / f".{CURRENT}"
        os.sync()  # what it leads to is on the disk before it does
        if name == CLONE:
            link.unlink(missing_ok=True)
            return
        beside.unlink(missing_ok=True)
        beside.symlink_to(Path(RELEASES, name))
        beside.replace(link)

    def step(self, what: str) -> None:
        """Note what is about to be done, for who comes after a crash. OSError."""
        beside = self.releases / f".{STEP}"
        beside.write_text(what, encoding="utf-8")
        beside.replace(self.releases / STEP)

    def done(self) -> None:
        (self.releases / STEP).unlink(missing_ok=True)

    def interrupted(self) -> str:
        """Return at which step an update was killed; empty: none was."""
        with suppress(OSError):
            return (self.releases / STEP).read_text(encoding="utf-8")
        return ""

    def prune(self) -> None:
        """Delete all releases but the present one and what it has replaced, also what a crash has left. OSError."""
        present = self.current
        stay = {present, self.previous(present)} if present else set()
        for folder in self.releases.iterdir():
            if folder.is_dir() and folder.name not in stay:
                shutil.rmtree(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other update changes this installation. NotDone: one does. OSError."""
        self.releases.mkdir(exist_ok=True)
        with (self.releases / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise NotDone("另一个更新正在进行 · another update is at work here") from exc
            yield
