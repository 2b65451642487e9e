#!/usr/bin/python3 -I
"""
What an image begins with, and `docker exec NAME studio COMMAND` too: become the user that PUID and PGID name, if root
has begun it; mend what an old Docker does to threads; and become the command. Needs nothing but Python.

Where `user:` is set, nobody is root and nothing changes hands: the folder must be that user's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

WRONG = 2  # how a start ends that somebody must mend, as webui's own does
INIT = ("/usr/bin/tini", "-g", "--")  # ends what the program leaves, and passes signals on
CLONE3 = 435  # on every processor
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
# Of struct seccomp_data, the number of the call: is it clone3, say that there is no such call; else let it be.
NO_CLONE3 = (
    (0x20, 0, 0, 0),  # load the word at 0
    (0x15, 0, 1, CLONE3),  # equal: go on; else skip one
    (0x06, 0, 0, 0x00050000 | errno.ENOSYS),  # SECCOMP_RET_ERRNO
    (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
)


class StartError(Exception):
    """Why nothing can be started, and what to do, in Chinese and in English."""


def number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32 - 1:
        raise StartError(f"{name}={text}: 须为数字,如 {default}。 It must be a number, like {default}.")
    return int(text)


def drop_root(env: Mapping[str, str], home: Path) -> None:
    """
    Become PUID:PGID for good (1000:1000 where they are not given). The groups that the container was given (group_add:
    a GPU's) stay, root's goes. A folder that Docker has just made, which is root's and empty, becomes that user's.
    """
    user, group = number(env, "PUID", 1000), number(env, "PGID", 1000)
    with suppress(OSError):  # shares of a network refuse it; whether one can write is looked at next
        if home.stat().st_uid == 0 and not any(home.iterdir()):
            os.chown(home, user, group)
            home.chmod(0o755)
    if user == 0:  # somebody insists
        return
    try:
        os.setgroups([other for other in os.getgroups() if other not in (0, group)])
        os.setgid(group)
        os.setuid(user)
    except PermissionError as exc:
        raise StartError(
            '没有切换用户的权限:请加上 cap_add: [CHOWN, SETGID, SETUID],或改用 user: "1000:1000"。'
            ' It may not change its user: add cap_add: [CHOWN, SETGID, SETUID], or set user: "1000:1000" instead.'
        ) from exc


def check_home(home: Path) -> None:
    """StartError: this user cannot write to the folder of all data."""
    if os.access(home, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return
    who = f"{os.geteuid()}:{os.getegid()}"
    try:
        status = home.stat()
        whose = f"{status.st_uid}:{status.st_gid} {stat.filemode(status.st_mode)}"
    except OSError as exc:
        whose = exc.strerror or "?"
    raise StartError(
        f"用户 {who} 不能写入 {home}({whose}):请在主机上对挂载到这里的文件夹运行 chown -R {who},"
        "或把 PUID、PGID(或 user:)改成它的属主。"
        f" User {who} cannot write to {home} ({whose}): on the host run chown -R {who} on the folder that is mounted"
        " here, or set PUID and PGID (or user:) to its owner."
    )


def threads_are_refused(libc: ctypes.CDLL) -> bool:
    """
    Whether clone3 is answered by "not permitted", as Docker before 20.10.10 does: the C library would take that for an
    answer and start no thread. What is asked here can start nothing: a size of 0 is an invalid argument.
    """
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(CLONE3), None, ctypes.c_size_t(0))
    return ctypes.get_errno() == errno.EPERM


def hide_clone3(libc: ctypes.CDLL) -> None:
    """
    Let clone3 be answered by "no such call" from now on, here and in all that is started here, whereupon the C library
    uses the older one. Of two filters with an error the one that was added last is heard (seccomp(2)). StartError.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in NO_CLONE3))
    filter_ = struct.pack("@HP", len(NO_CLONE3), ctypes.addressof(program))
    wanted = ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_))
    for option, argument, pointer in wanted:
        last = pointer if isinstance(pointer, bytes) else ctypes.c_ulong(pointer)
        if libc.prctl(option, ctypes.c_ulong(argument), last, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise StartError(
                "这个 Docker 太旧,不允许创建线程:请升级到 20.10.10 以上,或设 security_opt: [seccomp:unconfined]。"
                " This Docker is too old and allows no threads: use 20.10.10 or newer, or set"
                " security_opt: [seccomp:unconfined]."
            )


def main(command: Sequence[str]) -> int:
    home = Path(os.environ.get("STUDIO_HOME", "/data"))
    try:
        if os.geteuid() == 0:
            drop_root(os.environ, home)
        check_home(home)
        libc = ctypes.CDLL(None, use_errno=True)
        if threads_are_refused(libc):
            hide_clone3(libc)
    except StartError as exc:
        print(f"无法启动 Cannot start: {exc}", file=sys.stderr)
        return WRONG
    os.environ["HOME"] = "/tmp"  # root's, or none at all: what libraries want to put there is nobody's data
    words = [*INIT, *command] if os.getpid() == 1 else list(command)
    try:
        os.execvp(words[0], words)
    except OSError as exc:
        print(f"无法启动 Cannot start: {words[0]}: {exc.strerror}", file=sys.stderr)
        return WRONG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
