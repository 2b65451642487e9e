"""What people upload by mistake or on purpose: every file is answered once, soon, in our words, and nothing is left."""

from __future__ import annotations

import gzip
import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.bundle import Shelf
from engines.images.decoder import Decoder
from engines.messages import Advice, Enhance, Event, Failed, Final, Inspect
from engines.studio import Studio
from tests.support.fakes import FakeEngine, write_detector, write_restorer
from tests.support.photo_files import display_p3, encoded, private_exif, scene
from tests.support.strange_files import BOMBS

LIMIT_S = 2.0
KINDS = ("JPEG", "PNG", "WEBP", "HEIF", "TIFF", "AVIF", "BMP", "GIF")
REFUSALS = ("bad_image", "image_too_large")


@cache
def whole(kind: str) -> bytes:
    return encoded(Image.fromarray(scene(120, 160)), kind, exif=private_exif(), icc_profile=display_p3())


def cut(kind: str, share: float) -> Callable[[], bytes]:
    return lambda: whole(kind)[: int(len(whole(kind)) * share)]


def saved(kind: str, **how: Any) -> Callable[[], bytes]:
    return lambda: encoded(Image.fromarray(scene(64, 64)), kind, **how)


def zipped() -> bytes:
    with zipfile.ZipFile(data := io.BytesIO(), "w") as archive:
        archive.writestr("photo.jpg", whole("JPEG"))
    return data.getvalue()


def noisy(kind: str) -> Callable[[], bytes]:
    def made() -> bytes:
        data = bytearray(whole(kind))
        for at in np.random.default_rng(5).integers(200, len(data), 40):
            data[at] ^= 0xFF
        return bytes(data)

    return made


def moving(kind: str) -> Callable[[], bytes]:
    more = [Image.fromarray(255 - scene(64, 64))]
    return lambda: encoded(Image.fromarray(scene(64, 64)), kind, save_all=True, append_images=more)


CUTS = {f"{kind} cut at {share:.0%}": cut(kind, share)
        for kind in KINDS for share in (0.01, 0.1, 0.35, 0.6, 0.9)}  # fmt: skip
STRANGERS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one byte": lambda: b"\xff",
    "zeros": lambda: bytes(5000),
    "text": lambda: "亲爱的奶奶".encode() * 50,
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "html": lambda: b"<!doctype html><script>alert(1)</script>",
    "json": lambda: b'{"kind": "enhance"}',
    "a program": lambda: b"\x7fELF" + bytes(400),
    "mp4": lambda: b"\0\0\0\x18ftypmp42" + bytes(400),
    "pdf": saved("PDF"),
    "icon": saved("ICO"),
    "jpeg 2000": saved("JPEG2000"),
    "zip": zipped,
    "gzip": lambda: gzip.compress(whole("JPEG")),
    "jpeg's first bytes": lambda: b"\xff\xd8\xff\xe0",
    "png's first bytes": lambda: b"\x89PNG\r\n\x1a\n",
    "webp's first bytes": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "heic's first bytes": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "jpeg after rubbish": lambda: b"x" * 33 + whole("JPEG"),
}
ODD_BUT_GOOD: dict[str, Callable[[], bytes]] = {
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
    "a strip": lambda: encoded(Image.new("RGB", (30_000, 2), "red"), "PNG"),
    "a tower": lambda: encoded(Image.new("RGB", (2, 30_000), "red"), "JPEG"),
    "cmyk": lambda: encoded(Image.fromarray(scene(64, 64)).convert("CMYK"), "JPEG"),
    "16 bits": lambda: encoded(Image.fromarray(scene(64, 64)[..., 0].astype(np.uint16) * 257), "PNG"),
    "one bit": lambda: encoded(Image.fromarray(scene(64, 64)[..., 0] > 99), "PNG"),
    "palette": lambda: encoded(Image.fromarray(scene(64, 64)).quantize(16), "PNG"),
    "all transparent": lambda: encoded(Image.new("RGBA", (40, 40)), "PNG"),
    "progressive": saved("JPEG", progressive=True),
    "several in one": moving("MPO"),
    "moving png": moving("PNG"),
    "moving gif": moving("GIF"),
    "tiff of two pages": moving("TIFF"),
    "tiff": saved("TIFF", compression="tiff_lzw"),
    "bmp": saved("BMP"),
    "avif": saved("AVIF"),
    "moving webp": moving("WEBP"),
    "a profile of nonsense": saved("JPEG", icc_profile=b"nonsense" * 40),
    "rubbish after the end": lambda: whole("JPEG") + bytes(3000),
}
MAYBE: dict[str, Callable[[], bytes]] = {f"{kind} with wrong bytes": noisy(kind) for kind in KINDS}
ALL = {**CUTS, **STRANGERS, **BOMBS, **ODD_BUT_GOOD, **MAYBE}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("odd")
    write_restorer(folder / "shelf" / "restorer")
    write_detector(folder / "shelf" / "detector")
    decoder = Decoder(LIMIT_S)
    yield Studio(Shelf((folder / "shelf",)), folder / "state", FakeEngine().select, decoder=decoder)
    decoder.close()


def answered(studio: Studio, request: Enhance | Inspect, folder: Path) -> list[Event]:
    """Its events, of which the last ends the job and no other does. This thread and the decoder have their time."""
    started = time.thread_time()
    events = list(studio.run(request, folder))
    assert time.thread_time() - started < LIMIT_S
    assert [isinstance(event, Final | Failed) for event in events] == [False] * (len(events) - 1) + [True]
    return events


def test_there_are_sixty_of_them() -> None:
    assert len(ALL) >= 60


@pytest.mark.parametrize("name", ALL)
def test_every_file_is_answered(studio: Studio, tmp_path: Path, name: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(ALL[name]())
    request = Enhance(str(tmp_path / "photo.jpg"), whole_picture=name not in BOMBS)
    *_, last = answered(studio, request, tmp_path / "out")
    if isinstance(last, Final):
        assert name in {**ODD_BUT_GOOD, **MAYBE, **CUTS} and (tmp_path / "out" / last.images[0]).is_file()
    elif isinstance(last, Failed) and last.code == "no_face":
        assert name in BOMBS, "its pixels were read, whatever else is in it"
        return
    else:
        assert isinstance(last, Failed) and last.code in REFUSALS and name not in ODD_BUT_GOOD
        assert last.detail and str(tmp_path) not in last.detail and len(last.detail) < 300
        assert not list((tmp_path / "out").glob("*")), "nothing is left of what failed"
    looked = answered(studio, Inspect(str(tmp_path / "photo.jpg")), tmp_path / "out")
    assert isinstance(looked[-1], type(last)), "whoever looks at it says the same"
    assert any(isinstance(event, Advice) for event in looked) == isinstance(looked[-1], Final)


@pytest.mark.parametrize("path", ["missing.jpg", ".", "x" * 300, "a\0b", "loop"])
def test_what_is_no_file_is_answered(studio: Studio, tmp_path: Path, path: str) -> None:
    os.symlink("loop", tmp_path / "loop")
    for request in (Enhance(str(tmp_path / path)), Inspect(str(tmp_path / path))):
        *_, last = answered(studio, request, tmp_path / "out")
        assert isinstance(last, Failed) and last.code == "bad_image" and str(tmp_path) not in last.detail
