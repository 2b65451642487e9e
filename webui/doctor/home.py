"""The folder of pictures, models and state (STUDIO_HOME): who may write to it, how much fits, is its database whole."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from webui.doctor import GB, Line

ENOUGH_BYTES = 200_000_000  # webui/api/health.py, below which the server takes no work
MODEL_BYTES = 5 * GB  # what a model of true size takes
RECENT_S = 7 * 86400.0
CHECK_S = 30.0
OFTEN = 10_000  # instructions of SQLite's, after which it asks whether to go on


def folder(home: Path) -> Line:
    there = _nearest(home)
    if not os.path.isdir(there):
        return Line(
            "error",
            f"{there} 不是文件夹:请换一个 STUDIO_HOME",
            f"{there} is no folder: choose another STUDIO_HOME",
        )
    if not all(os.access(path, os.R_OK | os.W_OK | os.X_OK) for path in (there, _nearest(home / "state"))):
        return Line(
            "error",
            f"用户 {os.getuid()} 不能写入 {home}:请改属主(chown),或换一个 STUDIO_HOME",
            f"{home} cannot be written by user {os.getuid()}: change its owner (chown), or choose another STUDIO_HOME",
        )
    if there != home:
        return Line("ok", f"{home} 还没有,首次启动时建立", f"{home} is not there yet: the first start makes it")
    return Line("ok", f"数据文件夹 {home} 可写", f"{home} can be written to")


def private(folders: Sequence[Path]) -> Line:
    """Photos, prompts and faces are nobody else's on this machine."""
    shared = [str(path) for path in folders if os.path.isdir(path) and path.stat().st_mode & 0o077]
    if shared:
        names = " ".join(shared)
        return Line(
            "warning",
            f"别的用户能看到照片或提示词:chmod 700 {names}",
            f"other users may see photos or prompts: chmod 700 {names}",
        )
    return Line("ok", "照片与状态只有本用户能看", "photos and state are this user's alone")


def disk(home: Path) -> Line:
    try:
        free = shutil.disk_usage(_nearest(home)).free
    except OSError as exc:
        return Line("error", f"{home} 无法读取:{exc.strerror}", f"{home} cannot be read: {exc.strerror}")
    zh, en = f"磁盘空闲 {free / GB:.1f} GB", f"{free / GB:.1f} GB of the disk free"
    if free < ENOUGH_BYTES:
        return Line("error", f"{zh}:不接新任务,请清理磁盘", f"{en}: no job is taken, make room")
    if free < MODEL_BYTES:
        return Line("warning", f"{zh}:放不下大模型", f"{en}: no large model fits")
    return Line("ok", zh, en)


def database(path: Path, served: bool) -> Line:
    """`served`: a server has it open."""
    if not os.path.isfile(path):
        return Line("ok", "还没有任务数据库", "there is no database of jobs yet")
    try:
        fault = _fault(path, served)
    except (OSError, sqlite3.OperationalError) as exc:
        return Line("warning", f"任务数据库没能检查:{exc}", f"the jobs' database could not be checked: {exc}")
    except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:  # of damage that SQLite quotes
        fault = str(exc)
    if fault:
        return Line(
            "error",
            f"任务数据库已损坏({fault}):重启程序会保留原文件并恢复能读的部分",
            f"the jobs' database is damaged ({fault}): the next start sets it aside, and takes over what can be read",
        )
    return Line("ok", "任务数据库完好", "the jobs' database is whole")


def _fault(path: Path, served: bool) -> str:
    """Return what SQLite says is wrong; empty: nothing. sqlite3.Error, OSError."""
    deadline = time.monotonic() + CHECK_S
    with _unchanged(path, served) as address, closing(sqlite3.connect(address, timeout=5, uri=True)) as db:
        db.set_progress_handler(lambda: time.monotonic() > deadline, OFTEN)
        said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if said == "ok" else " ".join(said.split())


@contextmanager
def _unchanged(path: Path, served: bool) -> Iterator[str]:
    """
    Give an address by which SQLite reads the database and makes no file beside it. While it is served, all files are
    there. What a server that was killed has left in -wal belongs to it, and reading both makes a -shm: beside a copy.
    Else the file is all there is, and nobody changes it.
    """
    wal = path.with_name(f"{path.name}-wal")
    if served or not wal.exists():
        yield f"{path.as_uri()}?mode=ro{'' if served else '&immutable=1'}"
        return
    with tempfile.TemporaryDirectory() as beside:
        for file in (path, wal):
            shutil.copyfile(file, Path(beside, file.name))
        yield Path(beside, path.name).as_uri()


def crashes(path: Path, now_s: float) -> Line:
    """`path`: a line of JSON for each, as engines/worker/crashes.py writes them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        last = json.loads(lines[-1]) if lines else {}
        when_s = datetime.fromisoformat(last["when"]).timestamp() if last else 0.0
    except FileNotFoundError:
        return Line("ok", "引擎没有崩溃过", "no engine has crashed yet")
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return Line("warning", f"崩溃记录 {path} 读不了:{exc!r}", f"the crashes in {path} cannot be read: {exc!r}")
    if now_s - when_s > RECENT_S:
        return Line("ok", "引擎最近没有崩溃", "no engine has crashed lately")
    what = f"{last['when']}, {last['kind']}, {last['cause']}"
    return Line(
        "warning",
        f"引擎最近崩溃过({what}):任务已自动重试;求助时请附上 {path},其中没有照片和提示词",
        f"an engine has crashed lately ({what}): the job was tried again; who asks for help should send {path}, which "
        "holds no photo and no prompt",
    )


def _nearest(path: Path) -> Path:
    """The path, or the folder in which the first start would begin to make it."""
    return next(there for there in (path, *path.parents) if os.path.lexists(there))
