"""Makes a home out of a backup, which anybody may have changed: it is looked through before anything is written."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engines import files
from engines.jobs import backup
from engines.settings import Settings
from webui import home_lock
from webui.backup import ALWAYS, BESIDE, DATABASE, LABEL, MODELS, STATE, STATE_FILES, VERSION, Label

FOLDERS = (*ALWAYS, *MODELS)
LABEL_BYTES = 100_000
BLOCK_BYTES = 4096  # of a file system: what a file takes is a whole number of them
HALF_MADE = ".restore-"  # only a crash leaves such a folder


@dataclass(frozen=True)
class Restored:
    """How many files there are now, and where lies what was there before; None: nothing was."""

    files: int
    aside: Path | None


def restore(settings: Settings, source: Path, replacing: bool = False) -> Restored:
    """
    Make the home what it was when the backup was written. What is there stays, if not `replacing`, and is set aside if
    so. SettingsError: somebody works in the home. ValueError: the file is no whole backup, the home is not empty, or
    has no room. OSError, StorageError: the disk refuses. After any of them the home is as it was.
    """
    with home_lock.take(settings) as lock, tarfile.open(source, "r:") as tar:
        home_lock.sign(lock, "restoring a backup")
        settings.state.chmod(0o700)
        label, members = _examined(tar)
        old = _occupied(settings.home, {member.name.partition("/")[0] for member in members})
        if old and not replacing:
            raise ValueError(
                f"{settings.home}: 已有数据({_names(old)}):要换成备份请加 --replace,原有数据会移到一旁"
                f" · there is something already ({_names(old)}): --replace sets it aside"
            )
        _check_room(settings.home, members)
        for left in settings.home.glob(f"{HALF_MADE}*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=HALF_MADE, dir=settings.home) as folder:
            fresh = Path(folder)
            for member in members:
                tar.extract(member, fresh, filter="data")
            backup.move(fresh / STATE / DATABASE, label.home, str(settings.home))
            for path in fresh.rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o600)
            aside = _set_in_place(settings.home, fresh, old)
    return Restored(label.files, aside)


def _examined(tar: tarfile.TarFile) -> tuple[Label, list[tarfile.TarInfo]]:
    """Return what the backup says of itself, and all its members but that. ValueError: it is no whole one of ours."""
    members, names = [], set[str]()
    for member in tar:
        _check(member, names)
        names.add(member.name)
        members.append(member)
    if not members or members[-1].name != LABEL or f"{STATE}/{DATABASE}" not in names:
        raise ValueError("不是本程序的备份,或不完整 no backup of this program's, or not a whole one")
    label = _label(tar, members.pop())
    if label.files != sum(member.isreg() for member in members):
        raise ValueError("备份不完整 the backup is not whole")
    return label, members


def _check(member: tarfile.TarInfo, before: set[str]) -> None:
    """ValueError: it is nothing that a backup has."""
    top, _, rest = member.name.partition("/")
    expected = (
        (top in FOLDERS and (bool(rest) or member.isdir()))
        or (top == STATE and rest in (DATABASE, *STATE_FILES) and member.isreg())
        or (member.name == LABEL and member.isreg())
    )
    parts = member.name.split("/")
    plain = (member.isreg() and not member.issparse()) or member.isdir()
    if not expected or not plain or member.name in before or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"不是备份里该有的内容 nothing that a backup holds: {member.name[:80]!r}")


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Label:
    file = tar.extractfile(member)
    text = file.read(LABEL_BYTES) if file else b""
    label = files.validate(Label, files.parse_json(text))
    if label.version != VERSION:
        raise ValueError(f"备份来自别的版本 a backup of another version: {label.version}")
    return label


def _occupied(home: Path, brought: set[str]) -> list[Path]:
    """Return what of the home is in the place of what is brought, or belongs to it."""
    folders = [home / name for name in FOLDERS if name in brought]
    return [path for path in folders if path.exists() and (not path.is_dir() or any(path.iterdir()))] + [
        path for path in (home / STATE / name for name in BESIDE) if path.exists()
    ]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _check_room(home: Path, members: list[tarfile.TarInfo]) -> None:
    needed = sum(-(-member.size // BLOCK_BYTES) * BLOCK_BYTES for member in members)
    free = shutil.disk_usage(home).free
    if needed > free:
        raise ValueError(
            f"{home}: 空间不够,需要 {needed / 1e9:.2f} GB,空闲 {free / 1e9:.2f} GB"
            f" · not enough room: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
        )


def _set_in_place(home: Path, fresh: Path, old: list[Path]) -> Path | None:
    """
    Set aside what is `old`, and put what is fresh in its place; the database comes last, so that a home has one when it
    has everything. Return where the old lies. OSError: nothing was moved.
    """
    aside = home / f"before-restore-{time.strftime('%Y%m%d%H%M%S')}"
    moves = [(path, aside / path.relative_to(home)) for path in old]
    moves += [(path, home / path.name) for path in fresh.iterdir() if path.name != STATE]
    moves += [(fresh / STATE / name, home / STATE / name) for name in (*STATE_FILES, DATABASE)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                source.rename(target)
                done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        raise
    return aside if old else None
