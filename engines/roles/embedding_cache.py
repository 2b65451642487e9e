"""
Arrays kept on disk under a key, the least recently used ones leaving first; the last few in memory too. Losing the
folder costs time, nothing else, so nothing that goes wrong here is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import files

Array = NDArray[Any]
DIGEST_BYTES = 32  # of sha256, in front of each array: a changed byte must not change a picture


class ArrayCache:
    """
    Safe between processes: files are written beside and renamed. A file that is not as it was written counts as absent.
    """

    def __init__(self, folder: Path, limit: int, recent: int = 0) -> None:
        """Keep `limit` arrays on disk and the `recent` last ones in memory."""
        self.folder, self.limit, self.recent = folder, limit, recent
        self._held: OrderedDict[Path, Array] = OrderedDict()  # the most recently used last

    def get_or(self, key: tuple[str, ...], make: Callable[[], Array]) -> Array:
        """Return the array kept under a key; where there is none, make it and keep it."""
        path = self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.npy"
        array = self._held.pop(path, None)
        if array is None:
            array = _read(path)
        if array is None:
            array = make()
            with contextlib.suppress(OSError):  # a full disk must not cost the picture
                self._put(path, array)
        self._held[path] = array
        if len(self._held) > self.recent:
            self._held.popitem(last=False)
        return array

    def _put(self, path: Path, array: Array) -> None:
        data = io.BytesIO()
        np.save(data, array, allow_pickle=False)
        files.write_atomic(path, hashlib.sha256(data.getvalue()).digest() + data.getvalue())
        self._prune()

    def _prune(self) -> None:
        newest_first = sorted(self.folder.glob("*.npy"), key=lambda p: p.stat().st_mtime, reverse=True)
        for path in newest_first[self.limit :]:
            path.unlink(missing_ok=True)


def _read(path: Path) -> Array | None:
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    array: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return array
