"""What systemd would hear: a socket of a test's own in the place of NOTIFY_SOCKET."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT_S = 120.0


class Ear:
    """Everything that was said to `address`, message by message."""

    def __init__(self, address: str) -> None:
        self.address, self.messages = address, list[list[str]]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(LIMIT_S)

    def hear(self) -> list[str]:
        """The lines of the next message."""
        self.messages.append(self._socket.recv(4096).decode().split("\n"))
        return self.messages[-1]

    def until(self, true: Callable[[list[str]], bool]) -> list[str]:
        """The next message of which it is true; the others are passed over."""
        deadline = time.monotonic() + LIMIT_S
        while not true(lines := self.hear()):
            assert time.monotonic() < deadline, self.messages
        return lines

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(folder: Path) -> Iterator[Ear]:
    ear = Ear(str(folder / "notify"))
    try:
        yield ear
    finally:
        ear.close()
