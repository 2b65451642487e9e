"""Files that are small and ask for a lot, or say what is not so: headers, chunks, and bombs of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from engines.images import opening
from tests.support.photo_files import encoded, scene

Files = dict[str, Callable[[], bytes]]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """The frame header alone says another size than there are pixels for."""
    data = encoded(Image.fromarray(scene()), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_of_size(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def heif_of_size(width: int, height: int) -> bytes:
    """The box of its size alone says another."""
    data = encoded(Image.fromarray(scene(64, 64)), "HEIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def jpeg_of_scans(scans: int, width: int, height: int) -> bytes:
    """A picture indeed, whose last scan is there again and again; each goes over all of it."""
    return repeated(encoded(Image.new("RGB", (width, height)), "JPEG", progressive=True), scans)


def repeated(data: bytes, scans: int) -> bytes:
    last = data[data.rindex(opening.START_OF_SCAN) : -2]
    return data[:-2] + last * (scans - data.count(opening.START_OF_SCAN)) + data[-2:]


def spotted(side: int) -> Image.Image:
    """Flat but for a corner, so that a scan of it is not next to nothing, nor large."""
    picture = Image.new("L", (side, side))
    picture.paste(Image.effect_noise((700, 700), 40))
    return picture


def jpeg_with_exif(directory: bytes) -> bytes:
    exif = b"Exif\0\0II*\0\x08\0\0\0" + directory
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded(Image.fromarray(scene()), "JPEG")[2:]


def entries(tag: int, count: int, value: int, times: int, after: int) -> bytes:
    """An EXIF directory of one field, many times, and where the next one is."""
    return struct.pack("<H", times) + struct.pack("<HHII", tag, 4, count, value) * times + struct.pack("<I", after)


@cache
def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(megabytes)) + packer.flush()


def inflating(megabytes: int) -> Files:
    size = f"{megabytes} MB"
    return {
        f"png with {size} of text": lambda: png(4, 4, chunk(b"zTXt", b"Comment\0\0" + zeros(megabytes))),
        f"png with {size} of international text": lambda: png(
            4, 4, chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros(megabytes))
        ),
        f"png with {size} of profile": lambda: png(4, 4, chunk(b"iCCP", b"x\0\0" + zeros(megabytes))),
        f"png with {size} more pixels than it says": lambda: png(4, 4, chunk(b"IDAT", zeros(megabytes))),
    }


def gif_of_size(width: int, height: int) -> bytes:
    """A GIF that says how large it is, and has one code of pixels."""
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"\x2c\0\0\0\0" + size + b"\0\2\2\x4c\1\0\x3b"


def bmp_of_size(width: int, height: int, packed: bool = False) -> bytes:
    """A BMP without pixels, or with one run of 8 bits."""
    data = b"\0\1" if packed else b""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8 if packed else 24, int(packed), 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def tiff_of_size(width: int, height: int, *more: tuple[int, int], after: int = 0) -> bytes:
    """A TIFF of one strip of nothing, with more fields of its directory; `after`: where the next one is said to be."""
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 4, **dict(more)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return (
        b"II*\0"
        + struct.pack("<I", 12)
        + bytes(4)
        + struct.pack("<H", len(fields))
        + directory
        + struct.pack("<I", after)
    )


def avif_of_size(width: int, height: int) -> bytes:
    """An AVIF of a few pixels that says that it has more."""
    data = encoded(Image.fromarray(scene(64, 64)), "AVIF")
    return data.replace(
        b"ispe\0\0\0\0" + struct.pack(">II", 64, 64), b"ispe\0\0\0\0" + struct.pack(">II", width, height)
    )


BOMBS: Files = {
    "png of 10 gigapixels": lambda: png(100_000, 100_000),
    "png of 51 megapixels": lambda: png(10_200, 5_000),
    "png as wide as can be": lambda: png(2**31 - 1, 1),
    "png without width": lambda: png(0, 100),
    "jpeg of 4 gigapixels": lambda: jpeg_of_size(65_535, 65_535),
    "jpeg of 12 megapixels without pixels": lambda: jpeg_of_size(4_000, 3_000),
    "webp of 268 megapixels": lambda: webp_of_size(16_384, 16_384),
    "webp as large as can be": lambda: webp_of_size(2**24, 2**24),
    **inflating(80),
    "gif of 4 gigapixels": lambda: gif_of_size(65_535, 65_535),
    "gif of 49 megapixels without pixels": lambda: gif_of_size(7_000, 7_000),
    "bmp of 4 exapixels": lambda: bmp_of_size(2**31 - 1, 2**31 - 1),
    "bmp of 49 megapixels without pixels": lambda: bmp_of_size(7_000, 7_000),
    "bmp of 49 megapixels in one run": lambda: bmp_of_size(7_000, 7_000, packed=True),
    "tiff of 16 exapixels": lambda: tiff_of_size(2**32 - 1, 2**32 - 1),
    "tiff of 49 megapixels without pixels": lambda: tiff_of_size(7_000, 7_000),
    "tiff of one tile of 4 gigapixels": lambda: tiff_of_size(64, 64, (322, 65_536), (323, 65_536), (324, 8), (325, 4)),
    "tiff that comes after itself": lambda: tiff_of_size(4_000, 4_000, after=12),
    "tiff without width": lambda: tiff_of_size(0, 64),
    "avif of 4 gigapixels": lambda: avif_of_size(65_535, 65_535),
    "avif of 49 megapixels without pixels": lambda: avif_of_size(7_000, 7_000),
}


def _of(mode: str, width: int, height: int, kind: str, how: dict[str, object]) -> Callable[[], bytes]:
    """An honest picture, flat, so that its file is small."""
    return lambda: encoded(Image.new(mode, (width, height)), kind, **how)


LARGE: Files = {  # 49 megapixels, or nearly, of every kind
    f"{kind} of {width}x{height}, {mode} {how}": _of(mode, width, height, kind, how)
    for kind, mode, width, height, how in (
        ("JPEG", "RGB", 7000, 7000, {}),
        ("JPEG", "RGB", 7000, 7000, {"progressive": True}),
        ("JPEG", "RGB", 65_500, 760, {}),
        ("JPEG", "CMYK", 7000, 7000, {}),
        ("JPEG", "L", 7000, 7000, {}),
        ("PNG", "RGB", 7000, 7000, {}),
        ("PNG", "RGBA", 7000, 7000, {}),
        ("PNG", "I;16", 7000, 7000, {}),
        ("PNG", "1", 7000, 7000, {}),
        ("PNG", "P", 7000, 7000, {}),
        ("PNG", "RGB", 760, 65_500, {}),
        ("WEBP", "RGB", 7000, 7000, {"method": 0}),
        ("WEBP", "RGBA", 7000, 7000, {"method": 0, "lossless": True}),
        ("HEIF", "RGB", 7000, 7000, {}),
        ("TIFF", "RGB", 7000, 7000, {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", 7000, 7000, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "F", 7000, 7000, {"compression": "tiff_adobe_deflate"}),
        ("AVIF", "RGB", 7000, 7000, {"speed": 10}),
        ("BMP", "RGB", 7000, 7000, {}),
        ("GIF", "P", 7000, 7000, {}),
    )
}


def _moving(kind: str, frames: int) -> Callable[[], bytes]:
    pictures = [Image.new("RGB", (600, 600), (k, 0, 0)) for k in range(frames)]
    return lambda: encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])


MORE_BOMBS: Files = {
    **inflating(400),
    **inflating(2000),
    **{
        f"jpeg of {scans} scans, {side}x{side}": lambda s=scans, n=side: jpeg_of_scans(s, n, n)  # type: ignore[misc]
        for scans, side in ((99, 1000), (99, 2000), (99, 3500), (99, 5000), (99, 7000), (2000, 1000), (9000, 300))
    },
    "jpeg of 99 scans, spotted": lambda: repeated(encoded(spotted(7000), "JPEG", progressive=True), 99),
    "jpeg of 98 scans and a half": lambda: jpeg_of_scans(99, 7000, 7000)[:-20],
    "jpeg of 4000 large scans": lambda: repeated(encoded(spotted(2000), "JPEG", progressive=True), 4000)[:29_000_000],
    "heif of 4 gigapixels": lambda: heif_of_size(65_535, 65_535),
    "heif of 49 megapixels without pixels": lambda: heif_of_size(7_000, 7_000),
    "heif without width": lambda: heif_of_size(0, 64),
    "png of 49 megapixels without pixels": lambda: png(7_000, 7_000),
    "webp of 49 megapixels without pixels": lambda: webp_of_size(7_000, 7_000),
    "exif that comes after itself": lambda: jpeg_with_exif(entries(0x0112, 1, 1, 1, 8)),
    "exif within itself": lambda: jpeg_with_exif(entries(0x8769, 1, 8, 1, 0)),
    "exif within itself, many times": lambda: jpeg_with_exif(entries(0x8769, 1, 8, 3000, 8)),
    "exif of 4 gigabytes": lambda: jpeg_with_exif(entries(0x0132, 2**32 - 1, 0, 1, 0)),
    "exif of a million fields": lambda: jpeg_with_exif(struct.pack("<H", 65_535) + bytes(60_000)),
    "a png that moves 300 times": _moving("PNG", 300),
    "a webp that moves 300 times": _moving("WEBP", 300),
    "a jpeg of 40 pictures": _moving("MPO", 40),
    "30,000 comments": lambda: b"\xff\xd8" + b"\xff\xfe\0\x02" * 30_000 + encoded(Image.fromarray(scene()), "JPEG")[2:],
    "30,000 pieces of a profile": lambda: (
        b"\xff\xd8" + b"\xff\xe2\0\x10ICC_PROFILE\0\x01\xff" * 30_000 + encoded(Image.fromarray(scene()), "JPEG")[2:]
    ),
    "a png of 100,000 chunks": lambda: png(4, 4, *[chunk(b"tEXt", b"a\0b")] * 100_000),
}


def flipped(data: bytes, lot: np.random.Generator) -> bytes:
    """From one to eight of its bits turned."""
    wrong = bytearray(data)
    for at in lot.integers(0, len(data), lot.integers(1, 9)):
        wrong[at] ^= 1 << int(lot.integers(8))
    return bytes(wrong)
