"""A release as it comes, a folder or a file that anybody may have changed: looked through before it is unpacked."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engines.settings.installation import RELEASE
from webui.update import NotDone
from webui.update.installation import CURRENT, RELEASES

NEEDED = ("run.sh", "pyproject.toml", "constraints.txt", "webui/__main__.py", "webui/server.py")
# What a folder has of one machine, not of the program
NOT_OURS = {".git", "data", RELEASES, CURRENT, "build", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
MOST_BYTES, MOST_FILES = 1_000_000_000, 20_000  # the program has 0.05 GB in 1,500 files
BLOCK_BYTES = 4096  # of a file system: what a file takes is a whole number of them
VERSION = re.compile(r'^version = "([0-9][0-9A-Za-z.+]{0,40})"$', re.MULTILINE)
LINE = re.compile(r"\s*([0-9a-fA-F]{64})\s")


@dataclass(frozen=True)
class Source:
    """What is to be installed: its version, and how many bytes it takes on a disk. `top`: of the names in a file."""

    path: Path
    version: str
    size: int
    top: str = ""


def examine(path: Path) -> Source:
    """Return what lies there. NotDone: it is no release of this program, was changed, or would write elsewhere."""
    if path.is_dir():
        return _examine_folder(path)
    try:
        with path.open("rb") as file:
            _check_sum(path, file)
            with tarfile.open(fileobj=file, mode="r:gz") as tar:
                return _examine_file(path, tar)
    except (OSError, tarfile.TarError, EOFError) as exc:
        raise NotDone(f"{path}: {exc}") from exc


def unpack(source: Source, target: Path) -> None:
    """
    Put its files into a folder, readable by all, as a service reads what root has installed. OSError; NotDone: it is
    not what was examined.
    """
    if source.path.is_dir():
        for path in _files(source.path):
            _put(path.open("rb"), target / path.relative_to(source.path), bool(path.stat().st_mode & 0o100))
        return
    with tarfile.open(source.path, "r:gz") as tar:
        if _examine_file(source.path, tar) != source:
            raise NotDone(f"{source.path}: 文件正在被改动 · it is being changed")
        for member in tar.getmembers():
            name = member.name.partition("/")[2]
            if name and member.isreg() and (file := tar.extractfile(member)):
                _put(file, target / name, bool(member.mode & 0o100))


def _put(file: IO[bytes], path: Path, executable: bool) -> None:
    with file:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            shutil.copyfileobj(file, out)
    path.chmod(0o755 if executable else 0o644)


def _check_sum(path: Path, file: io.BufferedReader) -> None:
    """NotDone: another sum lies beside it."""
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.exists():
        return
    said = LINE.match(beside.read_text(encoding="utf-8", errors="replace") + "\n")
    if not said or said[1].lower() != hashlib.file_digest(file, "sha256").hexdigest():
        raise NotDone(
            f"{path} 与 {beside.name} 不符:下载不完整,或被改动过,请重新下载"
            f" · it is not what {beside.name} says: not whole, or changed. Download it again"
        )
    file.seek(0)


def _examine_file(path: Path, tar: tarfile.TarFile) -> Source:
    names, size, version, tops = set[str](), 0, "", set[str]()
    for member in tar:
        _check_member(path, member)
        top, _, name = member.name.partition("/")
        tops.add(top)
        if member.isreg():
            if name in names:
                raise NotDone(f"{path}: {member.name[:80]!r} 出现两次 · is there twice")
            names.add(name)
            size += -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
        if size > MOST_BYTES or len(names) > MOST_FILES:
            raise NotDone(f"{path}: 太大,不是本程序的发布包 · too large for a release of this program")
        if name == "pyproject.toml" and (file := tar.extractfile(member)):
            version = _version(file.read(BLOCK_BYTES))
    _check_names(path, names, version)
    if len(tops) != 1:
        raise NotDone(f"{path}: 不是本程序的发布包 · no release of this program")
    return Source(path, version, size, tops.pop())


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    """NotDone: it would be written elsewhere, or is neither a file nor a folder."""
    parts = member.name.split("/")
    plain = (member.isreg() and not member.issparse()) or member.isdir()
    if not plain or any(part in ("", ".", "..") for part in parts) or "\\" in member.name:
        raise NotDone(
            f"{path}: 含有不该有的内容 {member.name[:80]!r},没有解开"
            " · it holds what no release does, and was not unpacked"
        )


def _examine_folder(path: Path) -> Source:
    files = list(_files(path))
    names = {str(file.relative_to(path)) for file in files}
    try:
        version = _version((path / "pyproject.toml").read_bytes())
    except OSError:
        version = ""
    _check_names(path, names, version)
    return Source(path, version, sum(-(-file.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES for file in files))


def _check_names(path: Path, names: set[str], version: str) -> None:
    if missing := [name for name in NEEDED if name not in names] + ([] if version else ["version"]):
        raise NotDone(f"{path}: 不是本程序的发布包,缺 · no release of this program, it lacks {', '.join(missing)}")


def _version(pyproject: bytes) -> str:
    line = VERSION.search(pyproject.decode("utf-8", "replace"))
    return line[1] if line else ""


def _files(folder: Path) -> Iterable[Path]:
    """Yield the files of a program in a folder that may be in use: nothing that a machine has put there."""
    for path in sorted(folder.iterdir()):
        skip = path.name in NOT_OURS or path.name.startswith(".venv") or path.name.endswith(".egg-info")
        if path.is_symlink() or skip or path.name == RELEASE:
            continue
        if path.is_dir():
            yield from (inner for inner in sorted(path.rglob("*")) if _is_program(inner, folder))
        elif path.is_file():
            yield path


def _is_program(path: Path, folder: Path) -> bool:
    return path.is_file() and not path.is_symlink() and "__pycache__" not in path.relative_to(folder).parts
