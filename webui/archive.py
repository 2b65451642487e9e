"""
Files as one ZIP that is written while it is read: nothing is collected in memory or on disk first, and nothing is
compressed, as pictures are that already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile, ZipInfo

PIECE_BYTES = 1 << 18


@dataclass
class _Outlet:
    """A file to write to, as ZipFile takes it: it cannot seek, so sizes follow each file's bytes."""

    pieces: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


def stream(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the archive in pieces: the files under their own names, in this order."""
    outlet = _Outlet()
    with ZipFile(outlet, "w") as archive:
        for path in paths:
            entry = ZipInfo.from_file(path, path.name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(PIECE_BYTES):
                    target.write(piece)
                    yield outlet.taken()
    yield outlet.taken()
