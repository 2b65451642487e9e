"""Writes a home into one file, while a server works in it."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from engines import files
from engines.errors import StorageError
from engines.jobs import backup
from engines.settings import Settings
from webui.backup import ALWAYS, DATABASE, LABEL, LEDGER, MODELS, STATE, STATE_FILES, VERSION, Label


def write(settings: Settings, target: Path, with_models: bool = False) -> int:
    """
    Put the home into `target`, a new file that only its owner can read, in the place of an older one. Return how many
    files are in it. The database comes first and what it names after it: pictures and photos are on the disk before
    anything names them. ValueError: there is nothing to put, or no place for it. OSError, StorageError: the disk
    refuses, and `target` is as it was.
    """
    if not (settings.state / DATABASE).is_file():
        raise ValueError(f"{settings.home}: 这里没有任务数据库 there is no database of jobs here")
    folders = [settings.home / name for name in (*ALWAYS, *(MODELS if with_models else ()))]
    if any(target.resolve().is_relative_to(folder.resolve()) for folder in (*folders, settings.state)):
        raise ValueError(f"{target}: 备份不能放在它要备份的文件夹里 a backup cannot lie in a folder that it holds")
    _check_room(folders, settings.state / DATABASE, target.parent)
    before = _names(settings.outputs)
    folder = target.parent
    with (
        files.temporary(folder) as database,
        files.temporary(folder) as ledger,
        files.replacing(target, durable=True) as beside,
    ):
        backup.copy(settings.state / DATABASE, database)
        with suppress(StorageError):  # there is none, or it is damaged: it can be done without
            backup.copy(settings.state / LEDGER, ledger)
        # What has come since belongs to jobs that the copy takes for waiting: they will be done once more.
        since = backup.unnamed(database, _names(settings.outputs) - before)
        with beside.open("xb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            os.fchmod(file.fileno(), 0o600)
            parcel = _Parcel(tar)
            parcel.add(database, f"{STATE}/{DATABASE}")
            for name in STATE_FILES:
                parcel.add(ledger if name == LEDGER else settings.state / name, f"{STATE}/{name}")
            for folder in folders:
                parcel.add_folder(folder.name)
                left_out = since if folder == settings.outputs else frozenset()
                for path in _files(folder):
                    if path.name not in left_out:
                        parcel.add(path, f"{folder.name}/{path.relative_to(folder)}")
            parcel.close(settings.home)
    return parcel.count


@dataclass
class _Parcel:
    tar: tarfile.TarFile
    count: int = field(default=0, init=False)

    def add(self, path: Path, name: str) -> None:
        """Add a file, also one that a link leads to. What is not there any more is left out. OSError."""
        with suppress(FileNotFoundError), path.open("rb") as file:  # an open file stays whole, though it is deleted
            entry = self.tar.gettarinfo(arcname=name, fileobj=file)
            entry.type, entry.linkname = tarfile.REGTYPE, ""  # not a second name of one before
            entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, "", ""
            self.tar.addfile(entry, file)
            self.count += 1

    def add_folder(self, name: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o700
        self.tar.addfile(entry)

    def close(self, home: Path) -> None:
        data = json.dumps(asdict(Label(VERSION, str(home), self.count))).encode()
        entry = tarfile.TarInfo(LABEL)
        entry.size, entry.mode, entry.mtime = len(data), 0o600, time.time()
        self.tar.addfile(entry, io.BytesIO(data))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("outputs_*")}


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, and of those that links lead to, each folder once; none that is being written."""
    passed: set[tuple[int, int]] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        with suppress(FileNotFoundError):
            stat = os.stat(place)
            if (stat.st_dev, stat.st_ino) in passed:
                inner.clear()
                continue
            passed.add((stat.st_dev, stat.st_ino))
        inner.sort()
        for path in (Path(place, name) for name in sorted(names)):
            if path.is_file() and not fnmatch(path.name, files.HALF_WRITTEN):
                yield path


def _check_room(folders: list[Path], database: Path, target: Path) -> None:
    """OSError, ValueError: what is to be written does not fit."""
    needed = 2 * database.stat().st_size  # its copy, and that in the tar
    for path in (path for folder in folders for path in _files(folder)):
        with suppress(FileNotFoundError):
            needed += path.stat().st_size + tarfile.BLOCKSIZE
    target.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise ValueError(
            f"{target}: 空间不够,需要 {needed / 1e9:.2f} GB,空闲 {free / 1e9:.2f} GB"
            f" · not enough room: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
        )
