"""A folder as it is at a moment: what lies in it, whose it is, and what is in its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

Tree = dict[str, tuple[int, float, str]]


def tree(folder: Path) -> Tree:
    """Mode, time of the last change (ns), and content of everything in the folder and of itself."""
    paths = [folder, *sorted(folder.rglob("*"))] if folder.exists() else []
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in paths
    }
