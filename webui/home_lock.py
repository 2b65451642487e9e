"""The lock of a home: who holds it is the only one at work there."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from typing import TextIO

from engines.settings import Settings, SettingsError

TAKE_S = 3.0  # how long to wait for the home


def take(settings: Settings) -> TextIO:
    """
    Return the open lock of the home, which is ours as long as this process lives, however it ends: two workers on one
    queue would take each other's running jobs for those of a crash. The worker of a server that was killed holds it a
    moment longer. SettingsError: another process has it.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    lock, deadline = (settings.state / "lock").open("a+", encoding="utf-8"), time.monotonic() + TAKE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                with lock:
                    raise SettingsError(_taken(settings, lock)) from exc
            time.sleep(0.05)
        else:
            sign(lock, "starting")  # what the last holder has left there is no longer so
            return lock


def _taken(settings: Settings, lock: TextIO) -> str:
    lock.seek(0)
    return (
        f"STUDIO_HOME={settings.home}: {lock.read().strip()}\n"
        "这个文件夹正被上述程序使用:请先停止它,或换一个 STUDIO_HOME。"
        " That process uses this folder: stop it first, or choose another STUDIO_HOME."
    )


def sign(lock: TextIO, what: str) -> None:
    """Write into the lock who has it, and for what: "starting", then "port 7860"."""
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}, {what}\n")
    lock.flush()
