"""Links for phones: for the first browser that opens one, for ten minutes, and what goes over them stays that long."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from engines.errors import ImageError, LinkEnded
from webui.frame import links as module
from webui.frame.links import LINK_S, Links


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def links(tmp_path: Path, clock: Clock) -> Links:
    return Links(tmp_path / "links", clock)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "outputs_1.png"
    path.write_bytes(b"a picture")
    return path


def on_disk(links: Links) -> list[str]:
    return sorted(path.name for path in links.folder.rglob("*") if path.is_file())


def test_the_first_browser_has_it_and_no_other(links: Links, picture: Path) -> None:
    code = links.make("take", "anna", picture)
    link, browser = links.open("take", code, "")
    assert browser and link.picture and link.picture.read_bytes() == b"a picture"
    assert links.open("take", code, browser) == (link, browser), "it may load it again"
    for other in ("", "x", browser[:-1], "ß"):
        with pytest.raises(LinkEnded):
            links.open("take", code, other)


def test_codes_are_not_guessed_and_not_for_the_other_way(links: Links, picture: Path) -> None:
    code, other = links.make("take", "anna", picture), links.make("take", "anna", picture)
    assert code != other and len(code) >= 16
    for direction, wrong in (("send", code), ("take", code[:-1]), ("take", "")):
        with pytest.raises(LinkEnded):
            links.open(direction, wrong, "")  # type: ignore[arg-type]


def test_ten_minutes_and_nothing_is_left(links: Links, picture: Path, clock: Clock) -> None:
    code = links.make("take", "anna", picture)
    _, browser = links.open("take", code, "")
    clock.now = LINK_S
    links.open("take", code, browser)
    clock.now += 1
    with pytest.raises(LinkEnded):
        links.open("take", code, browser)
    links.make("send", "bert")
    assert on_disk(links) == []


def test_what_a_phone_takes_away_outlives_the_visit_and_nothing_else_does(links: Links, picture: Path) -> None:
    taken, unopened, sent = (links.make(way, "anna", picture) for way in ("take", "take", "send"))
    others = links.make("send", "bert")
    _, browser = links.open("take", taken, "")
    links.receive(sent, io.BytesIO(b"a photo"), "a.jpg")
    links.receive(others, io.BytesIO(b"another"), "b.jpg")
    links.forget("anna")
    picture.unlink()
    link, _ = links.open("take", taken, browser)
    assert link.picture and link.picture.read_bytes() == b"a picture"
    for direction, gone in (("take", unopened), ("send", sent)):
        with pytest.raises(LinkEnded):
            links.look(direction, gone)  # type: ignore[arg-type]
    assert len(on_disk(links)) == 2, "what is being taken, and the other visitor's"


def test_a_photo_is_received_and_may_be_another_one(links: Links) -> None:
    code = links.make("send", "anna")
    assert links.look("send", code).picture is None
    links.receive(code, io.BytesIO(b"first"), "../../IMG 1.heic")
    links.receive(code, io.BytesIO(b"second"), "b.jpg")
    link = links.look("send", code)
    assert link.picture and link.picture.read_bytes() == b"second" and link.name == "b.jpg"
    with pytest.raises(ImageError):
        links.receive(code, io.BytesIO(b""), "empty.jpg")
    with pytest.raises(LinkEnded):
        links.receive("nothing", io.BytesIO(b"x"), "a.jpg")


def test_a_photo_that_comes_too_late_is_not_left_lying(links: Links) -> None:
    code = links.make("send", "anna")

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            links.forget("anna")
            return super().read(size)

    with pytest.raises(LinkEnded):
        links.receive(code, Slow(b"a photo"), "a.jpg")
    assert on_disk(links) == []


def test_there_are_not_endlessly_many(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINKS", 3)
    codes = [links.make("send", "anna") for _ in range(5)]
    for code in codes[:2]:
        with pytest.raises(LinkEnded):
            links.look("send", code)
    for code in codes[2:]:
        links.look("send", code)
