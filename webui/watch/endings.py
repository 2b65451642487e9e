"""
Whether a photo's file is there to its end, by what its format says of its length. Nothing is decoded: a few bytes of
the beginning and of the end are looked at, and what the pixels are is not known here.
"""

from __future__ import annotations

import os
from pathlib import Path

HEAD_BYTES = 12
MOST_BOXES = 10_000  # at a HEIC's top level there are a handful
JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"  # SOI, EOI (ITU T.81, table B.1)
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"  # (PNG, sections 5.2 and 11.2.5)


def is_whole(path: Path) -> bool:
    """
    Return whether the file ends where its format says that it does. A JPEG to whose end a camera has put more does not,
    and is whole all the same: who asks has to be patient with those. OSError: it cannot be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(HEAD_BYTES)
        if head.startswith(JPEG):
            return _tail(file.fileno(), size, len(JPEG_END)) == JPEG_END
        if head.startswith(PNG):
            return _tail(file.fileno(), size, len(PNG_END)) == PNG_END
        if head.startswith(b"RIFF"):
            return 8 + int.from_bytes(head[4:8], "little") <= size  # what comes after is nobody's
        return head[4:8] == b"ftyp" and _boxes_end(file.fileno(), size)


def _tail(file: int, size: int, length: int) -> bytes:
    return os.pread(file, length, max(0, size - length))


def _boxes_end(file: int, size: int) -> bool:
    """
    Return whether the boxes of a HEIC fill the file: each says its length in 4 bytes, or in 8 after its name where
    those are 1; 0 would be "to the end", of which nothing can be said. (ISO/IEC 14496-12, section 4.2)
    """
    at = 0
    for _ in range(MOST_BOXES):
        head = os.pread(file, 16, at)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return False
        at += length
        if at >= size:
            return at == size
    return False
