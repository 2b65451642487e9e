"""The files that people have: formats, depths, orientations, files that break off; and why the others are not read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from pillow_heif import register_heif_opener

from engines import images
from engines.errors import ImageError
from engines.images import boxes, causes, endings
from engines.images.opening import READABLE
from engines.messages.photos import ACCEPT, FORMATS, SUFFIXES
from tests.conftest import REPOSITORY
from tests.support.photo_files import STORED, encoded, scene

CASES = REPOSITORY.parent / "shared" / "cases"
SHARP = scene(48, 64)  # even sides: HEIC's colours are stored at half of them


def put(folder: Path, data: bytes, name: str = "photo") -> Path:
    (path := folder / name).write_bytes(data)
    return path


def close(read: images.Pixels, wanted: images.Pixels = SHARP, mean: float = 0.0) -> None:
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).mean() <= mean


# ---- formats

PICTURE = Image.fromarray(SHARP)
LOSSLESS: Mapping[str, bytes] = {
    **{
        f"tiff {compression or 'plain'}": encoded(PICTURE, "TIFF", compression=compression)
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")
    },
    "tiff of several pages": encoded(PICTURE, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "tiff, tiled": encoded(PICTURE, "TIFF", compression="tiff_lzw", tiffinfo={322: 32, 323: 32}),
    "tiff for large files": encoded(PICTURE, "TIFF", big_tiff=True),
    "bmp": encoded(PICTURE, "BMP"),
    "apng": encoded(PICTURE, "PNG", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    "webp, animated": encoded(
        PICTURE, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (64, 48))]
    ),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_loses_nothing_is_read_to_the_level(tmp_path: Path, name: str) -> None:
    close(images.read(put(tmp_path, LOSSLESS[name])))
    photo = images.read_photo(put(tmp_path, LOSSLESS[name]))
    close(photo.pixels)
    assert photo.missing == 0


@pytest.mark.parametrize(("kind", "mean"), [("AVIF", 3.0), ("GIF", 8.0), ("HEIF", 3.0)])
def test_what_loses_something_looks_the_same(tmp_path: Path, kind: str, mean: float) -> None:
    close(images.read(put(tmp_path, encoded(PICTURE, kind))), mean=mean)


def test_the_first_picture_of_an_animation_is_read(tmp_path: Path) -> None:
    data = encoded(PICTURE, "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    close(images.read(put(tmp_path, data)), mean=8.0)


def deep_tiff(pixels: np.ndarray[Any, Any], order: str = "<") -> bytes:
    """A TIFF of 16 bits a channel, which Pillow does not write. (TIFF 6.0, section 6)"""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 8), (259, 3, 1, 1),
        (262, 3, 1, 5 if channels == 4 else 2), (273, 4, 1, 8 + len(bits)), (277, 3, 1, channels), (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        small = kind == 3 and count == 1
        directory += struct.pack(f"{order}HHI", tag, kind, count)
        directory += struct.pack(f"{order}HH", value, 0) if small else struct.pack(f"{order}I", value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(bits) + len(data))
    return head + bits + data + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_scan_of_16_bits_a_channel_is_read(tmp_path: Path, order: str) -> None:
    close(images.read(put(tmp_path, deep_tiff(SHARP.astype(np.uint16) * 257, order))), mean=1.0)


def test_a_scan_in_cmyk_is_read(tmp_path: Path) -> None:
    close(images.read(put(tmp_path, encoded(PICTURE.convert("CMYK"), "TIFF"))), mean=1.0)
    inks = np.concatenate((255 - SHARP, np.zeros((48, 64, 1), np.uint8)), -1).astype(np.uint16) * 257
    close(images.read(put(tmp_path, deep_tiff(inks))), mean=1.0)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_a_tiff_of_fractions_keeps_its_brightness(tmp_path: Path, white: float) -> None:
    grey = np.linspace(0, white, 64, dtype=np.float32)[None].repeat(48, 0)
    grey[0, 0] = np.nan
    read = images.read(put(tmp_path, encoded(Image.fromarray(grey), "TIFF")))
    assert np.abs(read[1, :, 0].astype(float) - np.linspace(0, 255, 64)).max() <= 1


def test_a_tiff_in_lab_is_read(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(PICTURE, srgb, lab, outputMode="LAB")
    assert converted is not None
    close(images.read(put(tmp_path, encoded(converted, "TIFF"))), mean=4.0)


def test_choosers_offer_exactly_what_is_read() -> None:
    assert len(FORMATS) == len(READABLE)
    script = (REPOSITORY / "webui" / "assets" / "upload.js").read_text("utf-8")
    assert f'const ACCEPT = "{ACCEPT}"' in script
    for suffix in SUFFIXES:
        assert f"{suffix[1:]}: " in script or Image.registered_extensions()[suffix] in ("JPEG", "PNG", "WEBP", "GIF")


# ---- orientation


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "PNG"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_format_comes_in_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](SHARP)))
    close(images.read(put(tmp_path, encoded(stored, kind, exif=exif))), mean=3.0)


def without_boxes(stored: Image.Image, kind: str, orientation: int) -> bytes:
    """A HEIC or AVIF of which EXIF alone says how it lies; who writes one takes that out, so another tag is renamed."""
    exif = Image.Exif()
    exif[0x0128] = orientation
    value = b"\0\3\0\0\0\1\0" + bytes([orientation])
    data = encoded(stored, kind, exif=exif)
    assert data.count(b"\1\x28" + value) == 1
    return data.replace(b"\1\x28" + value, b"\1\x12" + value)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_where_no_box_turns_a_picture_its_exif_counts(tmp_path: Path, kind: str, orientation: int) -> None:
    """Telephones write such, and decoders leave EXIF out as the boxes were to say it."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](SHARP)))
    bare = put(tmp_path, without_boxes(stored, kind, orientation))
    assert not boxes.is_turned(bare)
    close(images.read(bare), mean=3.0)
    exif = Image.Exif()
    exif[274] = orientation
    boxed = put(tmp_path, encoded(stored, kind, exif=exif))
    assert boxes.is_turned(boxed)
    close(images.read(boxed), mean=3.0)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x08ftyp", b"\0\0\0\x10meta\0\0\0\0\0\0\0\x08", b"\0\0\0\0meta"])
def test_boxes_that_make_no_sense_say_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ValueError):
        boxes.is_turned(put(tmp_path, data))


# ---- what breaks off


def jpeg(**how: Any) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (400, 640, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "JPEG", quality=90, **how)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_of_a_jpeg_that_breaks_off_what_is_there_is_used(tmp_path: Path, share: float) -> None:
    whole = jpeg()
    wanted = images.read(put(tmp_path, whole))
    photo = images.read_photo(put(tmp_path, whole[: int(len(whole) * share)]))
    rows = round(400 * (1 - photo.missing))
    assert abs(photo.missing - (1 - share)) < 0.06
    assert np.array_equal(photo.pixels[: rows - 18], wanted[: rows - 18]), "the last row of blocks may be half there"


def test_a_jpeg_without_its_end_is_whole(tmp_path: Path) -> None:
    for whole in (jpeg(), jpeg(progressive=True)):
        wanted = images.read(put(tmp_path, whole))
        photo = images.read_photo(put(tmp_path, whole[:-2]))
        assert np.array_equal(photo.pixels, wanted) and photo.missing == 0


def test_a_progressive_jpeg_that_breaks_off_is_coarser(tmp_path: Path) -> None:
    whole = jpeg(progressive=True)
    photo = images.read_photo(put(tmp_path, whole[: len(whole) // 2]))
    wanted = images.read(put(tmp_path, whole)).astype(int)
    coarse = np.abs(photo.pixels.astype(int) - wanted).mean()
    assert photo.pixels.shape == (400, 640, 3) and 1 < coarse < np.abs(wanted - wanted.mean()).mean()


def test_of_a_jpeg_without_pixels_it_is_said_that_it_breaks_off(tmp_path: Path) -> None:
    whole = jpeg()
    for length in (2, 20, whole.index(b"\xff\xda") + 14):
        with pytest.raises(ImageError) as caught:
            images.read(put(tmp_path, whole[:length]))
        assert caught.value.facts == {"why": causes.CUT_OFF}, length


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "HEIF", "TIFF", "AVIF", "BMP"])
def test_of_other_formats_it_is_said_that_they_break_off(tmp_path: Path, kind: str) -> None:
    data = encoded(PICTURE, kind)
    for length in (len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ImageError) as caught:
            images.read(put(tmp_path, data[:length]))
        assert caught.value.facts == {"why": causes.CUT_OFF}, length


# ---- whole files


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF"])
def test_only_a_whole_file_is_whole(tmp_path: Path, kind: str) -> None:
    data, path = encoded(PICTURE, kind), tmp_path / "photo"
    path.write_bytes(data)
    assert endings.is_whole(path)
    beyond_pixels = {"TIFF": len(data) - 400}.get(kind, len(data))  # its directory may lie behind them
    for length in (*range(0, beyond_pixels, max(1, len(data) // 40)), beyond_pixels - 1):
        path.write_bytes(data[:length])
        assert not endings.is_whole(path), f"{length} of {len(data)} bytes"
        if length < len(data) - 16:
            path.write_bytes(data[:length].ljust(len(data), b"\0"))  # room was made for all of it at once
            boxed = kind in ("WEBP", "HEIF", "AVIF", "TIFF", "BMP")
            assert boxed or not endings.is_whole(path), f"{length}, and zeros"


def test_the_boxes_of_a_heic_are_counted_however_they_say_their_length(tmp_path: Path) -> None:
    path, head = tmp_path / "a.heic", b"\0\0\0\x10ftypheic\0\0\0\0"
    for more, whole in (
        (b"\0\0\0\x09mdatx", True),
        (b"\0\0\0\x0amdatx", False),
        (b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x11x", True),
        (b"\0\0\0\0mdatxxxx", False),
        (b"\0\0\0\x03mdatxxxx", False),
        (b"\0\0\0\x01mdat" + b"\xff" * 8, False),
    ):
        path.write_bytes(head + more)
        assert endings.is_whole(path) is whole, more


def test_a_link_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(OSError):
        endings.is_whole(tmp_path / "b.jpg")


# ---- why not

NO_PICTURES: Mapping[str, tuple[bytes, str]] = {
    "nothing": (b"", causes.EMPTY),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", causes.POINTER),
    "page": (b"\n<!DOCTYPE html><html><body>404</body></html>", causes.WEB_PAGE),
    "page with a mark": (b"\xef\xbb\xbf<HTML lang='en'>", causes.WEB_PAGE),
    "json": (b'{"error": "not found"}', causes.TEXT),
    "text": ("妈妈的照片".encode() * 60, causes.TEXT),
    "drawing": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", causes.LAYERS),
    "photoshop": (b"8BPS\0\1" + bytes(40), causes.LAYERS),
    "pdf": (b"%PDF-1.7\n", causes.DOCUMENT),
    "mp4": (b"\0\0\0\x20ftypisom" + bytes(40), causes.VIDEO),
    "mov": (b"\0\0\0\x14ftypqt  " + bytes(40), causes.VIDEO),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(40), causes.VIDEO),
    "avi": (b"RIFF\0\0\0\0AVI LIST", causes.VIDEO),
    "cr3": (b"\0\0\0\x18ftypcrx " + bytes(40), causes.RAW),
    "raf": (b"FUJIFILMCCD-RAW 0201", causes.RAW),
    "orf": (b"IIRO\x08\0\0\0", causes.RAW),
    "jpeg xl": (b"\xff\x0a\xfa\x1f", f"JPEG XL: {causes.ANOTHER}"),
    "jpeg xl in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n", f"JPEG XL: {causes.ANOTHER}"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", f"JPEG 2000: {causes.ANOTHER}"),
    "icon": (encoded(PICTURE, "ICO"), f"ICO: {causes.ANOTHER}"),
    "zip": (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(40), causes.ARCHIVE),
    "zip with a password": (b"PK\x03\x04\x14\0\1\0\x08\0" + bytes(40), causes.ENCRYPTED),
    "rar": (b"Rar!\x1a\x07\1\0", causes.ARCHIVE),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", causes.ARCHIVE),
    "openssl": (b"Salted__" + bytes(40), causes.ENCRYPTED),
    "a program": (b"MZ" + bytes(500), causes.NONE),
    "damaged": (b"\xff\xd8" + bytes(200) + b"\xff\xd9", causes.DAMAGED),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_says_what_it_is_and_what_to_do(tmp_path: Path, name: str) -> None:
    data, why = NO_PICTURES[name]
    with pytest.raises(ImageError) as caught:
        images.read(put(tmp_path, data, "photo.jpg"))
    assert caught.value.facts == {"why": why}


def raw(tags: Mapping[int, Any]) -> bytes:
    return encoded(Image.fromarray(SHARP), "TIFF", tiffinfo=dict(tags))


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}], ids=["dng", "nef"])
def test_of_a_raw_file_no_thumbnail_is_taken_for_the_photo(tmp_path: Path, tags: Mapping[int, Any]) -> None:
    with pytest.raises(ImageError) as caught:
        images.read(put(tmp_path, raw(tags), "photo.tif"))
    assert caught.value.facts == {"why": causes.RAW}


def test_a_scan_that_says_of_itself_that_it_is_whole_is_none(tmp_path: Path) -> None:
    close(images.read(put(tmp_path, raw({254: 0}))))


# ---- damage

DAMAGED: Mapping[str, Callable[[], bytes]] = {
    "tiff": lambda: encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "tiff, tiled": lambda: LOSSLESS["tiff, tiled"],
    "tiff, deep": lambda: deep_tiff(SHARP.astype(np.uint16) * 257),
    "avif": lambda: encoded(PICTURE, "AVIF"),
    "bmp": lambda: encoded(PICTURE, "BMP"),
    "gif": lambda: encoded(PICTURE, "GIF"),
    "heic": lambda: without_boxes(PICTURE, "HEIF", 6),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_read_or_refused_with_a_cause(tmp_path: Path, name: str) -> None:
    register_heif_opener()
    whole, rng = DAMAGED[name](), np.random.default_rng(4)
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 600), 2):
            damaged[at] = rng.integers(256)
        try:
            pixels = images.read(put(tmp_path, bytes(damaged)))
        except ImageError as exc:
            assert exc.code == "image_too_large" or exc.facts["why"]
            continue
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


# ---- the cases of others


@pytest.mark.skipif(not CASES.is_dir(), reason="the collection of files that once failed is not here")
def test_files_that_once_failed_are_read() -> None:
    upright, whole = images.read(CASES / "upright.png"), images.read(CASES / "jpeg_whole.jpg")
    for name, mean in (("exif6_no_irot.heic", 6.0), ("picture.avif", 6.0), ("scan_rgb.tif", 0.0)):
        close(images.read(CASES / name), upright, mean)
    assert np.abs(images.read(CASES / "jpeg_no_eoi.jpg").astype(int) - whole).max() <= 2
    half = images.read_photo(CASES / "jpeg_cut_half.jpg")
    assert 0.2 < half.missing < 0.6 and np.array_equal(half.pixels[:200], whole[:200])


def test_the_page_s_pictures_are_those_that_browsers_show(tmp_path: Path) -> None:
    for kind, shown in (("JPEG", True), ("AVIF", True), ("GIF", True), ("BMP", True), ("TIFF", False), ("HEIF", False)):
        assert images.shown_by_browsers(put(tmp_path, encoded(PICTURE, kind))) is shown, kind
