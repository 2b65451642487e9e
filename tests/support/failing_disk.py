"""
A disk that refuses writes at a moment that a test chooses: the n-th, or all for a while, with any error that a kernel
has. A process started by `python -m tests.support.failing_disk SOCKET MODULE` asks before every system call that
changes files (seccomp's user notification, Linux 5.5), as does all that it starts. So SQLite's writes are hit as
Python's are.

To be started by who holds a FailingDisk; what it writes elsewhere than in the disk's folders is let through.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import runpy
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SECCOMP, SET_MODE_FILTER, NEW_LISTENER = 317, 1, 8  # linux/seccomp.h, for x86-64
NO_NEW_PRIVS = 38  # linux/prctl.h
RECEIVE, ANSWER, GO_ON = 0xC0502100, 0xC0182101, 1
ALLOW, ASK = 0x7FFF0000, 0x7FC00000
NOTICE, REPLY = "QIIiIQ6Q", "QqiI"
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h: of a word, a jump, a jump, a constant
NUMBER_AT, FLAGS_AT = 0, 32  # in seccomp_data: which call, and the low half of its third argument
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPENAT = 257
BY_FILE = {1: "write", 18: "write", 20: "write", 296: "write", 77: "truncate", 285: "allocate", 74: "sync", 75: "sync"}
BY_PATH = {83: "mkdir", 82: "rename", 86: "link", 88: "link", 87: "unlink", 84: "unlink"}  # the last path but of links
BY_FOLDER_AND_PATH = {OPENAT: "open", 258: "mkdir", 263: "unlink"}
NAMES = BY_FILE | BY_PATH | BY_FOLDER_AND_PATH


@dataclass(frozen=True)
class WritePoint:
    """One call that changes files: what it does, and to which."""

    act: str
    path: Path


def can_fail() -> str:
    """Return why no disk can fail here; empty: it can."""
    if platform.machine() != "x86_64":
        return "the numbers of system calls are x86-64's"
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return "no seccomp"
    return "" if "user_notif" in actions else "no user notification in this kernel's seccomp"


class FailingDisk:
    """What is written below `folders`, of which `watch` says what is refused."""

    def __init__(self, *folders: Path) -> None:
        self.folders = tuple(str(folder.resolve()) for folder in folders)
        self._lock = threading.Lock()
        self.ours, self.theirs = socket.socketpair()
        self.watch()

    def watch(self, first: int = 0, seconds: float = 0.0, why: int = errno.ENOSPC) -> None:
        """
        Count anew the writes that may fail with the errno `why`, and refuse the `first`-th (0: none), with `seconds`
        also all that come in so many after it.
        """
        with self._lock:
            self.points: list[WritePoint] = []
            self.refused: list[WritePoint] = []
            self.first, self.seconds, self.why, self._until = first, seconds, why, 0.0

    @property
    def command(self) -> list[str]:
        """What to put before the name of a module, whose process is given `descriptors` and then `serve`d."""
        return [sys.executable, "-m", "tests.support.failing_disk", str(self.theirs.fileno())]

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.theirs.fileno(),)

    def serve(self) -> None:
        """Answer from now on, until all those who ask have ended."""
        self.theirs.close()
        _, (listener, *_), _, _ = socket.recv_fds(self.ours, 1, 1)
        self.ours.close()
        threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    def _answer(self, listener: int) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while True:
            ((_, happened),) = poll.poll()
            if not happened & select.POLLIN:  # nobody is left who could ask
                os.close(listener)
                return
            notice = bytearray(struct.calcsize(NOTICE))
            with contextlib.suppress(OSError):  # it has ended, or does something else, in between
                fcntl.ioctl(listener, RECEIVE, notice)
                number, pid, _, call, _, _, *arguments = struct.unpack(NOTICE, notice)
                refusal = self._decide(pid, call, arguments)
                reply = struct.pack(REPLY, number, 0, -refusal, 0 if refusal else GO_ON)
                fcntl.ioctl(listener, ANSWER, reply)

    def _decide(self, pid: int, call: int, arguments: list[int]) -> int:
        try:
            path = _path(pid, call, arguments)
        except OSError:  # the process is ending
            return 0
        if not path.startswith(self.folders):
            return 0
        point = WritePoint(NAMES[call], Path(path))
        with self._lock:
            return self._refusal(point) if _may_fail(point, self.why) else 0

    def _refusal(self, point: WritePoint) -> int:
        self.points.append(point)
        at, now = len(self.points), time.monotonic()
        if at == self.first:
            self._until = now + self.seconds
        if at == self.first or now < self._until:
            self.refused.append(point)
            return self.why
        return 0


def _may_fail(point: WritePoint, why: int) -> bool:
    """A full disk lets files go, and be opened; one that is read-only does not. What is there is not made anew."""
    if point.act == "mkdir" or (point.act == "open" and why == errno.ENOSPC):
        return not point.path.exists()
    return point.act != "unlink" or why != errno.ENOSPC


def _path(pid: int, call: int, arguments: list[int]) -> str:
    if call in BY_FILE:
        return os.readlink(f"/proc/{pid}/fd/{arguments[0] & 0xFFFFFFFF}")
    if call in BY_FOLDER_AND_PATH:
        folder = struct.unpack("i", struct.pack("I", arguments[0] & 0xFFFFFFFF))[0]
        base = os.readlink(f"/proc/{pid}/cwd" if folder < 0 else f"/proc/{pid}/fd/{folder}")
        return os.path.join(base, _text(pid, arguments[1]))
    two = NAMES[call] in ("rename", "link")
    return os.path.join(os.readlink(f"/proc/{pid}/cwd"), _text(pid, arguments[1 if two else 0]))


def _text(pid: int, address: int) -> str:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        text = b""
        while b"\0" not in text and len(text) < 4096:
            piece = os.pread(memory.fileno(), 4096 - (address + len(text)) % 4096, address + len(text))
            text += piece
    return os.fsdecode(text.partition(b"\0")[0])


def _filter() -> bytes:
    """
    Ask for these calls, and for those that open files for writing; let all others pass. A jump says how many steps are
    passed over, if it holds and if not.
    """
    calls = [number for number in NAMES if number != OPENAT]
    steps = [(LOAD, 0, 0, NUMBER_AT), (EQUAL, 0, 2, OPENAT), (LOAD, 0, 0, FLAGS_AT)]
    steps += [(ANY_BIT, len(calls) + 1, len(calls), WRITING)]
    steps += [(EQUAL, len(calls) - k, 0, number) for k, number in enumerate(calls)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ASK)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _install() -> int:
    """Return the descriptor at which this process's calls are decided from now on. OSError."""
    steps = ctypes.create_string_buffer(_filter())
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(_filter()) // 8, ctypes.addressof(steps)))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = library.syscall(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


def main() -> None:
    door, module = int(sys.argv[1]), sys.argv[2]
    with socket.socket(fileno=door) as theirs:
        listener = _install()
        socket.send_fds(theirs, [b"x"], [listener])
    os.close(listener)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
