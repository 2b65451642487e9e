"""Reading pictures: upright, RGB, stripped of all else; a stranger's file raises ImageError and nothing else."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from engines import images
from engines.errors import ImageError, ImageTooLarge
from engines.images import opening
from tests.support.photo_files import STORED

Pixels = NDArray[np.uint8]


def scene(height: int = 24, width: int = 40) -> Pixels:
    """Smooth, without any symmetry, so that every turn and flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)), -1).astype(
        np.uint8
    )


def saved(path: Path, image: Image.Image, kind: str, **how: Any) -> Path:
    image.save(path, kind, **how)
    return path


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_comes_in_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene())))
    how = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    read = images.read(saved(tmp_path / "photo", stored, kind, exif=exif, **how))
    assert read.shape == scene().shape
    assert np.abs(read.astype(int) - scene()).mean() < (2 if kind == "JPEG" else 0.01)


def private_jpeg(path: Path) -> Path:
    exif = Image.Exif()
    exif[271], exif[272], exif[315] = "SECRET-MAKER", "SECRET-MODEL", "SECRET-ARTIST"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    exif.get_ifd(0x8769)[0x9286] = "SECRET-COMMENT"
    icc = b"SECRET-PROFILE" * 20
    xmp = b"<x>SECRET-XMP</x>"
    return saved(path, Image.fromarray(scene()), "JPEG", exif=exif, icc_profile=icc, xmp=xmp, comment=b"SECRET-NOTE")


def private_png(path: Path) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "SECRET-AUTHOR")
    info.add_itxt("Where", "SECRET-PLACE")
    return saved(path, Image.fromarray(scene()), "PNG", pnginfo=info)


@pytest.mark.parametrize("make", [private_jpeg, private_png])
def test_nothing_of_the_uploader_goes_on_but_pixels(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path / "photo")
    assert b"SECRET" in source.read_bytes()
    name = images.write_output(tmp_path / "out", images.read(source), "Restored photo")
    preview = images.write_preview(tmp_path / "out", images.read(source))
    for written in (tmp_path / "out" / name, tmp_path / "out" / preview):
        assert b"SECRET" not in written.read_bytes()
        with Image.open(written) as image:
            assert set(image.info) <= {"parameters", "loop", "background", "timestamp", "duration"}
            assert not image.getexif()


def test_cmyk_and_grey_become_rgb(tmp_path: Path) -> None:
    cmyk = images.read(saved(tmp_path / "c", Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.astype(int) - scene()).mean() < 4
    grey = Image.fromarray(scene()[:, :, 0])
    read = images.read(saved(tmp_path / "g", grey, "PNG"))
    assert (read == scene()[:, :, :1]).all() and read.shape == scene().shape


def test_palette_and_one_bit_become_rgb(tmp_path: Path) -> None:
    palette = Image.fromarray(scene()).quantize(64)
    assert (images.read(saved(tmp_path / "p", palette, "PNG")) == np.array(palette.convert("RGB"))).all()
    bits = Image.fromarray(scene()[:, :, 0] > 100)
    read = images.read(saved(tmp_path / "b", bits, "PNG"))
    assert set(np.unique(read)) == {0, 255}


@pytest.mark.parametrize("level", [0, 64, 128, 200, 255])
def test_a_16_bit_grey_keeps_its_brightness(tmp_path: Path, level: int) -> None:
    flat = np.full((8, 8), level * 257, dtype=np.uint16)
    read = images.read(saved(tmp_path / "deep", Image.fromarray(flat), "PNG"))
    assert np.abs(read.astype(int) - level).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(tmp_path: Path, mode: str) -> None:
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:, 4:] = (200, 200, 200, 255)
    read = images.read(saved(tmp_path / "a", Image.fromarray(rgba).convert(mode), "PNG"))
    assert (read[:, :4] == 255).all()
    assert np.abs(read[:, 4:].astype(int) - 200).max() <= 2


def test_half_transparent_mixes_with_white(tmp_path: Path) -> None:
    half = Image.fromarray(np.full((4, 4, 4), (0, 0, 0, 128), dtype=np.uint8))
    assert np.abs(images.read(saved(tmp_path / "h", half, "WEBP", lossless=True)).astype(int) - 127).max() <= 1


def test_a_phones_several_pictures_in_one_jpeg(tmp_path: Path) -> None:
    first, second = Image.fromarray(scene()), Image.fromarray(255 - scene())
    path = saved(tmp_path / "mpo", first, "MPO", save_all=True, append_images=[second])
    assert np.abs(images.read(path).astype(int) - scene()).mean() < 4


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(4) + b"IDAT"
    )


@pytest.mark.parametrize(
    ("width", "height", "megapixels"), [(10_000, 6_000, 60), (13_000, 13_000, 169), (65_535, 1_000, 66)]
)
def test_a_picture_that_is_too_large_is_refused_by_its_header(
    tmp_path: Path, width: int, height: int, megapixels: int
) -> None:
    """The file holds no pixels: whoever tries to decode them gets another error."""
    (tmp_path / "huge.png").write_bytes(png_header(width, height))
    with pytest.raises(ImageTooLarge) as caught:
        images.read(tmp_path / "huge.png")
    assert caught.value.facts == {"megapixels": megapixels, "limit": opening.MAX_MEGAPIXELS}


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(100_000, 100_000))
    with pytest.raises(ImageTooLarge):
        images.read(tmp_path / "bomb.png")


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes over the whole picture again: 400 KB took 108 s, in which nobody else's job began."""
    path = saved(tmp_path / "a.jpg", Image.fromarray(scene(240, 400)), "JPEG", progressive=True)
    data = path.read_bytes()
    last = data.rindex(opening.START_OF_SCAN)
    assert 1 < data.count(opening.START_OF_SCAN) < opening.MAX_SCANS / 4 and images.read(path).shape == (240, 400, 3)
    path.write_bytes(data[:-2] + data[last:-2] * opening.MAX_SCANS + data[-2:])
    with pytest.raises(ImageError, match="scans"):
        images.read(path)
    monkeypatch.setattr(opening, "MAX_SCANS", 10**9)
    assert images.read(path).shape == (240, 400, 3), "it is a picture that would have been decoded"


def test_a_picture_at_the_limit_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "big.png", Image.new("1", (10_000, 5_000)), "PNG")
    assert images.read(path).shape == (5_000, 10_000, 3)


OTHERS = ("PPM", "ICO", "PDF", "TGA", "PCX", "JPEG2000")


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_refused_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ImageError):
        images.read(saved(tmp_path / "photo.jpg", Image.fromarray(scene()), kind))


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"<svg/>", b"MZ" + bytes(500), b"RIFF\0\0\0\0WEBP"]
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(ImageError):
        images.read(tmp_path / "photo.png")


@pytest.mark.parametrize("path", ["missing.png", ".", "a" * 300, "a\0b"])
def test_what_is_no_file_is_refused_without_naming_the_folder(tmp_path: Path, path: str) -> None:
    """Details reach people through Failed and REST: a folder of the server is none of their business."""
    with pytest.raises(ImageError) as caught:
        images.read(tmp_path / path)
    assert str(tmp_path) not in str(caught.value)


def encodings() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[274], exif[271], exif[282] = 6, "maker", 72.0
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    variants = (("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGB"))
    files = {}
    for kind, mode in variants:
        Image.fromarray(scene()).convert(mode).save(data := io.BytesIO(), kind, exif=exif)
        files[f"{kind}-{mode}"] = data.getvalue()
    return files


@pytest.mark.parametrize("name", ["PNG-RGB", "PNG-P", "PNG-RGBA", "WEBP-RGB"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    whole = encodings()[name]
    for length in range(0, len(whole) * 3 // 4, 7):
        (tmp_path / "photo").write_bytes(whole[:length])
        with pytest.raises(ImageError):
            images.read(tmp_path / "photo")


@pytest.mark.parametrize("name", ["JPEG-RGB", "JPEG-CMYK", "PNG-RGB", "PNG-P", "PNG-RGBA", "WEBP-RGB"])
def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path: Path, name: str) -> None:
    whole, rng = encodings()[name], np.random.default_rng(4)
    for _ in range(500):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 400), 2):
            damaged[at] = rng.integers(256)
        (tmp_path / "photo").write_bytes(damaged)
        try:
            pixels = images.read(tmp_path / "photo")
        except ImageError:
            continue
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_odd_metadata_does_not_warn(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\xff\xff\0\0\xff\xff\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.read(saved(tmp_path / "odd.jpg", Image.fromarray(scene()), "JPEG", exif=exif))
