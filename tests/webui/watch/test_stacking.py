"""Results that go onto stacks in immich: once each, beside their originals alone, and with nothing waiting for it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.immich import Library, Stored, asset_id, served
from tests.support.inboxes import PACE, House, checksum, photo, restored
from webui.watch.stacking import MOST_TRIES, in_a_thread

ORIGINAL, OTHER = photo(1, "PNG"), photo(2, "PNG")
LONG_S = 5 * 3600.0


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def library() -> Iterator[Library]:
    """With one original in it."""
    library = Library()
    library.add(Stored("original", sha1=sha1(ORIGINAL)))
    with served(library):
        yield library


@pytest.fixture
def house(tmp_path: Path, library: Library) -> Iterator[House]:
    opened = House(tmp_path, immich=library.url)
    yield opened
    opened.close()


def later(house: House, rounds: int = 4) -> None:
    for _ in range(rounds):
        house.pass_s(PACE.again_s)


def stacks(library: Library) -> list[list[str]]:
    """What is stacked, by the checksums."""
    return [[library.assets[asset].sha1 for asset in stack] for stack in library.stacks]


def test_a_result_is_stacked_onto_its_original(house: House, library: Library) -> None:
    house.put('2004/照片 "1".png', ORIGINAL, mtime_s=1_000_000_000.5)
    house.until_done()
    later(house)
    assert stacks(library) == [[sha1(restored(ORIGINAL)), sha1(ORIGINAL)]]
    assert library.uploads == [sha1(restored(ORIGINAL))]
    (uploaded,) = (stored for stored in library.assets.values() if stored.name != "original")
    assert uploaded.data == restored(ORIGINAL) and uploaded.name.startswith('照片 "1".png')
    assert uploaded.taken == "2001-09-09T01:46:40.500Z"
    assert house.report() == ""


def test_what_is_not_in_immich_stays_out_of_it_and_the_report_says_so_once(house: House, library: Library) -> None:
    house.put("a.png", OTHER)
    house.put("b.png", photo(3, "PNG"))
    house.until_done()
    later(house)
    assert library.uploads == [] and library.stacks == []
    assert len(house.results()) == 2
    assert house.report().count("immich") == 2 and "2 张" in house.report() and "失败" not in house.report()
    asked = len(library.asked)
    later(house)
    assert len(library.asked) == asked, "immich is not asked again and again"


def test_one_that_is_absent_is_asked_for_again_when_its_photo_changes(house: House, library: Library) -> None:
    house.put("a.png", OTHER)
    house.until_done()
    later(house)
    library.add(Stored("late", sha1=sha1(OTHER)))
    house.put("a.png", OTHER, mtime_s=99)
    house.until_done()
    later(house)
    assert stacks(library) == [[sha1(restored(OTHER)), sha1(OTHER)]] and house.report() == ""


def test_an_original_in_the_trash_is_none(house: House, library: Library) -> None:
    library.assets[asset_id("original")].trashed = True
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house)
    assert library.uploads == [] and "immich" in house.report()


def test_a_result_in_the_trash_is_not_brought_back(house: House, library: Library) -> None:
    library.add(Stored("thrown away", sha1=sha1(restored(ORIGINAL)), trashed=True))
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house)
    assert library.uploads == [] and library.stacks == []


def test_a_result_that_is_there_is_stacked_and_not_uploaded(house: House, library: Library) -> None:
    """As when the power went between the two."""
    library.add(Stored("result", sha1=sha1(restored(ORIGINAL))))
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house)
    assert library.uploads == [] and not any(asked == "POST /api/assets" for asked in library.asked)
    assert stacks(library) == [[sha1(restored(ORIGINAL)), sha1(ORIGINAL)]]


def test_an_upload_that_is_answered_as_a_duplicate_counts(
    house: House, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has uploaded the very bytes meanwhile."""
    library.add(Stored("result", sha1=sha1(restored(ORIGINAL))))
    assert house.watcher.stacking is not None
    immich = type(house.watcher.stacking.immich)
    present = immich.present
    monkeypatch.setattr(
        immich, "present", lambda self, wanted: {k: v for k, v in present(self, wanted).items() if k == "original"}
    )
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house)
    assert library.asked.count("POST /api/assets") == 1 and library.uploads == []
    assert stacks(library) == [[sha1(restored(ORIGINAL)), sha1(ORIGINAL)]]


def test_a_photo_that_is_renamed_or_copied_is_uploaded_once(house: House, library: Library) -> None:
    first = house.put("a.png", ORIGINAL)
    house.put("copy.png", ORIGINAL)
    house.until_done()
    first.rename(house.inbox / "renamed.png")
    house.until_done()
    house.restart()
    house.until_done()
    later(house)
    assert library.uploads == [sha1(restored(ORIGINAL))] and len(library.stacks) == 1


def test_an_immich_that_is_off_blocks_no_restoring_and_misses_nothing(tmp_path: Path) -> None:
    library = Library()
    library.add(Stored("original", sha1=sha1(ORIGINAL)))
    with served(library):
        pass
    house = House(tmp_path, immich=library.url)
    house.put("a.png", ORIGINAL)
    house.put("b.png", OTHER)
    house.until_done()
    assert len(house.results()) == 2 and house.report() == ""
    for _ in range(20):  # hours later
        house.pass_s(1800)
    house.restart()
    with served(library, int(library.url.rpartition(":")[2])):
        later(house)
        assert stacks(library) == [[sha1(restored(ORIGINAL)), sha1(ORIGINAL)]]
    house.close()


def test_while_immich_is_off_it_is_asked_once_in_a_while(house: House, library: Library) -> None:
    library.failing["/api/assets"] = [401] * 1000
    for number in range(1, 9):
        house.put(f"{number}.png", photo(number, "PNG"))
    house.until_done()
    house.pass_s(PACE.again_s)
    before = len(library.asked)
    for _ in range(10):
        house.pass_s(PACE.again_s / 10)
    assert len(library.asked) - before <= 2


def test_a_wrong_key_is_said_once_and_shown_never(
    house: House, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    library.failing["/api/assets"] = [401] * 1000
    with caplog.at_level(logging.WARNING):
        house.put("a.png", ORIGINAL)
        house.until_done()
        later(house, 20)
    said = [record.getMessage() for record in caplog.records if "immich" in record.getMessage()]
    assert len(said) == 1 and "401" in said[0] and house.settings.immich_key not in caplog.text
    library.failing.clear()
    later(house)
    assert len(library.stacks) == 1


@pytest.mark.parametrize("path", ["/api/assets", "/api/stacks"])
@pytest.mark.parametrize("status", [500, 503, 429, 404, 400])
def test_one_that_fails_is_tried_again_and_stops_no_other(
    house: House, library: Library, path: str, status: int
) -> None:
    library.add(Stored("other", sha1=sha1(OTHER)))
    library.failing[path] = [status]
    house.put("a.png", ORIGINAL)
    house.put("b.png", OTHER)
    house.until_done()
    house.pass_s(PACE.poll_s)
    later(house, 6)
    assert sorted(stacks(library)) == sorted([sha1(restored(data)), sha1(data)] for data in (ORIGINAL, OTHER))
    assert len(library.uploads) == 2 and house.report() == ""


def test_what_immich_never_takes_is_in_the_report_in_the_end(house: House, library: Library) -> None:
    library.failing["/api/stacks"] = [400] * MOST_TRIES
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house, 40)
    assert house.report().count("a.png") == 1 and "400" in house.report() and "a.png" in house.results()
    assert library.failing["/api/stacks"] == [] and library.stacks == []
    house.put("a.png", ORIGINAL, mtime_s=99)
    house.until_done()
    later(house)
    assert len(library.stacks) == 1 and len(library.uploads) == 1 and house.report() == ""


def test_it_is_led_to_no_other_server(house: House, library: Library) -> None:
    with served(Library()) as other:
        library.leads["/api"] = other.url + "/api/x"
        house.put("a.png", ORIGINAL)
        house.until_done()
        later(house)
        assert other.asked == []
    library.leads.clear()
    house.pass_s(LONG_S)
    later(house)
    assert len(library.stacks) == 1


def test_what_somebody_changed_or_took_away_is_not_uploaded(tmp_path: Path) -> None:
    library = Library()
    for number in (1, 2):
        library.add(Stored(f"{number}", sha1=sha1(photo(number, "PNG"))))
    with served(library):
        pass
    house = House(tmp_path, immich=library.url)
    house.put("a.png", photo(1, "PNG"))
    house.put("b.png", photo(2, "PNG"))
    house.until_done()
    (house.outbox / "a.png").write_bytes(b"changed")
    (house.outbox / "b.png").unlink()
    with served(library, int(library.url.rpartition(":")[2])):
        house.pass_s(LONG_S)
        later(house)
        assert library.uploads == [] and house.ledger.to_stack(9e9 + LONG_S) is None
    house.close()


def test_an_outbox_that_is_away_is_waited_for(tmp_path: Path) -> None:
    library = Library()
    library.add(Stored("original", sha1=sha1(ORIGINAL)))
    with served(library):
        pass
    house = House(tmp_path, immich=library.url)
    house.put("a.png", ORIGINAL)
    house.until_done()
    away = house.outbox.rename(house.outbox.with_name("away"))
    with served(library, int(library.url.rpartition(":")[2])):
        assert house.watcher.stacking is not None
        for _ in range(3):
            house.hands.now_s += LONG_S
            house.watcher.stacking.step()
        assert library.uploads == []
        away.rename(house.outbox)
        house.pass_s(LONG_S)
        later(house)
        assert len(library.stacks) == 1
    house.close()


def test_a_slow_immich_keeps_no_photo_waiting(house: House, library: Library) -> None:
    assert house.watcher.stacking is not None
    house.watcher.stacking.begin = in_a_thread
    library.gate = threading.Event()
    house.put("a.png", ORIGINAL)
    house.until_done()
    assert house.watcher.stacking.is_busy()
    house.put("b.png", OTHER)
    house.until_done()
    assert len(house.results()) == 2 and library.stacks == []
    thread = next(thread for thread in threading.enumerate() if thread.name == "stacking")
    library.gate.set()
    thread.join(60)
    later(house)
    assert stacks(library)[0] == [sha1(restored(ORIGINAL)), sha1(ORIGINAL)]


def test_without_the_setting_immich_is_left_alone(tmp_path: Path, library: Library) -> None:
    house = House(tmp_path)
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house)
    assert library.asked == [] and house.watcher.stacking is None
    assert house.ledger.to_stack(9e9) is None
    house.close()


def test_a_ledger_of_before_is_taken_over(tmp_path: Path, library: Library) -> None:
    """What was laid down before the setting was there is not uploaded; what comes is."""
    before = House(tmp_path)
    before.put("old.png", OTHER)
    before.until_done()
    before.ledger._db.execute("DROP TABLE stacking")
    before.close()
    library.add(Stored("other", sha1=sha1(OTHER)))
    house = House(tmp_path, immich=library.url, hands=before.hands)
    house.put("a.png", ORIGINAL)
    house.until_done()
    later(house)
    assert stacks(library) == [[sha1(restored(ORIGINAL)), sha1(ORIGINAL)]]
    assert house.jobs() == {checksum(OTHER): 1, checksum(ORIGINAL): 1}
    house.close()
