"""The server behind the window: the one that is at work in this home, else a new one that outlives whoever began it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from engines import logs
from engines.settings import Settings
from webui.desktop import Unavailable
from webui.doctor import server

START_S = 120.0  # in which it answers: on a slow memory card the page alone takes half a minute to import
STOP_S = 20.0
LOOK_S = 0.1
LAST_LINES = 6
COMMAND = (sys.executable, "-m", "webui")


@dataclass(frozen=True)
class Server:
    """A server of this home: its process, its port, and whether it serves https."""

    process: int
    port: int
    https: bool


def find(settings: Settings) -> Server | None:
    """Return the server that answers in this home; None: there is none, or it does not answer yet."""
    held = server.holder(_lock(settings))
    if held is None or not held.port or held.machine != socket.gethostname():
        return None
    try:
        server.ask(server.url_of(settings.host, held, "/healthz"), "en", settings.state / server.AUTHORITY)
    except (OSError, ValueError, HTTPException):
        return None
    return Server(held.process, held.port, held.https)


def find_or_start(settings: Settings) -> Server:
    """Return the server of this home as soon as it answers. Unavailable: it does not, and why."""
    begun: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if at_work := find(settings):
            return at_work
        held = server.holder(_lock(settings))
        if held and held.process and (held.machine != socket.gethostname() or not held.port):  # which is no server
            raise Unavailable(_busy(settings))
        if held is None and begun is None:
            print("正在启动 Starting …", flush=True)
            begun = _start(settings)
        elif held is None and begun and begun.poll() is not None:  # who holds the home instead, is waited for
            raise Unavailable(f"无法启动,它最后说 It did not start, and said last:\n{_last_words(settings)}")
        time.sleep(LOOK_S)
    raise Unavailable(
        f"{START_S:.0f} 秒内没有回答 No answer within {START_S:.0f} s: {start_log(settings)}\n{_busy(settings)}"
    )


def stop(settings: Settings) -> int:
    """Stop the server of this home, however it was begun, and return its process; 0: there is none. Unavailable."""
    held = server.holder(_lock(settings))
    if held is None:
        return 0
    if not held.port or held.machine != socket.gethostname():
        raise Unavailable(_busy(settings))
    try:
        os.kill(held.process, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it was killed, and its worker is about to notice
    except PermissionError as exc:
        raise Unavailable(
            f"进程 {held.process} 属于别的用户,请由该用户停止 · "
            f"process {held.process} is another user's: let that user stop it"
        ) from exc
    deadline = time.monotonic() + STOP_S
    while (now := server.holder(_lock(settings))) and now.process == held.process:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"进程 {held.process} 在 {STOP_S:.0f} 秒内没有停止 · "
                f"process {held.process} did not stop in {STOP_S:.0f} s"
            )
        time.sleep(LOOK_S)
    return held.process


def start_log(settings: Settings) -> Path:
    """The file with all that the server has printed since it was begun here."""
    return logs.folder(settings.state) / "start.log"


def _lock(settings: Settings) -> Path:
    return settings.state / "lock"


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    """Begin a server in a session of its own: neither Ctrl+C nor the end of the terminal reaches it. Unavailable."""
    path = start_log(settings)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("wb") as log:
            return subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    except OSError as exc:
        raise Unavailable(
            f"{exc.filename or path}: {exc.strerror}\n"
            "请检查这个文件夹能否写入,或换一个 STUDIO_HOME。"
            " See whether it can be written, or choose another STUDIO_HOME."
        ) from exc


def _last_words(settings: Settings) -> str:
    lines = start_log(settings).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LAST_LINES:]) or str(start_log(settings))


def _busy(settings: Settings) -> str:
    """Say who has the home, as the lock has it."""
    who = _lock(settings).read_text(encoding="utf-8").strip() if server.holder(_lock(settings)) else "-"
    return (
        f"STUDIO_HOME={settings.home}: {who}\n"
        "这个文件夹正被上述程序使用:请先停止它,或换一个 STUDIO_HOME。"
        " That process uses this folder: stop it first, or choose another STUDIO_HOME."
    )
