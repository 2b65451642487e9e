"""Photo files as phones, scanners and editors write them, with everything that they put in besides pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pillow_heif import register_heif_opener

Pixels = NDArray[np.uint8]
TAKEN = "2004:05:06 07:08:09"
SECRETS = (b"SECRET-MAKER", b"SECRET-MODEL", b"SECRET-ARTIST", b"SECRET-NOTE", b"SECRET-XMP", b"SECRET-GPS")
GPS, CAMERA, COMMENT, MAKER_NOTE = 0x8825, 0x8769, 0x9286, 0x927C  # EXIF
D65_IN_D50 = (0.9642, 1.0, 0.8249)
P3 = {"r": (0.51512, 0.24120, -0.00105), "g": (0.29198, 0.69225, 0.04189), "b": (0.15710, 0.06657, 0.78407)}


def scene(height: int = 24, width: int = 40) -> Pixels:
    """Smooth, without any symmetry, so that every turn and flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = (x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height))
    return np.stack(slopes, -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    register_heif_opener()
    if kind == "HEIF" and "exif" in how:
        how["exif"] = how["exif"].tobytes()  # pillow_heif reads the orientation of bytes alone
    image.save(data := io.BytesIO(), kind, **how)
    return data.getvalue()


def private_exif(orientation: int = 1, taken: str = TAKEN) -> Image.Exif:
    """Who took it, with what, when and where."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110], exif[0x013B] = (
        orientation,
        "SECRET-MAKER",
        "SECRET-MODEL",
        "SECRET-ARTIST",
    )
    exif[0x0132] = taken
    camera = exif.get_ifd(CAMERA)
    camera[0x9003], camera[COMMENT], camera[MAKER_NOTE] = taken, b"ASCII\0\0\0SECRET-NOTE", b"SECRET-MAKER" * 3
    place = exif.get_ifd(GPS)
    place[1], place[2], place[29] = "N", (48.0, 51.0, 29.0), "SECRET-GPS"
    return exif


def private(kind: str, pixels: Pixels | None = None) -> bytes:
    image = Image.fromarray(scene() if pixels is None else pixels)
    more: dict[str, Any] = {} if kind == "PNG" else {"xmp": b"<x>SECRET-XMP</x>"}
    if kind == "JPEG":
        more |= {"comment": b"SECRET-NOTE", "quality": 95}
    return encoded(image, kind, exif=private_exif(), **more)


def display_p3() -> bytes:
    """The profile of the pictures that telephones take, made by the book (ICC.1:2001-04)."""
    tags = {"desc": _description("Display P3"), "cprt": b"text\0\0\0\0none\0", "wtpt": _xyz(D65_IN_D50)}
    for channel, xyz in P3.items():
        tags[f"{channel}XYZ"] = _xyz(xyz)
        tags[f"{channel}TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, 0x0233)  # gamma 2.2
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name.encode() + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = (
        struct.pack(">I4xI", start + len(body), 0x02400000) + b"mntrRGB XYZ " + struct.pack(">6H", 2024, 1, 1, 0, 0, 0)
    )
    header += b"acsp" + bytes(28) + _xyz(D65_IN_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _description(text: str) -> bytes:
    ascii_text = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii_text)) + ascii_text + bytes(8 + 3 + 67)


# Stored pixels that show the scene when turned as the EXIF orientation says. (EXIF 2.3, tag 274)
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}
