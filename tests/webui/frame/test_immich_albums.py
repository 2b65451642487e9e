"""Albums of immich on the wall: those that were asked for and nothing else, whatever immich answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.jobs.sqlite_queue import SqliteQueue
from tests.support.immich import KEY, Library, Stored, asset_id, served
from webui.albums import folders
from webui.albums.folders import FOLDER_S
from webui.frame.immich_albums import ImmichAlbums
from webui.frame.sources import MOST_LISTINGS, Sources
from webui.immich import Immich


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def library() -> Iterator[Library]:
    library = Library()
    library.add(Stored("sea", b"sea", taken="2026-03-01T00:00:00.000Z"), "Holidays")
    library.add(Stored("hill", b"hill", taken="2026-04-01T00:00:00.000Z", favourite=True), "Holidays", "Family")
    library.add(Stored("film", b"film", kind="VIDEO", favourite=True), "Holidays")
    library.add(Stored("old", b"old", trashed=True, favourite=True), "Holidays")
    library.add(Stored("new, without a preview"), "Holidays")
    library.add(Stored("passport", b"passport"))
    library.add(Stored("theirs", b"theirs", favourite=True, of_partner=True))
    library.add(Stored("cake", b"cake"), "Birthday")
    library.shared.add(asset_id("album Birthday"))
    with served(library):
        yield library


def opened(tmp_path: Path, library: Library, clock: Clock, key: str = KEY) -> Sources:
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    return Sources(queue, b"secret", {}, clock, [ImmichAlbums(Immich(library.url, key), clock)])


@pytest.fixture
def albums(tmp_path: Path, library: Library, clock: Clock) -> Iterator[Sources]:
    made_for_it = opened(tmp_path, library, clock)
    yield made_for_it
    made_for_it.queue.close()  # type: ignore[attr-defined]


def names(albums: Sources, show: str) -> list[str]:
    by_id = {asset_id(name): name for name in ("sea", "hill", "film", "old", "passport", "theirs", "cake")}
    return [by_id[shown.path.name] for shown in albums.listing(albums.parse(show)).pictures.values()]


def test_an_album_by_its_name_or_id_newest_first(albums: Sources) -> None:
    assert names(albums, "immich:Holidays") == ["hill", "sea"]
    assert names(albums, "immich:" + asset_id("album Holidays")) == ["hill", "sea"]
    assert names(albums, "immich:Family") == ["hill"]
    assert sorted(names(albums, "immich:Family,immich:Holidays")) == ["hill", "sea"]  # each once
    assert names(albums, "immich:Birthday") == ["cake"]  # that somebody shares with this one


def test_without_an_album_it_is_what_is_marked_as_a_favourite(albums: Sources) -> None:
    assert names(albums, "immich") == ["hill"]  # not what a partner has marked


@pytest.mark.parametrize(
    "show", ["immich:holidays", "immich:Holi", "immich:*", "immich: ", "immich:" + asset_id("sea")]
)
def test_an_album_that_is_none_shows_nothing(albums: Sources, show: str) -> None:
    assert albums.listing(("immich:" + show.removeprefix("immich:"),)).pictures == {}


def test_which_albums_there_are_is_not_said(albums: Sources) -> None:
    albums.listing(("immich:Holidays",))
    with pytest.raises(Exception, match="immich:ALBUM") as refusal:
        albums.parse("immich:")
    assert "Holidays" not in str(refusal.value)


def test_a_picture_of_another_album_is_not_sent(albums: Sources) -> None:
    (hill,) = albums.listing(("immich:Family",)).pictures
    assert albums.picture(("immich:Family",), hill).path.name == asset_id("hill")
    (cake,) = albums.listing(("immich:Birthday",)).pictures
    with pytest.raises(Exception, match="picture"):
        albums.picture(("immich:Family", "immich"), cake)


def test_an_immich_without_the_filter_shows_nothing(library: Library, albums: Sources) -> None:
    """Version 1 passes over what it does not know, and would answer with all pictures of the house."""
    library.version = 1
    assert names(albums, "immich:Family") == []
    assert not any("search" in path for path in library.asked)


def test_pages_are_put_together(library: Library, albums: Sources) -> None:
    for number in range(12):
        library.add(Stored(f"{number}", b"x"), "Many")
    library.page = 5
    assert len(albums.listing(("immich:Many",)).pictures) == 12


def test_an_album_that_is_gone_leaves_the_wall(library: Library, albums: Sources, clock: Clock) -> None:
    assert names(albums, "immich:Family") == ["hill"]
    del library.albums[asset_id("album Family")]
    clock.now += FOLDER_S
    assert names(albums, "immich:Family") == []


@pytest.mark.parametrize("path", ["/api/server", "/api/albums", "/api/search"])
def test_an_immich_that_is_away_empties_no_wall(library: Library, albums: Sources, clock: Clock, path: str) -> None:
    assert names(albums, "immich:Family") == ["hill"]
    library.failing[path] = [500]
    clock.now += FOLDER_S
    assert names(albums, "immich:Family") == ["hill"]
    library.leads[path] = "https://elsewhere.example/"
    clock.now += FOLDER_S
    assert names(albums, "immich:Family") == ["hill"]
    library.leads.clear()
    library.albums[asset_id("album Family")][1].append(asset_id("sea"))
    clock.now += FOLDER_S
    assert names(albums, "immich:Family") == ["hill", "sea"]


def test_one_that_is_off_empties_no_wall(tmp_path: Path, clock: Clock) -> None:
    library = Library()
    library.add(Stored("sea", b"sea"), "Family")
    with served(library):
        albums = opened(tmp_path, library, clock)
        assert names(albums, "immich:Family") == ["sea"]
    clock.now += FOLDER_S
    assert names(albums, "immich:Family") == ["sea"]


def test_a_key_that_is_refused_shows_nothing_any_more(
    library: Library, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    albums = opened(tmp_path, library, clock, key="not the key")
    with caplog.at_level(logging.WARNING):
        assert names(albums, "immich:Family") == []
    assert "STUDIO_IMMICH_KEY" in caplog.text and "not the key" not in caplog.text


def test_a_key_that_is_taken_back_takes_its_pictures_with_it(library: Library, albums: Sources, clock: Clock) -> None:
    assert names(albums, "immich:Family") == ["hill"]
    library.failing["/api/albums"] = [401]
    clock.now += FOLDER_S
    assert names(albums, "immich:Family") == []


def test_one_that_is_slow_keeps_nobody_waiting(
    library: Library, albums: Sources, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(albums, "immich:Family") == ["hill"]
    library.gate = threading.Event()
    monkeypatch.setattr(folders, "PATIENCE_S", 0.01)
    before = len(library.asked)
    clock.now += FOLDER_S
    for _ in range(5):
        assert names(albums, "immich:Family") == ["hill"]
        clock.now += FOLDER_S
    library.gate.set()
    assert len(library.asked) - before <= 4  # one reading


def test_names_of_albums_that_are_none_cost_nothing(library: Library, albums: Sources) -> None:
    assert names(albums, "immich:Family") == ["hill"]
    before = len(library.asked)
    for number in range(3 * MOST_LISTINGS):
        albums.listing((f"immich:{number}",))
    assert len(library.asked) == before and len(albums._remote) <= MOST_LISTINGS + 1
    assert names(albums, "immich:Family") == ["hill"] and len(library.asked) == before  # it is still listed


def test_what_matters_is_between_the_faces(library: Library, albums: Sources) -> None:
    faces = [
        {"boundingBoxX1": x, "boundingBoxX2": x + 100, "boundingBoxY1": 100, "boundingBoxY2": 300, "imageWidth": 1000,
         "imageHeight": 500} for x in (100, 500)
    ]  # fmt: skip
    library.add(Stored("two", b"two", people=[{"faces": [face]} for face in faces]), "Two")
    library.add(Stored("odd", b"odd", people=[{"faces": [{**faces[0], "imageWidth": 0}]}]), "Odd")
    (two,) = albums.listing(("immich:Two",)).pictures.values()
    assert two.focus == pytest.approx((0.35, 0.4))
    (odd,) = albums.listing(("immich:Odd",)).pictures.values()
    assert odd.focus is None


def test_the_address_may_end_as_one_likes(library: Library, tmp_path: Path, clock: Clock) -> None:
    plain = library.url
    for ending in ("", "/", "/api", "/api/"):
        assert Immich(plain + ending, KEY).albums()
