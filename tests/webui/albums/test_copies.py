"""Copies of pictures for screens: made once, anew when the picture changes, and not too many of them."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engines.errors import ImageError, NotFoundError
from engines.images.scaling import Scaling
from tests.support.site import Site, served
from webui.albums import copies
from webui.albums.copies import Copies
from webui.albums.folders import Shown
from webui.outgoing import Resource

HOW = Scaling(64, 48)


@pytest.fixture
def copying(tmp_path: Path) -> Iterator[Copies]:
    opened = Copies(tmp_path / "copies", 8.0)
    yield opened
    if opened._decoder is not None and opened._idle is not None:
        opened._idle.cancel()
        opened._decoder.close()


def picture(path: Path, colour: str = "red") -> Shown:
    Image.new("RGB", (640, 480), colour).save(path)
    return Shown(path, 0.0)


def colour(data: bytes) -> tuple[int, ...]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (64, 48)
        return tuple(round(value / 255) for value in image.convert("RGB").getpixel((32, 24)))  # type: ignore[union-attr]


def test_a_copy_is_made_once_and_anew_when_the_picture_changes(copying: Copies, tmp_path: Path) -> None:
    shown = picture(tmp_path / "a.png")
    assert colour(copying.get(shown, HOW)) == (1, 0, 0)
    (place,) = copying.folder.iterdir()
    place.write_bytes(b"as it was stored")
    assert copying.get(shown, HOW) == b"as it was stored"
    picture(tmp_path / "a.png", "blue")
    os.utime(tmp_path / "a.png", (5, 5))
    assert colour(copying.get(shown, HOW)) == (0, 0, 1)


def test_every_size_has_its_own(copying: Copies, tmp_path: Path) -> None:
    shown = picture(tmp_path / "a.png")
    sizes = []
    for width in (64, 32):
        with Image.open(io.BytesIO(copying.get(shown, Scaling(width, 48, "contain")))) as image:
            sizes.append(image.width)
    assert sizes == [64, 32]


def test_what_cannot_be_read_is_reported_once_and_asked_no_more(
    copying: Copies, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path := tmp_path / "broken.jpg").write_bytes(b"no")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(ImageError):
                copying.get(Shown(path, 0.0), HOW)
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "broken.jpg" in caplog.text
    picture(path)  # mended
    assert colour(copying.get(Shown(path, 0.0), HOW)) == (1, 0, 0)


def test_what_went_is_said_to_be_gone(copying: Copies, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        copying.get(Shown(tmp_path / "a.png", 0.0), HOW)


def test_a_full_disk_is_no_reason_to_show_nothing(
    copying: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies.files, "write_atomic", full)
    assert colour(copying.get(picture(tmp_path / "a.png"), HOW)) == (1, 0, 0)


def test_those_that_were_not_shown_for_longest_go(
    copying: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying.folder.mkdir()
    for i in range(10):
        (copying.folder / f"{i}.jpg").write_bytes(bytes(100))
        os.utime(copying.folder / f"{i}.jpg", (i, i))
    copying.sweep()
    assert len(list(copying.folder.iterdir())) == 10
    monkeypatch.setattr(copies, "MOST_BYTES", 900)
    copying.sweep()
    assert sorted(path.name for path in copying.folder.iterdir()) == [f"{i}.jpg" for i in range(3, 10)]


def test_what_is_shown_again_counts_as_new(copying: Copies, tmp_path: Path) -> None:
    shown = picture(tmp_path / "a.png")
    copying.get(shown, HOW)
    (place,) = copying.folder.iterdir()
    os.utime(place, (1, 1))
    copying.get(shown, HOW)
    assert place.stat().st_mtime > 1


# ---- pictures of other machines


@pytest.fixture
def site() -> Iterator[Site]:
    with served(Site()) as opened:
        yield opened


def file_of(colour: str) -> bytes:
    Image.new("RGB", (640, 480), colour).save(data := io.BytesIO(), "PNG")
    return data.getvalue()


def elsewhere(site: Site, path: str = "/a.png", version: str = "1") -> Shown:
    return Shown(Path("feed:", version, "a.png"), 0.0, remote=Resource(site.url + path, site.url))


def test_it_is_fetched_once_for_a_size_and_not_kept_itself(copying: Copies, site: Site) -> None:
    site.put("/a.png", file_of("red"))
    for _ in range(3):
        assert colour(copying.get(elsewhere(site), HOW)) == (1, 0, 0)
    assert site.paths() == ["/a.png"]
    assert [path.suffix for path in copying.folder.iterdir()] == [".jpg"]
    site.put("/a.png", file_of("blue"))
    assert colour(copying.get(elsewhere(site, version="2"), HOW)) == (0, 0, 1)


def test_its_copy_is_shown_while_its_server_is_away(copying: Copies) -> None:
    with served(Site()) as site:
        site.put("/a.png", file_of("red"))
        copying.get(elsewhere(site), HOW)
    assert colour(copying.get(elsewhere(site), HOW)) == (1, 0, 0)
    with pytest.raises(NotFoundError):
        copying.get(elsewhere(site, version="2"), HOW)


def test_a_server_that_does_not_answer_is_left_alone_for_a_while(copying: Copies, tmp_path: Path) -> None:
    now = [0.0]
    copying._clock = lambda: now[0]
    with served(Site()) as site:
        pass
    with pytest.raises(NotFoundError):
        copying.get(elsewhere(site), HOW)
    with served(Site(), port=int(site.url.rpartition(":")[2])) as again:
        again.put("/a.png", file_of("red"))
        with pytest.raises(NotFoundError):
            copying.get(elsewhere(site), HOW)
        assert again.asked == []
        now[0] += copies.REST_S
        assert colour(copying.get(elsewhere(site), HOW)) == (1, 0, 0)


def test_one_missing_picture_does_not_stop_the_others(copying: Copies, site: Site) -> None:
    site.put("/a.png", file_of("red"))
    with pytest.raises(NotFoundError):
        copying.get(elsewhere(site, "/gone.png", "2"), HOW)
    assert colour(copying.get(elsewhere(site), HOW)) == (1, 0, 0)


def test_what_is_no_picture_is_fetched_once(copying: Copies, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.put("/a.png", b"<html>")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(ImageError):
                copying.get(elsewhere(site), HOW)
    assert site.paths() == ["/a.png"] and "a.png" in caplog.text
    assert list(copying.folder.iterdir()) == []


def test_a_huge_one_is_left_out(tmp_path: Path, site: Site) -> None:
    copying = Copies(tmp_path / "copies", 8.0, fetch_mb=1)
    site.put("/a.png", bytes(1_000_001))
    with pytest.raises(NotFoundError):
        copying.get(elsewhere(site), HOW)
    assert list(copying.folder.iterdir()) == []


def test_a_full_disk_is_no_fault_of_the_server(copying: Copies, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("/a.png", file_of("red"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(copies.outgoing, "download", full)
        with pytest.raises(NotFoundError):
            copying.get(elsewhere(site), HOW)
    assert colour(copying.get(elsewhere(site), HOW)) == (1, 0, 0)
