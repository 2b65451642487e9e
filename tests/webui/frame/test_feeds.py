"""Feeds of pictures: what of them a frame may show, and that one which is away empties no wall."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import NotFoundError, OptionError
from engines.jobs.sqlite_queue import SqliteQueue
from tests.support.site import Site, served
from webui.frame.feeds import Feeds
from webui.frame.sources import AGAIN_S, FOLDER_S, Sources
from webui.outgoing import JSON_BYTES, Unanswered

FAR = "https://pictures.example/far.jpg"


@pytest.fixture
def site() -> Iterator[Site]:
    with served(Site()) as opened:
        yield opened


def urls(site: Site, listed: object) -> list[str]:
    address = site.put("/list.json", listed)
    pictures = Feeds({"all": address}).pictures("feed:all")
    assert all(picture.remote and picture.remote.own == address for picture in pictures)
    return [picture.remote.url.removeprefix(site.url) for picture in pictures if picture.remote]


def test_a_json_feed(site: Site) -> None:
    items = [
        {"id": "1", "image": "/a.jpg", "url": "/page.html"},
        {"id": "2", "attachments": [
            {"url": "/b.png", "mime_type": "image/png"}, {"url": "/song.mp3", "mime_type": "audio/mpeg"},
            {"url": "c.webp", "mime_type": "image/webp"},
        ]},
        {"id": "3", "image": "/d.jpg", "attachments": [{"url": "/d.jpg", "mime_type": "image/jpeg"}]},
        {"id": "4", "content_text": "words"},
    ]  # fmt: skip
    feed = {"version": "https://jsonfeed.org/version/1.1", "title": "x", "items": items}
    assert urls(site, feed) == ["/a.jpg", "/b.png", "/c.webp", "/d.jpg"]


def test_a_list_of_addresses_or_of_objects(site: Site) -> None:
    assert urls(site, ["/a.jpg", FAR]) == ["/a.jpg", FAR]
    assert urls(site, [{"url": "/a"}, {"image": "/b"}, {"src": "/c"}, {"title": "d"}]) == ["/a", "/b", "/c"]
    assert urls(site, []) == []


def test_what_may_not_be_fetched_is_left_out(site: Site) -> None:
    hostile = [
        "http://127.0.0.1:1/x", "http://192.168.1.1/x", "http://pictures.example/x", "file:///etc/passwd", "ftp://x/y",
        "https://me:secret@pictures.example/x", "http://[", "", " ", "/" + "x" * 5000, "javascript:alert(1)",
        "//[::1]/x",
    ]  # fmt: skip
    strange: list[Any] = [None, 7, [], {"url": None}, {"image": {"url": "/x"}}, {"url": 7}]
    assert urls(site, [*hostile, *strange, "/good.jpg"]) == ["/good.jpg"]
    items = [None, "x", {"image": 7}, {"attachments": 7}, {"attachments": [7, {"url": 7, "mime_type": "image/png"}]}]
    assert urls(site, {"items": [*items, {"image": "/good.jpg"}]}) == ["/good.jpg"]


def test_the_newest_first_and_those_without_a_date_in_their_order(site: Site) -> None:
    listed = [
        {"url": "/a"}, {"url": "/b", "date_published": "2026-01-01T00:00:00Z"}, {"url": "/c", "date_published": "soon"},
        {"url": "/d", "date_modified": "2026-02-01T00:00:00+01:00"},
    ]  # fmt: skip
    address = site.put("/list.json", listed)
    pictures = sorted(Feeds({"all": address}).pictures("feed:all"), key=lambda picture: -picture.since)
    assert [picture.path.name for picture in pictures] == ["d", "b", "a", "c"]


@pytest.mark.parametrize("body", [b"<html>", b'"text"', b"7", b"null", b"", b'{"items": 7}', b'{"photos": []}'])
def test_what_is_no_feed_is_no_empty_one(site: Site, body: bytes) -> None:
    with pytest.raises(Unanswered):
        Feeds({"all": site.put("/list.json", body)}).pictures("feed:all")


def test_one_that_is_too_large_is_not_read(site: Site) -> None:
    with pytest.raises(Unanswered, match="too large"):
        urls(site, json.dumps(["/a.jpg"]).encode() + b" " * JSON_BYTES)


# ---- as a source of the frame


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, site: Site, clock: Clock) -> Iterator[Sources]:
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    feeds = Feeds(
        {"ours": site.put("/ours.json", ["/a.jpg", "/b.jpg"]), "theirs": site.put("/theirs.json", ["/c.jpg"])}
    )
    yield Sources(queue, b"secret", {}, clock, [feeds])
    queue.close()


def names(opened: Sources, *wanted: str) -> list[str]:
    return [shown.path.name for shown in opened.listing(wanted).pictures.values()]


def test_a_feed_is_asked_for_by_its_name_alone(opened: Sources) -> None:
    assert names(opened, *opened.parse("feed:ours")) == ["a.jpg", "b.jpg"]
    assert sorted(names(opened, *opened.parse("feed:ours,feed:theirs,album"))) == ["a.jpg", "b.jpg", "c.jpg"]
    for wrong in ("feed:", "feed:others", "feed", "feed:ours,feed:others", "feed:http://127.0.0.1/"):
        with pytest.raises(OptionError) as refusal:
            opened.parse(wrong)
        assert "feed:ours" in str(refusal.value.facts)


def test_a_picture_of_another_feed_is_not_sent(opened: Sources) -> None:
    (picture_id,) = opened.listing(("feed:theirs",)).pictures
    opened.listing(("feed:ours",))
    with pytest.raises(NotFoundError):
        opened.picture(("feed:ours", "album"), picture_id)


@pytest.mark.parametrize("trouble", [{"status": 500}, {"status": 404}, {"body": b"<html>"}])
def test_a_feed_that_is_away_is_not_empty(opened: Sources, site: Site, clock: Clock, trouble: dict[str, Any]) -> None:
    assert names(opened, "feed:ours") == ["a.jpg", "b.jpg"]
    site.put("/ours.json", trouble.pop("body", b""), **trouble)
    clock.now += FOLDER_S
    assert names(opened, "feed:ours") == ["a.jpg", "b.jpg"]
    site.put("/ours.json", ["/b.jpg"])
    clock.now += FOLDER_S
    assert names(opened, "feed:ours") == ["b.jpg"]
    site.put("/ours.json", [])
    clock.now += FOLDER_S
    assert names(opened, "feed:ours") == []


def test_it_is_not_asked_for_every_question(opened: Sources, site: Site, clock: Clock) -> None:
    for _ in range(20):
        opened.listing(("feed:ours",))
        clock.now += FOLDER_S / 10
    assert site.paths() == ["/ours.json"] * 2


def test_frames_try_again_what_they_did_not_get(opened: Sources, clock: Clock) -> None:
    """A page leaves out what it did not get until the version changes."""
    first, near = opened.listing(("feed:ours",)).version, opened.listing(("album",)).version
    clock.now += AGAIN_S / 3
    assert opened.listing(("feed:ours",)).version == first
    clock.now += AGAIN_S
    assert opened.listing(("feed:ours",)).version != first
    assert opened.listing(("album",)).version == near
