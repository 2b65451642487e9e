"""
Whether a photo's file is there to its end, by what its format says of its length. Nothing is decoded: a few bytes of
the beginning and of the end are looked at, and of a TIFF its first directory; what the pixels are is not known here.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 12
MOST_BOXES = 10_000  # at a HEIC's top level there are a handful
JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"  # SOI, EOI (ITU T.81, table B.1)
# Of a TIFF: where its strips or tiles lie, and how long they are (TIFF 6.0, sections 8 and 15; BigTIFF).
OFFSETS, LENGTHS = (273, 324), (279, 325)
INTEGERS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
MOST_ENTRIES, MOST_STRIPS = 1_000, 1_000_000
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
        if head.startswith(b"GIF8"):
            return _has_trailer(file)
        if head.startswith(b"BM"):
            return 0 < int.from_bytes(head[2:6], "little") <= size
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _strips_end(file.fileno(), head) <= size
        return head[4:8] == b"ftyp" and _boxes_end(file.fileno(), size)


def _tail(file: int, size: int, length: int) -> bytes:
    return os.pread(file, length, max(0, size - length))


def _has_trailer(file: BinaryIO) -> bool:
    """Return whether a GIF's blocks lead to its trailer, a byte that stands elsewhere too. (GIF89a, section 27)"""
    file.seek(10)
    file.seek(13 + _table_bytes(file.read(1)))
    while kind := file.read(1):
        if kind == b"\x3b":
            return True
        if kind == b"\x21":
            file.seek(1, 1)
        elif kind == b"\x2c":
            file.seek(8, 1)
            file.seek(_table_bytes(file.read(1)) + 1, 1)
        else:
            return False
        while length := file.read(1):  # of a block's pieces, to one of none
            if length == b"\0":
                break
            file.seek(length[0], 1)
    return False


def _table_bytes(packed: bytes) -> int:
    """Return how long the table of colours is that a byte of flags announces. (GIF89a, section 18)"""
    return 3 << ((packed[0] & 7) + 1) if packed and packed[0] & 0x80 else 0


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


def _strips_end(file: int, head: bytes) -> float:
    """Return where the pixels of a TIFF's first picture end; infinite: it does not say so within reason."""
    order, big = ("<" if head.startswith(b"II") else ">"), b"+" in head[:4]
    word, count_of, entry_of = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    try:
        (at,) = _unpacked(file, order + word, 8 if big else 4)
        (count,) = _unpacked(file, order + count_of, at)
        if count > MOST_ENTRIES:
            return float("inf")
        lists: dict[int, tuple[int, ...]] = {}
        step = struct.calcsize(order + entry_of + word)
        for k in range(count):
            place = at + struct.calcsize(order + count_of) + k * step
            tag, kind, length = _unpacked(file, order + entry_of, place)
            if tag in (*OFFSETS, *LENGTHS) and kind in INTEGERS and length <= MOST_STRIPS:
                form = f"{order}{length}{INTEGERS[kind]}"
                inside = place + struct.calcsize(order + entry_of)
                fits = struct.calcsize(form) <= struct.calcsize(order + word)
                lists[tag] = _unpacked(file, form, inside if fits else _unpacked(file, order + word, inside)[0])
        offsets = next((lists[tag] for tag in OFFSETS if tag in lists), ())
        lengths = next((lists[tag] for tag in LENGTHS if tag in lists), ())
        return max((a + b for a, b in zip(offsets, lengths, strict=True)), default=float("inf"))
    except (struct.error, ValueError, OverflowError):  # there are not so many bytes, or as many lengths as places
        return float("inf")


def _unpacked(file: int, form: str, at: int) -> tuple[int, ...]:
    return struct.unpack(form, os.pread(file, struct.calcsize(form), at))
