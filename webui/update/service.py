"""
The server that an update stops and starts: systemd's, where the unit starts this installation, or one that somebody has
begun by hand, which is begun again in the background with the settings that it had.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from engines import logs
from engines.settings import Settings
from webui.desktop import Unavailable, serving
from webui.doctor import server
from webui.doctor.server import Holder
from webui.update import NotDone
from webui.update.installation import CURRENT, VENVS, Installation

UNIT = "awportrait-edge.service"
COMMAND_S = 120.0
FIELDS = ("WorkingDirectory", "ActiveState", "NRestarts", "Environment", "EnvironmentFiles")
ENDED = ("failed", "inactive")
NOBODY = frozenset({"no_answer"})  # a reason like those that /readyz gives


@dataclass
class Service(ABC):
    """`settings`: with which it runs. `kind`: which packages it runs with; empty: those of its release."""

    settings: Settings
    running: bool
    kind: str
    log: str  # where the person reads why it does not start

    @abstractmethod
    def stop(self) -> None:
        """End it, and wait until it has. NotDone: it does not."""

    @abstractmethod
    def start(self, program: Path, kind: str) -> None:
        """Begin the program of that folder. OSError, NotDone."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether what was begun has given up."""

    @abstractmethod
    def _holder(self) -> Holder | None:
        """Who should answer."""

    def faults(self) -> frozenset[str]:
        """Ask how it is: the codes of the reasons why it cannot work; empty: it can."""
        held = self._holder()
        if held is None:
            return NOBODY
        url = server.url_of(self.settings.host, held, "/readyz")
        try:
            answer = server.ask(url, "en", self.settings.state / server.AUTHORITY)
        except (OSError, ValueError, HTTPException):
            return NOBODY
        return frozenset(code for code, _ in answer.reasons) or (frozenset() if answer.status == 200 else NOBODY)


@dataclass
class Unit(Service):
    def stop(self) -> None:
        _systemctl("stop", UNIT)

    def start(self, program: Path, kind: str) -> None:
        _systemctl("reset-failed", UNIT)
        _systemctl("start", "--no-block", UNIT)

    def ended(self) -> bool:
        shown = _shown()
        return shown["ActiveState"] in ENDED or shown["NRestarts"] not in ("", "0")

    def _holder(self) -> Holder | None:
        """By the settings: root reads nothing from a home that the service can write to."""
        return Holder(0, "", self.settings.port, self.settings.https)


@dataclass
class ByHand(Service):
    env: Mapping[str, str] = field(default_factory=dict)  # its settings, as variables
    begun: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        try:
            serving.stop(self.settings)
        except Unavailable as exc:
            raise NotDone(str(exc)) from exc
        if self.begun is not None:
            with suppress(OSError):  # the next start writes over it
                shutil.copyfile(serving.start_log(self.settings), self.log)
            with suppress(subprocess.TimeoutExpired):
                self.begun.wait(0 if self.begun.poll() is not None else serving.STOP_S)
            if self.begun.poll() is None:  # it hangs before it has the home
                self.begun.kill()
                self.begun.wait()
            self.begun = None

    def start(self, program: Path, kind: str) -> None:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
        path = serving.start_log(self.settings)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [str(program / VENVS[kind] / "bin" / "python"), "-m", "webui"]
        with path.open("wb") as log:
            self.begun = subprocess.Popen(
                command,
                cwd=program,
                env={**outside, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self) -> bool:
        return self.begun is not None and self.begun.poll() is not None

    def _holder(self) -> Holder | None:
        held = server.holder(self.settings.state / "lock")
        if held is None or not held.port or (self.begun is not None and held.process != self.begun.pid):
            return None
        return held


def of(installation: Installation, env: Mapping[str, str]) -> Service:
    """Return the server of this installation, whether it runs or not. SettingsError, NotDone."""
    shown = _shown() if shutil.which("systemctl") else {}
    if shown.get("WorkingDirectory", "").rstrip("/") == str(installation.root / CURRENT):
        return _unit(shown)
    ours = {name: value for name, value in env.items() if name.startswith("STUDIO_")}
    ours.setdefault("STUDIO_HOME", str(installation.root / "data"))
    home = (installation.root / ours["STUDIO_HOME"]).absolute()
    held = server.holder(home / "state" / "lock")
    if held is not None and not held.port:
        raise NotDone(
            f"STUDIO_HOME={home}: 正被进程 {held.process or '?'} 使用,请先停止它"
            f" · process {held.process or '?'} uses it: stop that first"
        )
    kind = ""
    if held is not None:
        ours = {**ours, **_environment(held.process)}
        kind = _kind(_read(held.process, "cmdline"))
    ours["STUDIO_HOME"] = str(home)
    settings = Settings.load(ours)
    log = str(logs.folder(settings.state) / "update.log")
    return ByHand(settings, held is not None, kind, log, ours)


def _unit(shown: Mapping[str, str]) -> Unit:
    if os.geteuid() != 0:
        raise NotDone("程序由 systemd 运行,请用 root:sudo · systemd runs the program: use root, as with sudo")
    env = dict(pair.split("=", 1) for pair in shlex.split(shown["Environment"]))
    for line in shown["EnvironmentFiles"].splitlines():
        with suppress(FileNotFoundError):
            env.update(_variables(Path(line.partition(" (")[0]).read_text(encoding="utf-8").splitlines()))
    settings = Settings.load({name: value for name, value in env.items() if name.startswith("STUDIO_")})
    running = shown["ActiveState"] not in ENDED
    return Unit(settings, running, "", f"journalctl -u {UNIT} -n 50")


def _variables(lines: Sequence[str]) -> dict[str, str]:
    """Return what a file of systemd's says, a line each; quotes go."""
    pairs = (line.strip().partition("=") for line in lines if not line.lstrip().startswith(("#", ";")))
    return {name.strip(): value.strip().strip("'\"") for name, sign, value in pairs if sign}


def _kind(command: Sequence[str]) -> str:
    text = " ".join(command)
    return next((kind for kind, venv in reversed(VENVS.items()) if f"/{venv}/" in text or f"{venv}/bin" in text), "")


def _environment(process: int) -> dict[str, str]:
    """Return the settings with which a process runs, where this system says so."""
    pairs = (pair.partition("=") for pair in _read(process, "environ"))
    return {name: value for name, _, value in pairs if name.startswith("STUDIO_")}


def _read(process: int, name: str) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{process}/{name}").read_text(encoding="utf-8", errors="surrogateescape").split("\0")
    return []


def _shown() -> dict[str, str]:
    command = ["systemctl", "show", UNIT, *(f"--property={name}" for name in FIELDS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    except subprocess.TimeoutExpired as exc:
        raise NotDone(f"systemd 没有回答 · systemd does not answer: {exc}") from exc
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {**dict.fromkeys(FIELDS, ""), **{name: value for name, _, value in pairs}}


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=COMMAND_S)
    except subprocess.TimeoutExpired as exc:
        raise NotDone(f"systemctl {' '.join(arguments)}: {exc}") from exc
    if done.returncode:
        raise NotDone(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
