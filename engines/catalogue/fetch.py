"""
Downloads a model: into a hidden folder beside its place, each file hashed before it gets its name, and renamed when all
of it is there. Whatever stops it, the same call goes on from there. Knows files and patience; hubs are hubs.py's.

Not huggingface_hub's own download (what snapshot_download loops over), tried in 2.4 against a hub on this machine: a
file of the right length with a wrong byte passes, a line that breaks five times is given up though each try brought a
tenth, and ModelScope is another library's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from engines.catalogue import Model, Places, free_bytes, hubs
from engines.catalogue.hubs import Broken, Remote, Unreachable
from engines.errors import DownloadBroken, DownloadError, HubUnreachable, StorageError
from engines.messages import Event, Note, Progress
from engines.messages.status import Mirror

Emit = Callable[[Event], None]
T = TypeVar("T")
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # between tries; a try that brought anything begins the row anew
PART = ".part"
ASKED_AGAIN_S = (1.0,)  # the same, before anything has come: somebody waits for the first answer
TELL_S = 0.5  # between two reports
EARLY_S = 3.0  # nothing is foretold from less
MB = 1_000_000


@dataclass
class Fetching:
    """One model from one hub. `endpoint` as in hubs.listing; `free` tells how many bytes a folder's disk has left."""

    model: Model
    places: Places
    emit: Emit
    mirror: Mirror = "hf"
    endpoint: str = ""
    free: Callable[[Path], int] = free_bytes
    waits_s: Sequence[float] = WAITS_S
    answer_s: float = hubs.ANSWER_S
    silence_s: float = hubs.SILENCE_S

    def run(self) -> Path:
        """
        Download the model, and return its place. HubUnreachable: nothing came of it. DownloadBroken: what has come is
        kept. DownloadError: the hub. StorageError: the disk.
        """
        target = self.places.path(self.model)
        if target.exists():
            self._say("已经在这里。 It is here already.")
            return target
        work = target.with_name(f".{target.name}.fetching")
        try:
            with _alone(self.model, work):
                remotes = self._patiently(self._listing, ASKED_AGAIN_S)
                self._fetch(remotes, work)
                _give(work, target, remotes[0].path if self.model.is_file else "")
        except OSError as exc:
            raise StorageError(f"{target.name}: {exc.strerror or exc}", why=exc.strerror or str(exc)) from exc
        return target

    def _listing(self) -> tuple[Remote, ...]:
        return hubs.listing(self.model, self.mirror, self.endpoint, self.answer_s)

    def _fetch(self, remotes: Sequence[Remote], work: Path) -> None:
        self._plan(remotes)
        _clear(work, remotes)
        meter = Meter(sum(remote.size for remote in remotes), sum(map(_length, _files(work))), self.emit)
        self._need(meter.total - meter.done, work)
        for remote in remotes:
            file = work / remote.path
            if not file.exists():  # or an earlier try has finished it
                file.parent.mkdir(parents=True, exist_ok=True)
                self._download(remote, _part(file), meter)
                self._check(remote, _part(file)).replace(file)

    def _plan(self, remotes: Sequence[Remote]) -> None:
        for i, remote in enumerate(remotes, start=1):
            self._say(f"{i}. {remote.path}, {_size(remote.size)}")
        for piece in self.model.pieces:
            if not piece.at(self.mirror):
                self._say(f"{piece.into}: {self.mirror} 没有,略过。 Not there, left out.")

    def _need(self, more: int, work: Path) -> None:
        free = self.free(work)
        if free < more:
            zh = f"磁盘空间不够:还需要 {_size(more)},只剩 {_size(free)}。"
            en = f"Not enough disk space: {_size(more)} needed, {_size(free)} free."
            raise StorageError(f"{zh} {en}", why=f"{_size(more)} of disk space needed, {_size(free)} available")

    def _download(self, remote: Remote, part: Path, meter: Meter) -> None:
        part.touch()
        while _length(part) < remote.size:
            self._patiently(lambda: _more(self.model, remote, part, meter, self.silence_s), self.waits_s, meter)

    def _patiently(self, work: Callable[[], T], waits_s: Sequence[float], meter: Meter | None = None) -> T:
        """
        Try again while the connection breaks, and longer while something comes in between. Where nobody answers, and
        nothing has come yet, there is no second try.
        """
        row, before = iter(waits_s), meter.came if meter else 0
        while True:
            try:
                return work()
            except Broken as exc:
                now = meter.came if meter else 0
                row = iter(waits_s) if now > before else row
                before, wait_s = now, next(row, None)
                if wait_s is None or (isinstance(exc, Unreachable) and now <= 0):
                    raise self._given_up(exc, now > 0) from exc
                self._say(f"连接中断,{wait_s:g} 秒后重试。 The connection broke; again in {wait_s:g} s. ({exc})")
                if meter:
                    meter.reconnect()
                time.sleep(wait_s)

    def _given_up(self, exc: Broken, came: bool) -> DownloadError:
        name = self.model.id
        if came:
            zh, en = "连接中断;重新运行会接着下载。", "The connection broke; run it again, and it goes on."
            return DownloadBroken(f"{name}: {zh} {en} ({exc})", model=name, hub=exc.host, why=exc.why)
        zh, en = "连不上;请检查网络,或换模型站、镜像。", "No connection; check the network, or try a mirror."
        return HubUnreachable(f"{name}: {zh} {en} ({exc})", model=name, hub=exc.host, why=exc.why)

    def _check(self, remote: Remote, file: Path) -> Path:
        """Return the file if it holds what the hub says. It is removed if not: nobody can build on it."""
        if not remote.agrees(file):
            file.unlink()
            zh, en = "校验和不符,已删除;请重新运行。", "Wrong checksum, so it was removed; run it again."
            raise DownloadError(f"{remote.path}: {zh} {en}", model=self.model.id, why=f"wrong checksum: {remote.path}")
        return file

    def _say(self, text: str) -> None:
        self.emit(Note(text))


@dataclass
class Meter:
    """Bytes that are here, of all, and when the rest will be. Progress counts megabytes."""

    total: int
    done: int
    emit: Emit
    started_s: float = field(default_factory=time.monotonic)
    reported_s: float = 0.0

    def __post_init__(self) -> None:
        self.begun = self.done

    @property
    def came(self) -> int:
        """How many bytes have come since it was begun; of what is begun anew, fewer."""
        return self.done - self.begun

    def reconnect(self) -> None:
        self.emit(Progress("reconnect", self.done // MB, max(self.total // MB, 1)))

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.reported_s >= TELL_S or self.done == self.total:
            self.reported_s = now
            self.emit(Progress("fetch", self.done // MB, max(self.total // MB, 1), self._eta_s(now)))

    def _eta_s(self, now: float) -> float | None:
        passed_s = now - self.started_s
        if passed_s <= EARLY_S or self.came <= 0:
            return None
        return round(passed_s * (self.total - self.done) / self.came, 1)


def _more(model: Model, remote: Remote, part: Path, meter: Meter, silence_s: float) -> None:
    """Write bytes as they come behind those that are here. Broken: there are more to come, and they do not."""
    have = _length(part)
    with hubs.opened(model, remote.url, have, silence_s) as (begins, chunks), part.open("r+b") as f:
        meter.add(begins - have)
        f.truncate(begins)
        f.seek(begins)
        for chunk in chunks:
            taken = chunk[: remote.size - f.tell()]  # a longer file is another one: its hash will tell
            f.write(taken)
            meter.add(len(taken))
            if f.tell() == remote.size:
                break
        if f.tell() < remote.size:
            raise Broken("the connection broke", urlsplit(remote.url).hostname or "")
        f.flush()
        os.fsync(f.fileno())  # before the rename that makes it look complete


@contextmanager
def _alone(model: Model, work: Path) -> Iterator[None]:
    """Hold the lock of a folder: two downloads into it would spoil each other. The lock ends with its process."""
    work.mkdir(parents=True, exist_ok=True)
    folder = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        detail = f"{model.id}: 正在下载。 It is being downloaded already."
        raise DownloadError(detail, model=model.id, why="it is being downloaded already") from exc
    finally:
        os.close(folder)


def _clear(work: Path, remotes: Sequence[Remote]) -> None:
    """Remove what the hub no longer has, or has with other bytes by now."""
    finished = {work / remote.path: remote for remote in remotes}
    begun = {_part(path): remote for path, remote in finished.items()}
    for path in _files(work):
        usable = finished[path].agrees(path) if path in finished else _length(path) <= _most(begun.get(path))
        if not usable:
            path.unlink()


def _most(remote: Remote | None) -> int:
    return remote.size if remote else -1


def _files(work: Path) -> list[Path]:
    return [path for path in work.rglob("*") if path.is_file()]


def _length(path: Path) -> int:
    return path.stat().st_size


def _part(file: Path) -> Path:
    return file.with_name(file.name + PART)


def _give(work: Path, target: Path, only: str) -> None:
    """Rename, the one step after which a model looks complete, because it is. `only`: the file, if it is one."""
    (work / only).rename(target)
    shutil.rmtree(work, ignore_errors=True)


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
