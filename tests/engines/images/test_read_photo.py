"""Reading a photo to restore it: upright, in its own colours, with its transparency, and nothing of its owner."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines import images
from engines.errors import ImageError, ImageTooLarge
from tests.support.photo_files import STORED, TAKEN, display_p3, encoded, private, private_exif, scene

Pixels = NDArray[np.uint8]
LOSSLESS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}, "HEIF": {"quality": 95},
}  # fmt: skip
KINDS = tuple(LOSSLESS)


def read(folder: Path, data: bytes) -> images.Photo:
    (folder / "photo").write_bytes(data)
    return images.read_photo(folder / "photo")


def close(a: Pixels, b: Pixels, mean: float = 3.0) -> bool:
    return a.shape == b.shape and bool(np.abs(a.astype(int) - b).mean() < mean)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_comes_in_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene(48, 80))))
    photo = read(tmp_path, encoded(stored, kind, exif=private_exif(orientation), **LOSSLESS[kind]))
    assert close(photo.pixels, scene(48, 80))
    assert close(images.read(tmp_path / "photo"), scene(48, 80)), "looked at by those who only look"


def test_transparency_turns_with_the_photo(tmp_path: Path) -> None:
    rgba = np.dstack((scene(), scene()[..., 0]))
    photo = read(tmp_path, encoded(Image.fromarray(np.rot90(rgba).copy()), "PNG", exif=private_exif(6)))
    assert photo.alpha is not None and (photo.alpha == rgba[..., 3]).all() and (photo.pixels == scene()).all()


def test_a_photo_of_a_telephone(tmp_path: Path) -> None:
    """HEIC: colours, profile and the day; what it also carries stays behind."""
    data = encoded(Image.fromarray(scene(48, 80)), "HEIF", quality=95, exif=private_exif(), icc_profile=display_p3())
    assert b"SECRET" in data and data[4:8] == b"ftyp"
    photo = read(tmp_path, data)
    assert close(photo.pixels, scene(48, 80)) and photo.profile == display_p3() and photo.taken == TAKEN
    assert photo.alpha is None and not photo.grey


def test_heic_may_have_transparency(tmp_path: Path) -> None:
    rgba = np.dstack((scene(48, 80), np.full((48, 80), 255, np.uint8)))
    rgba[:, :40, 3] = 0
    photo = read(tmp_path, encoded(Image.fromarray(rgba), "HEIF", quality=95))
    assert photo.alpha is not None and photo.alpha[:, :36].max() < 8 and photo.alpha[:, 44:].min() > 247


def test_cmyk_of_a_printing_house(tmp_path: Path) -> None:
    photo = read(tmp_path, encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95))
    assert close(photo.pixels, scene(), 4) and photo.profile == b"" and photo.alpha is None


def test_16_bits_of_a_scanner(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    photo = read(tmp_path, encoded(Image.fromarray(levels), "PNG"))
    assert np.abs(photo.pixels[..., 0].astype(int) - levels // 257).max() <= 1 and photo.grey


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_16_bits_with_a_transparent_level(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 3, 2, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + struct.pack(">3H", 0, 32768, 65535) for _ in range(2))
    photo = read(tmp_path, png((b"IHDR", header), (b"tRNS", b"\0\0"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    assert photo.pixels.shape == (2, 3, 3) and np.abs(photo.pixels[0, :, 0].astype(int) - (0, 128, 255)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(scene().astype(np.uint16)[..., 0] * 257) if mode == "I;16" else Image.fromarray(scene())
    photo = read(tmp_path, encoded(image if mode == "I;16" else image.convert(mode), "PNG"))
    assert photo.pixels.shape == scene().shape and photo.pixels.dtype == np.uint8 and photo.alpha is None
    assert photo.grey == (mode in ("L", "1", "I;16"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "tRNS"])
def test_what_lies_under_the_glass_is_kept_apart(tmp_path: Path, mode: str) -> None:
    rgba = np.full((8, 8, 4), (200, 60, 60, 255), dtype=np.uint8)
    rgba[:, :4] = (10, 20, 30, 0)
    image = Image.fromarray(rgba)
    if mode == "tRNS":
        data = encoded(image.convert("RGB"), "PNG", transparency=(10, 20, 30))
    else:
        data = encoded(image.convert("P") if mode == "PA" else image.convert(mode), "PNG")
    photo = read(tmp_path, data)
    assert photo.alpha is not None and (photo.alpha[:, :4] == 0).all() and (photo.alpha[:, 4:] == 255).all()
    assert photo.pixels.shape == (8, 8, 3)
    if mode in ("RGBA", "tRNS"):
        assert (photo.pixels == rgba[..., :3]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_goes_with_the_numbers_it_belongs_to(tmp_path: Path, kind: str) -> None:
    """The pixels are not converted: what no face is in stays to the last bit."""
    data = encoded(Image.fromarray(scene()), kind, icc_profile=display_p3(), **LOSSLESS[kind])
    photo = read(tmp_path, data)
    assert photo.profile == display_p3()
    with Image.open(tmp_path / "photo") as image:
        assert (photo.pixels == np.array(image)).all()
    assert not close(images.read(tmp_path / "photo"), photo.pixels, 1.0), "who only looks at it sees sRGB"


@pytest.mark.parametrize("profile", [b"SECRET-PROFILE" * 20, b"", b"\0" * 200, display_p3()[:100]])
def test_what_is_no_profile_is_left_behind(tmp_path: Path, profile: bytes) -> None:
    photo = read(tmp_path, encoded(Image.fromarray(scene()), "JPEG", quality=95, icc_profile=profile))
    assert photo.profile == b"" and close(photo.pixels, scene())


def test_a_profile_for_other_numbers_is_left_behind(tmp_path: Path) -> None:
    """A grey scanner's profile says nothing about RGB; nor does RGB's about a grey picture."""
    for_grey = display_p3().replace(b"RGB XYZ ", b"GRAYXYZ ")
    assert read(tmp_path, encoded(Image.fromarray(scene()), "PNG", icc_profile=for_grey)).profile == b""
    grey = Image.fromarray(scene()[..., 0])
    assert read(tmp_path, encoded(grey, "PNG", icc_profile=display_p3())).profile == b""


def tinted(picture: Pixels, by: tuple[int, int, int]) -> Pixels:
    return np.asarray(np.clip(picture.astype(int) + by, 0, 255), dtype=np.uint8)


def test_grey_is_told_from_colour(tmp_path: Path) -> None:
    grey = np.repeat(scene(480, 640)[..., :1], 3, 2)
    assert read(tmp_path, encoded(Image.fromarray(grey), "JPEG", quality=80)).grey
    assert read(tmp_path, encoded(Image.fromarray(tinted(grey, (1, 0, -1))), "PNG")).grey, "a scanner's tint"
    assert not read(tmp_path, encoded(Image.fromarray(tinted(grey, (18, 6, -12))), "PNG")).grey, "sepia is a colour"


@pytest.mark.parametrize("share", [0.25, 0.05, 0.01])
def test_a_little_colour_is_colour(tmp_path: Path, share: float) -> None:
    """Somebody in front of a white wall, or in the snow, must not come out grey."""
    wall = np.full((600, 800, 3), 222, dtype=np.uint8)
    side = int((share * wall[..., 0].size) ** 0.5)
    wall[100 : 100 + side, 300 : 300 + side] = cv2.resize(np.full((2, 2, 3), (205, 150, 120), np.uint8), (side, side))
    assert not read(tmp_path, encoded(Image.fromarray(wall), "PNG")).grey


@pytest.mark.parametrize("kind", KINDS)
def test_the_day_is_read(tmp_path: Path, kind: str) -> None:
    assert read(tmp_path, private(kind)).taken == TAKEN


@pytest.mark.parametrize(
    "said", ["", "yesterday", "2004-05-06 07:08:09", "2004:05:06 07:08:09 SECRET", "    :  :     :  :  "]
)
def test_only_a_time_is_a_time(tmp_path: Path, said: str) -> None:
    assert read(tmp_path, encoded(Image.fromarray(scene()), "JPEG", exif=private_exif(taken=said))).taken == ""


BROKEN_EXIF = {
    "junk": b"Exif\0\0" + b"\xff" * 60,
    "empty": b"Exif\0\0",
    "no end": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30),
    "loops": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    "far away": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\x7f\0\0\0\0",
    "a word for a folder": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x02\0\x04\0\0\0abc\0\0\0\0\0",
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_odd_metadata_costs_nobody_the_photo(tmp_path: Path, kind: str, name: str) -> None:
    photo = read(tmp_path, encoded(Image.fromarray(scene()), kind, exif=BROKEN_EXIF[name], **LOSSLESS[kind]))
    assert close(photo.pixels, scene()) and photo.taken == ""


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    for at in rng.integers(0, min(len(whole), 600), 3):
        data[at] = rng.integers(256)
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_photo_is_read_or_refused_and_nothing_else(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    whole = encoded(Image.fromarray(scene()), kind, exif=private_exif(), icc_profile=display_p3(), **LOSSLESS[kind])
    refused = 0
    for _ in range(300):
        try:
            photo = read(tmp_path, damaged(whole, rng))
        except ImageError:
            refused += 1
        else:
            assert photo.pixels.ndim == 3 and photo.pixels.shape[2] == 3
    assert refused


def test_a_truncated_heic_is_refused(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(scene(48, 80)), "HEIF", quality=95)
    for length in range(0, len(whole) - 60, 97):
        with pytest.raises(ImageError):
            read(tmp_path, whole[:length])


@pytest.mark.parametrize("reader", [images.read, images.read_photo])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    for side in (8_000, 20_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        (tmp_path / "bomb.png").write_bytes(png((b"IHDR", header), (b"IDAT", b"")))
        with pytest.raises(ImageTooLarge):
            reader(tmp_path / "bomb.png")


def test_other_formats_are_refused_whatever_they_are_called(tmp_path: Path) -> None:
    for kind in ("PPM", "ICO", "PDF", "JPEG2000"):
        with pytest.raises(ImageError, match="not a picture"):
            Image.fromarray(scene(64, 64)).save(data := io.BytesIO(), kind)
            read(tmp_path, data.getvalue())
