"""Results that go onto stacks with their originals in immich: once each, later if it is away, and never in the way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.immich import Library, Stored, asset_id, served
from tests.support.inboxes import PACE, House, photo, restored
from webui.watch.stacking import MOST_TRIES, in_a_thread

A, B, C = (photo(number, "PNG") for number in (1, 2, 3))


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def library() -> Iterator[Library]:
    """With the original of A."""
    with served(Library()) as opened:
        opened.add(Stored("holiday.jpg", b"x", sha1(A)))
        yield opened


@pytest.fixture
def house(library: Library, tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path, immich=library.url)
    yield opened
    opened.close()


def on_top(library: Library) -> list[str]:
    """Return what is on top of each stack, by its bytes."""
    return [library.assets[stack[0]].sha1 for stack in library.stacks]


def later(house: House, times: int = 1) -> None:
    for _ in range(times):
        house.pass_s(PACE.again_s)


def test_a_result_is_uploaded_and_stacked_on_its_original(house: House, library: Library) -> None:
    house.put("2004/a.png", A, mtime_s=1_000_000_000)
    house.until_done()
    later(house, 3)
    assert library.uploads == [sha1(restored(A))] and on_top(library) == library.uploads
    assert library.stacks[0][1:] == [asset_id("holiday.jpg")]
    (uploaded,) = [stored for stored in library.assets.values() if stored.sha1 == sha1(restored(A))]
    assert uploaded.name.startswith("a.png") and uploaded.taken == "2001-09-09T01:46:40.000Z"
    assert house.report() == "" and house.results() == {"2004/a.png": restored(A)}


def test_without_an_original_there_nothing_is_done_and_it_is_said_once(house: House, library: Library) -> None:
    house.put("a.png", A)
    house.put("b.png", B)
    house.put("c.png", C)
    house.until_done()
    later(house, 6)
    assert library.uploads == [sha1(restored(A))]
    assert house.report().count("immich") == 2 and house.report().count("2") == 2, "in each language, how many"
    asked = len(library.asked)
    later(house, 3)
    assert len(library.asked) == asked


@pytest.mark.parametrize("which", ["original", "result"])
def test_what_is_in_the_trash_is_not_brought_back(house: House, library: Library, which: str) -> None:
    if which == "original":
        library.assets[asset_id("holiday.jpg")].trashed = True
    else:
        library.add(Stored("better.png", b"x", sha1(restored(A)), trashed=True))
    house.put("a.png", A)
    house.until_done()
    later(house, 3)
    assert library.uploads == [] and library.stacks == []


def test_what_is_there_already_is_not_uploaded_again(house: House, library: Library) -> None:
    there = library.add(Stored("better.png", b"x", sha1(restored(A))))
    house.put("a.png", A)
    house.until_done()
    later(house)
    assert library.uploads == [] and library.stacks == [[there, asset_id("holiday.jpg")]]


def test_immich_that_is_off_keeps_nothing_waiting_and_gets_it_later(tmp_path: Path) -> None:
    with served(Library()) as gone:
        port = int(gone.url.rpartition(":")[2])
    house = House(tmp_path, immich=gone.url)
    for name, data in (("a.png", A), ("b.png", B)):
        house.put(name, data)
    house.until_done()
    assert len(house.results()) == 2 and house.report() == ""
    later(house, 20)
    house.restart()
    library = Library()
    library.add(Stored("holiday.jpg", b"x", sha1(A)))
    with served(library, port):
        later(house, 6)
        assert library.uploads == [sha1(restored(A))] == on_top(library)
    house.close()


def test_a_wrong_key_is_one_line_and_not_for_ever(house: House, library: Library) -> None:
    library.failing["/api/assets"] = [401, 403, 401]
    house.put("a.png", A)
    house.until_done()
    later(house, 8)
    assert library.uploads == [sha1(restored(A))] == on_top(library), "the key was put right"
    assert house.report() == ""


def test_an_upload_whose_answer_is_lost_is_not_done_again(house: House, library: Library) -> None:
    library.failing["/api/stacks"] = [500, 502]
    house.put("a.png", A)
    house.until_done()
    later(house, 12)
    assert library.uploads == [sha1(restored(A))] == on_top(library)


def test_what_immich_refuses_is_said_and_the_others_go_on(house: House, library: Library) -> None:
    library.failing["/api/stacks"] = [400] * MOST_TRIES
    house.put("a.png", A)
    house.until_done()
    later(house, 1 << (MOST_TRIES + 1))
    assert "a.png" in house.report() and "400" in house.report() and library.stacks == []
    library.add(Stored("beach.jpg", b"x", sha1(B)))
    house.put("b.png", B)
    house.until_done()
    later(house, 2)
    assert on_top(library) == [sha1(restored(B))]


def test_a_result_that_somebody_took_away_or_changed_is_left_alone(library: Library, tmp_path: Path) -> None:
    library.add(Stored("beach.jpg", b"x", sha1(B)))
    library.failing["/api/assets"] = [503] * 99
    house = House(tmp_path, immich=library.url)
    house.put("a.png", A)
    house.put("b.png", B)
    house.until_done()
    (house.outbox / "a.png").unlink()
    (house.outbox / "b.png").write_bytes(b"painted over")
    library.failing.clear()
    later(house, 12)
    assert library.uploads == [] and library.stacks == []
    house.close()


def test_one_that_is_slow_is_not_waited_for(house: House, library: Library) -> None:
    assert house.watcher.stacking is not None
    house.watcher.stacking.begin = in_a_thread
    library.gate = threading.Event()
    house.put("a.png", A)
    house.until_done()
    house.put("b.png", B)
    house.until_done()
    assert len(house.results()) == 2 and library.uploads == []
    library.gate.set()
    for thread in threading.enumerate():
        if thread.name == "stacking":
            thread.join(30)
    house.pass_s(0.0)
    for thread in threading.enumerate():
        if thread.name == "stacking":
            thread.join(30)
    assert on_top(library) == [sha1(restored(A))]


def test_it_is_not_switched_on_by_itself(tmp_path: Path, library: Library) -> None:
    house = House(tmp_path)
    house.put("a.png", A)
    house.until_done()
    assert library.asked == [] and house.watcher.stacking is None
    house.close()
