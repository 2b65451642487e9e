"""
Tells systemd how the server is, in the words of sd_notify(3): it serves, it stops, it lives. Without NOTIFY_SOCKET in
the environment nothing of this runs.

A sign of life is withheld for nothing but what a restart would mend: an event loop, a database or a supervisor that
does not answer. The program itself mends an engine that crashed, and nobody a full disk.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.errors import DatabaseDamaged, StorageError

if TYPE_CHECKING:  # it imports what is compiled, which webui/__main__.py tries first
    from engines.messages.status import Status, WorkerState

log = logging.getLogger(__name__)
SEND_S = 1.0  # systemd reads what it is sent in no time, or is being restarted itself
ANSWER_S = 5.0  # for one answer; who is late is asked again at once, and has all of systemd's patience to answer
AGAIN_S = 1.0  # between such questions
LOOK_S = 30.0  # how often to say how the worker is, where nobody waits for signs of life
STATES: dict[WorkerState, str] = {
    "ready": "可以接活 Ready",
    "loading": "正在加载模型 Loading the models",
    "failed": "暂时不能工作 Cannot work",
}


@dataclass(frozen=True)
class Systemd:
    """Where it listens, and after how many seconds without a sign of life it starts another server; 0: never."""

    address: str  # a path, or NUL and a name
    watchdog_s: float = 0.0

    def send(self, *lines: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_S)
                sender.sendto("\n".join(lines).encode(), self.address)
        except OSError as exc:
            log.warning("systemd does not hear %s: %s", lines[0], exc)


def take(env: MutableMapping[str, str], pid: int) -> Systemd | None:
    """
    Take what systemd has left in the environment for the process `pid`, so that no child speaks in its name. None: it
    does not listen.
    """
    address, usec, who = (env.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    if not address.startswith(("/", "@")):
        return None
    minds = usec.isdecimal() and who in ("", str(pid))
    return Systemd(address.replace("@", "\0", 1), int(usec) / 1e6 if minds else 0.0)


@dataclass(frozen=True)
class Check:
    """Something without which only a restart helps: `fault` says so, in both languages, when `answers` is false."""

    fault: str
    answers: Callable[[], bool]


def checks(
    loop: asyncio.AbstractEventLoop, read: Callable[[], object], supervised: Callable[[], bool]
) -> tuple[Check, ...]:
    """`read` reads something from the database; `supervised` says whether the supervisor's thread lives."""
    return (
        Check("事件循环没有响应 The event loop does not answer", lambda: loop_answers(loop)),
        Check("任务数据库没有响应 The jobs' database does not answer", lambda: database_answers(read)),
        Check("监管线程已结束 The supervisor has ended", supervised),
    )


def loop_answers(loop: asyncio.AbstractEventLoop, within_s: float = ANSWER_S) -> bool:
    """Return whether the loop, which runs on another thread, runs what is given to it."""
    answered = threading.Event()
    try:
        loop.call_soon_threadsafe(answered.set)
    except RuntimeError:  # it is closed
        return False
    return answered.wait(within_s)


def database_answers(read: Callable[[], object], within_s: float = ANSWER_S) -> bool:
    """
    Return whether `read` comes back. It may raise StorageError: what the disk refuses is an answer, for no restart
    makes room on it; damage is none, for the next start repairs it.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            read()
        except DatabaseDamaged as exc:
            log.error("%s", exc)
            return
        except StorageError as exc:
            log.warning("%s", exc)
        answered.set()

    threading.Thread(target=ask, name="database's answer", daemon=True).start()
    return answered.wait(within_s)


def attend(systemd: Systemd, asked: Sequence[Check], status: Callable[[], Status], stopping: threading.Event) -> None:
    """Say that the server serves; then, until it is `stopping`, how it is, and that it lives as long as it does."""
    systemd.send("READY=1", f"STATUS={_sentence(status())}")
    wait_s, before = systemd.watchdog_s / 2 or LOOK_S, ""
    while not stopping.wait(AGAIN_S if before else wait_s):
        fault = _fault(asked) if systemd.watchdog_s else ""  # where nobody minds, nobody need be asked
        if fault and not before:
            log.error("%s", fault)
        lives = () if fault or not systemd.watchdog_s else ("WATCHDOG=1",)
        systemd.send(f"STATUS={fault or _sentence(status())}", *lives)
        before = fault
    systemd.send("STOPPING=1", "STATUS=正在停止 Stopping")


def _fault(asked: Sequence[Check]) -> str:
    return next((check.fault for check in asked if not check.answers()), "")


def _sentence(status: Status) -> str:
    """On one line: what comes after a line's end would be another message."""
    return " ".join(f"{STATES[status.state]} {status.detail}".split())
