"""Writing a restored photo: in the format that was asked for, what goes with it, what never does, and its name."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines import images
from engines.images import PICTURE_NAME, Photo
from engines.messages import PhotoFormat
from tests.support.photo_files import SECRETS, TAKEN, display_p3, private, scene

FORMATS: tuple[PhotoFormat, ...] = ("png", "jpeg", "webp")
KINDS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
TEXT = "Restored photo\nStrength: 70, 模型"


def written(folder: Path, photo: Photo, format: PhotoFormat = "png", quality: int = 92, name: str = "") -> Path:
    return folder / images.write_photo(folder, photo, TEXT, format, quality, name)


def opened(path: Path) -> Image.Image:
    """Loaded whole, as other programs see it."""
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
    return image


def smooth(height: int = 64, width: int = 80) -> NDArray[np.uint8]:
    return scene(height, width)


@pytest.mark.parametrize("format", FORMATS)
def test_the_format_is_the_one_that_was_asked_for(tmp_path: Path, format: PhotoFormat) -> None:
    path = written(tmp_path, Photo(smooth()), format)
    image = opened(path)
    assert image.format == KINDS[format] and path.suffix == {"jpeg": ".jpg"}.get(format, f".{format}")
    difference = np.abs(np.array(image.convert("RGB")).astype(int) - smooth())
    assert difference.mean() < 2 and (format != "png" or difference.max() == 0)
    assert PICTURE_NAME.fullmatch(path.name)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_is_a_matter_of_size(tmp_path: Path, format: PhotoFormat) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    sizes = [written(tmp_path, Photo(noise), format, quality).stat().st_size for quality in (1, 50, 92, 100)]
    assert sizes == sorted(sizes) and sizes[-1] > 3 * sizes[0]


@pytest.mark.parametrize("format", ["png", "webp"])
def test_transparency_is_kept_where_the_format_has_it(tmp_path: Path, format: PhotoFormat) -> None:
    alpha = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (64, 1))
    image = opened(written(tmp_path, Photo(smooth(), alpha), format))
    assert image.mode == "RGBA" and (np.array(image.getchannel("A")) == alpha).all()


def test_in_a_jpeg_what_was_transparent_is_white(tmp_path: Path) -> None:
    """What lies under the glass was not meant to be seen."""
    hidden, alpha = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    hidden[:, 32:], alpha[:, 32:] = 120, 255
    image = np.array(opened(written(tmp_path, Photo(hidden, alpha), "jpeg")).convert("RGB"))
    assert image[:, :30].min() > 250 and np.abs(image[:, 34:].astype(int) - 120).max() < 5


@pytest.mark.parametrize("format", FORMATS)
def test_the_profile_comes_out_again(tmp_path: Path, format: PhotoFormat) -> None:
    image = opened(written(tmp_path, Photo(smooth(), profile=display_p3()), format))
    assert image.info["icc_profile"] == display_p3()
    assert "icc_profile" not in opened(written(tmp_path, Photo(smooth()), format)).info, "and none is invented"


@pytest.mark.parametrize("format", FORMATS)
def test_grey_stays_grey(tmp_path: Path, format: PhotoFormat) -> None:
    grey = np.repeat(smooth()[..., :1], 3, 2)
    for more in ({}, {"profile": display_p3()}, {"alpha": np.full((64, 80), 255, np.uint8)}):
        image = np.array(opened(written(tmp_path, Photo(grey, grey=True, **more), format)).convert("RGB")).astype(int)
        assert (image.max(-1) - image.min(-1)).max() <= 1
        assert np.abs(image - grey).mean() < 2


@pytest.mark.parametrize("format", FORMATS)
def test_how_it_was_made_can_be_read_again(tmp_path: Path, format: PhotoFormat) -> None:
    """Where A1111's tools look for it: a text in PNG, EXIF's comment in the others."""
    image = opened(written(tmp_path, Photo(smooth()), format))
    if format == "png":
        assert image.info["parameters"] == TEXT
    else:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment.startswith(b"UNICODE\0") and comment[8:].decode("utf-16-be") == TEXT


def every_value(image: Image.Image) -> dict[int, Any]:
    exif = image.getexif()
    return {**exif, **exif.get_ifd(0x8769), **exif.get_ifd(0x8825)}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_of_its_owner_only_the_day_goes_on_and_only_with_the_photo(
    tmp_path: Path, kind: str, format: PhotoFormat
) -> None:
    source = private(kind, smooth())
    assert all(secret in source for secret in SECRETS[:3])
    (tmp_path / "photo").write_bytes(source)
    photo = images.read_photo(tmp_path / "photo")
    path = written(tmp_path / "out", photo, format)
    data = path.read_bytes()
    assert b"SECRET" not in data
    told = every_value(opened(path))
    assert told.get(0x0132) == told.get(0x9003) == TAKEN
    assert set(told) <= {0x0132, 0x9003, 0x8769, 0x9286}, "no place, no camera, no other tag"
    dateless = written(tmp_path / "out", Photo(photo.pixels), format)
    assert TAKEN.encode() not in dateless.read_bytes()
    preview = tmp_path / "out" / images.write_preview(tmp_path / "out", photo.pixels, photo.profile)
    assert b"SECRET" not in preview.read_bytes() and TAKEN.encode() not in preview.read_bytes()


NAMES = {
    "IMG_1234.HEIC": "IMG_1234",
    "holiday photo (2).jpg": "holiday-photo-2",
    "奶奶的照片.jpg": "奶奶的照片",
    "全家福 1962年.png": "全家福-1962年",
    "cafe\u0301.jpg": "café",  # as macOS writes it, in two letters
    "noext": "noext",
    "../../x.png": "x",
    "/etc/passwd": "passwd",
    "..\\..\\windows\\system.ini": "windows-system",
    "a/b/c.webp": "c",
    ".hidden": "hidden",
    "...": "",
    "..": "",
    "": "",
    "   .jpg": "",
    "-rf.jpg": "rf",
    "<img src=x onerror=alert(1)>.jpg": "img-src-x-onerror-alert-1",
    "a\0b.jpg": "a-b",
    "line\nbreak.jpg": "line-break",
    "CON.jpg": "CON",
    "🙂.jpg": "",
    "a%2F..%2Fb.jpg": "a-2F-2Fb",
    'quo"te.jpg': "quo-te",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_photo_keeps_its_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "out", Photo(smooth(8, 8)), name=name)
    ending = re.sub(r"outputs_\d{14}", "", path.name)
    assert ending == (f"-{NAMES[name]}.png" if NAMES[name] else ".png")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == [path.name]
    assert PICTURE_NAME.fullmatch(path.name)


@pytest.mark.parametrize("letter", ["x", "é", "字", "𠀀"])
def test_a_very_long_name_is_cut_to_what_disks_take(tmp_path: Path, letter: str) -> None:
    names = [written(tmp_path, Photo(smooth(8, 8)), "webp", name=letter * 250 + ".jpg").name for _ in range(2)]
    assert len(set(names)) == 2
    for name in names:
        assert PICTURE_NAME.fullmatch(name) and len(name.encode()) < 240 and name.count(letter) >= 20


def test_two_within_a_second_keep_both(tmp_path: Path) -> None:
    """And two of one name, from two folders of the owner's."""
    pictures = [np.full((8, 8, 3), 20 * i, np.uint8) for i in range(8)]
    names = [written(tmp_path, Photo(picture), name="a.jpg").name for picture in pictures]
    assert len(set(names)) == len(names) == len(os.listdir(tmp_path))
    assert all(
        (np.array(opened(tmp_path / name).convert("RGB")) == picture).all()
        for name, picture in zip(names, pictures, strict=True)
    )
    assert all(name.endswith("-a.png") for name in names)
    assert any(re.fullmatch(r"outputs_\d{14}_001-a\.png", name) for name in names)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_tiny_photos_are_written_too(tmp_path: Path, shape: tuple[int, int], format: PhotoFormat) -> None:
    alpha = np.full(shape, 200, np.uint8)
    assert opened(written(tmp_path, Photo(np.zeros((*shape, 3), np.uint8), alpha), format)).size == shape[::-1]
