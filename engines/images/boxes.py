"""
What the boxes of a HEIC or AVIF say of its first picture: whether one of them turns or mirrors it. Decoders do as those
say, and leave out what its EXIF says, which counts where there are none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

MOST_META_BYTES = 4 << 20  # of a picture of thousands of tiles it is a tenth of that
TURNING = (b"irot", b"imir")  # ISO/IEC 23008-12, sections 6.5.10 and 6.5.12
Box = tuple[bytes, bytes]  # its name and what is in it


def is_turned(path: Path) -> bool:
    """
    Return whether a box turns or mirrors the first picture, by however much. OSError: the file cannot be read.
    ValueError: its boxes make no sense.
    """
    try:
        meta = dict(_boxes(_meta(path)[4:]))
        properties = dict(_boxes(meta[b"iprp"]))
        kinds = [kind for kind, _ in _boxes(properties[b"ipco"])]
        first = _first_item(meta[b"pitm"])
        return any(kinds[k - 1] in TURNING for k in _of_item(properties[b"ipma"], first) if 0 < k <= len(kinds))
    except (KeyError, struct.error, IndexError) as exc:
        raise ValueError("its boxes make no sense") from exc


def _meta(path: Path) -> bytes:
    """Return what the box `meta` of a file holds. (ISO/IEC 14496-12, sections 4.2 and 8.11.1)"""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if length == 1:
                length = struct.unpack(">Q", file.read(8))[0] - 8
            if name == b"meta" and 8 <= length <= MOST_META_BYTES:
                return file.read(length - 8)
            if length < 8:
                break
            file.seek(length - 8, 1)
    raise ValueError("it has no box for what it holds")


def _boxes(data: bytes) -> Iterator[Box]:
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if length < 8:
            return
        yield name, data[at + 8 : at + length]
        at += length


def _first_item(pitm: bytes) -> int:
    """Return the number of the picture that is shown. (ISO/IEC 14496-12, section 8.11.4)"""
    return int(struct.unpack_from(">H" if pitm[0] == 0 else ">I", pitm, 4)[0])


def _of_item(ipma: bytes, wanted: int) -> list[int]:
    """Return which properties a picture has, counted from 1. (ISO/IEC 23008-12, section 9.3)"""
    version, flags = ipma[0], ipma[3]
    (count,), at = struct.unpack_from(">I", ipma, 4), 8
    item_form, size = (">H", 2) if version < 1 else (">I", 4)
    width, low = (2, 0x7FFF) if flags & 1 else (1, 0x7F)
    for _ in range(count):
        (item,) = struct.unpack_from(item_form, ipma, at)
        number, at = ipma[at + size], at + size + 1
        if item == wanted:
            return [int.from_bytes(ipma[at + k * width : at + (k + 1) * width], "big") & low for k in range(number)]
        at += number * width
    return []
