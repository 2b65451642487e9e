"""
What lies in an inbox, and which of it has settled. Asks for names, sizes and times alone: no file is opened here, and
no notices of the kernel's are waited for, as none come of what other machines write to a share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.messages.photos import SUFFIXES

Stamp = tuple[int, int]  # size in bytes, time of the last change in ns since 1970
MARK = ".awportrait-outbox"  # lies in every outbox: a way into it through another mount is told by it
# Of NAS systems (Synology, QNAP), of snapshots, and of desktops: their copies and bins are not what somebody put in.
IGNORED = frozenset(
    name.casefold()
    for name in (
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@tmp", "@sharebin", "@__thumb"),
        *("$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX", "Network Trash Folder"),
    )
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The photos of an inbox by their path inside it. `trouble`: why a part of it could not be read; empty: all was."""

    photos: Mapping[str, Stamp]
    trouble: str = ""


def is_meant(name: str) -> bool:
    """Return whether a name is a photo's: no hidden file, no half of one that another program still writes."""
    return not name.startswith((".", "~")) and name.lower().endswith(SUFFIXES)


def enters(name: str) -> bool:
    """Return whether somebody puts photos into a folder of this name."""
    return not name.startswith((".", "~")) and name.casefold() not in IGNORED


def listing(root: Path, left_out: Iterable[Path] = ()) -> Listing:
    """
    List the photos in `root` and below, without the folders that are left out and without what links lead to. OSError:
    the root itself cannot be read.
    """
    photos: dict[str, Stamp] = {}
    trouble, outside = "", {os.fspath(folder) for folder in left_out}
    folders = [("", os.fspath(root))]
    while folders:
        prefix, folder = folders.pop()
        try:
            inside, below = _folder(prefix, folder)
        except OSError as exc:
            if not prefix:
                raise
            trouble = exc.strerror or str(exc)
            continue
        photos |= inside
        folders += [(name, path) for name, path in below if path not in outside]
    return Listing(photos, trouble)


def _folder(prefix: str, folder: str) -> tuple[dict[str, Stamp], list[tuple[str, str]]]:
    """Return the photos of one folder, and the folders in it; none of either, if it is an outbox. OSError."""
    photos: dict[str, Stamp] = {}
    below: list[tuple[str, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name == MARK:
                return {}, []
            if is_meant(name) and entry.is_file(follow_symlinks=False):
                try:
                    stat = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # it was moved meanwhile
                    continue
                photos[prefix + name] = (stat.st_size, stat.st_mtime_ns)
            elif enters(name) and entry.is_dir(follow_symlinks=False):
                below.append((f"{prefix}{name}/", entry.path))
    return photos, below


class Settling:
    """Since when which file has not changed, by the clock of whoever looks: that of a NAS may be any."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Stamp, float]] = {}

    def unchanged(self, photos: Mapping[str, Stamp], now_s: float) -> Iterator[tuple[str, Stamp, float]]:
        """Yield each with its stamp and the seconds for which it has had it. What is not among them is forgotten."""
        before, self._since = self._since, {}
        for path, stamp in photos.items():
            first = before.get(path)
            since_s = first[1] if first is not None and first[0] == stamp else now_s
            self._since[path] = (stamp, since_s)
            yield path, stamp, now_s - since_s
