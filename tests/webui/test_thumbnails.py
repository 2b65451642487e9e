"""Small copies of pictures: how small, how fast the second time, of what, and when they go."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from engines.errors import NotFoundError
from engines.jobs import leftovers
from engines.jobs.sqlite_queue import SqliteQueue
from engines.settings import Settings
from tests.support.http import SKETCH, encoded, people, refused
from webui import outputs_cap, sweep, thumbnails
from webui.thumbnails import MOST_BYTES, make, place, stored

if TYPE_CHECKING:
    from tests.support.server import Rig

NAME = "outputs_20260102030405.png"
HERE = Path(__file__).parents[2] / "docs" / "portraits.webp"


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    people().save(tmp_path / NAME)
    return tmp_path / NAME


# ---- how small


@pytest.mark.parametrize(
    ("size", "small"), [((1600, 1200), (384, 288)), ((300, 900), (128, 384)), ((100, 50), (100, 50))]
)
def test_it_has_the_shape_of_the_picture_and_is_never_larger(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    people().resize(size).save(tmp_path / NAME)
    image = opened(make(tmp_path / NAME))
    assert (image.format, image.size) == ("WEBP", small)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_it_looks_like_the_picture(tmp_path: Path, suffix: str) -> None:
    with Image.open(HERE) as drawn:
        whole = drawn.convert("RGB")
    whole.save(tmp_path / f"outputs_20260102030405.{suffix}", quality=95)
    image = opened(make(tmp_path / f"outputs_20260102030405.{suffix}"))
    wanted = np.asarray(whole.resize(image.size, Image.Resampling.BICUBIC), np.float64)
    assert np.abs(np.asarray(image.convert("RGB"), np.float64) - wanted).mean() < 8


@pytest.mark.parametrize("channels", [3, 4])
def test_the_worst_of_pictures_is_small_too(tmp_path: Path, channels: int) -> None:
    noise(900, 900, channels).save(tmp_path / NAME)
    assert len(make(tmp_path / NAME)) <= MOST_BYTES


def test_what_is_transparent_stays_so_and_colours_mean_what_they_did(tmp_path: Path) -> None:
    profile = b"p" * 500
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / NAME, icc_profile=profile)
    image = opened(make(tmp_path / NAME))
    assert image.mode == "RGBA" and image.getpixel((9, 9))[3] == 0 and image.info["icc_profile"] == profile
    Image.new("L", (64, 64), 77).save(tmp_path / NAME, icc_profile=b"p" * 500_000)
    assert len(make(tmp_path / NAME)) < 1000


# ---- of what


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"no picture at all", None])
def test_a_damaged_picture_has_none(tmp_path: Path, data: bytes | None) -> None:
    whole = encoded(people(), "PNG")
    (tmp_path / NAME).write_bytes(whole[: len(whole) // 2] if data is None else data)
    with pytest.raises(NotFoundError):
        make(tmp_path / NAME)
    assert not place(tmp_path / NAME).exists()


def test_only_the_formats_that_are_written_here_are_opened(tmp_path: Path) -> None:
    people().save(tmp_path / NAME, "TIFF")
    with pytest.raises(NotFoundError):
        make(tmp_path / NAME)


def test_the_second_time_it_is_read(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stored(picture) is None
    data = make(picture)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    assert stored(picture) == data


def test_it_is_not_there_without_its_picture(picture: Path) -> None:
    make(picture)
    picture.unlink()
    with pytest.raises(NotFoundError):
        stored(picture)


def test_a_full_disk_keeps_nobody_from_looking(
    picture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(thumbnails.files, "write_atomic", full)
    caplog.set_level(logging.WARNING)
    assert opened(make(picture)).format == "WEBP" and stored(picture) is None
    assert "No space left" in caplog.text and "outputs_" not in caplog.text


# ---- when it goes


def test_it_goes_with_its_picture(picture: Path) -> None:
    other = picture.with_name("outputs_20260102030406.png")
    people().save(other)
    for delete in (
        lambda: leftovers.delete_picture(picture.parent, NAME),
        lambda: leftovers.delete_pictures(picture.parent, [NAME]),
    ):
        people().save(picture)
        make(picture), make(other)
        delete()
        assert not picture.exists() and not place(picture).exists()
        assert other.exists() and place(other).exists()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    settings = Settings(tmp_path)
    settings.outputs.mkdir()
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    yield queue
    queue.close()


def test_a_sweep_deletes_those_of_pictures_that_somebody_has_deleted(queue: SqliteQueue, tmp_path: Path) -> None:
    gone, here = (queue.folder / f"outputs_2026010203040{k}.png" for k in (1, 2))
    for path in (gone, here):
        people().save(path)
        make(path)
    gone.unlink()
    sweep.sweep(queue, Settings(tmp_path))
    assert not place(gone).exists() and place(here).exists()


def test_they_count_as_what_pictures_take(queue: SqliteQueue) -> None:
    path = queue.folder / NAME
    people().save(path)
    before = outputs_cap.sizes(queue.folder)
    data = make(path)
    assert outputs_cap.sizes(queue.folder)[path.stem] == before[path.stem] + len(data)


# ---- at its address


def test_its_address(rig: Rig) -> None:
    drawn = rig.client.post("/generate", json={"prompt": "small", **SKETCH}).json()["images"][0]
    address = drawn.replace("/outputs/", "/thumbnails/")
    answers = [rig.client.get(address) for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"
        assert answer.headers["cache-control"] == rig.client.get(drawn).headers["cache-control"]
        assert opened(answer.content).size == (64, 64)
    assert place(rig.settings.outputs / drawn.rpartition("/")[2]).read_bytes() == answers[0].content
    _, _, key, name = drawn.split("/")
    wrong = ("0" * 32 if key[0] != "0" else "1" * 32, key[::-1], "%00")
    for bad in wrong:
        refused(rig.client.get(f"/thumbnails/{bad}/{name}"), 404, "not_found")
    os.truncate(rig.settings.outputs / name, 100)
    place(rig.settings.outputs / name).unlink()
    refused(rig.client.get(address), 404, "not_found")
    (rig.settings.outputs / name).unlink()
    refused(rig.client.get(address), 404, "not_found")


@pytest.mark.parametrize(
    "name", ["../uploads/x", "..%2Fuploads%2Fx.png", "thumbnails", "outputs_1.negative.npz", "x.png"]
)
def test_nothing_but_our_pictures_is_opened_even_with_a_key(rig: Rig, name: str) -> None:
    signed = rig.house.keys.sign(name)
    assert rig.client.get(f"/thumbnails/{signed}").status_code == 404
