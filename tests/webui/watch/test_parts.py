"""The parts of the watch folder by themselves: listings, ends of files, the outbox, the ledger, the day's sheet."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engines.errors import StorageError
from engines.settings import Settings
from tests.support.inboxes import START_S, House, photo
from webui.backup.restore import restore
from webui.backup.write import write
from webui.watch import contact_sheet, outbox, report, scan, watcher
from webui.watch.inbox import Notices, Pace
from webui.watch.ledger import DATABASE, Content, Ledger, Pair, Photo, State
from webui.watch.outbox import Outbox, OutboxAway
from webui.watch.report import Failure
from webui.watch.scan import Settling


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


# ---- scan


def test_a_listing_says_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "a.JPG").write_bytes(b"123")
    os.utime(tmp_path / "x" / "y" / "a.JPG", ns=(7, 8))
    assert scan.listing(tmp_path) == scan.Listing({"x/y/a.JPG": (3, 8)})
    assert scan.listing(tmp_path, [tmp_path / "x"]).photos == {}
    with pytest.raises(OSError):
        scan.listing(tmp_path / "nowhere")


def test_a_file_settles_by_the_clock_of_who_looks() -> None:
    settling = Settling()
    lasted = [
        {path: for_s for path, _, for_s in settling.unchanged(photos, now_s)}
        for now_s, photos in ((0, {"a": (1, 9)}), (4, {"a": (1, 9), "b": (2, 9)}), (7, {"a": (2, 9), "b": (2, 9)}),
                              (9, {"b": (2, 9)}), (12, {"a": (2, 9), "b": (2, 9)}))
    ]  # fmt: skip
    assert lasted == [{"a": 0}, {"a": 4, "b": 0}, {"a": 0, "b": 3}, {"b": 5}, {"a": 0, "b": 8}]


# ---- outbox


@pytest.mark.parametrize(
    ("path", "suffix", "name"),
    [
        ("x/a.JPG", ".jpg", "x/a.JPG"),
        ("a.jpeg", ".jpg", "a.jpeg"),
        ("a.png", ".png", "a.png"),
        ("x/a.heic", ".jpg", "x/a.heic.jpg"),
        ("a.png", ".jpg", "a.png.jpg"),
    ],
)
def test_a_result_is_called_what_it_is(path: str, suffix: str, name: str) -> None:
    assert outbox.name_of(path, suffix) == name


def test_names_end_where_file_systems_end_them() -> None:
    names = outbox._names(outbox.PurePosixPath("x") / ("长" * 84 + ".jpg"))
    next(names)
    for number in (2, 3):
        name = next(names)
        assert len(name.name.encode()) <= 255 and name.name.endswith(f" ({number}).jpg")


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    (tmp_path / "inbox").mkdir()
    opened = Outbox(tmp_path / "restored", tmp_path / "inbox")
    assert opened.open("") == "beside"
    return opened


def test_results_are_as_open_as_their_originals(box: Outbox, tmp_path: Path) -> None:
    """The program writes for itself alone; what it lays into a share others are to see."""
    (box.inbox / "x").mkdir()
    (box.inbox / "x" / "a.png").write_bytes(b"1")
    for path, mode in ((box.inbox, 0o755), (box.inbox / "x", 0o2775), (box.inbox / "x" / "a.png", 0o664)):
        path.chmod(mode)
    (source := tmp_path / "result.png").write_bytes(b"2")
    before = os.umask(0o077)
    try:
        box.lay(source, Photo("x/a.png", (1, 7), "0" * 64))
        (box.folder / "x").chmod(0o2775)
        (box.inbox / "x" / "y").mkdir()
        (box.inbox / "x" / "y").chmod(0o775)
        box.lay(source, Photo("x/y/a.png", (1, 7), "1" * 64))
        box.lay(source, Photo("gone/b.png", (1, 7), "0" * 64))
    finally:
        os.umask(before)
    assert (box.folder / "x" / "y").stat().st_mode & 0o7777 == 0o2775, "as its folder lets its group be"
    modes = {name: (box.folder / name).stat().st_mode & 0o777 for name in ("x", "x/a.png", "gone", "gone/b.png")}
    assert modes == {"x": 0o775, "x/a.png": 0o664, "gone": 0o755, "gone/b.png": 0o644}


def test_where_there_are_no_links_a_result_is_laid_down_all_the_same(
    box: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*given: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    (source := tmp_path / "result.png").write_bytes(b"2")
    (box.folder / "a.png").write_bytes(b"somebody's")
    assert box.lay(source, Photo("a.png", (1, 7), "0" * 64))[0] == "a (2).png"
    assert sorted(path.name for path in box.folder.iterdir()) == [scan.MARK, "a (2).png", "a.png"]


def test_what_a_crash_left_under_two_names_is_not_written_into(box: Outbox, tmp_path: Path) -> None:
    """Between the link and the end of the other name: the next try must not write through it."""
    (source := tmp_path / "result.png").write_bytes(b"2")
    first = Photo("a.png", (1, 7), "0" * 64)
    box.lay(source, first)
    os.link(box.folder / "a.png", box.folder / f".watch-{'0' * 32}.tmp")
    source.write_bytes(b"longer than it was")
    assert box.lay(source, first)[0] == "a (2).png"
    assert (box.folder / "a.png").read_bytes() == b"2"


def test_an_outbox_is_made_once_unless_it_lies_beside_an_inbox_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inbox").mkdir()
    opened = Outbox(tmp_path / "restored", tmp_path / "inbox")
    assert opened.open("") == "beside"
    for path in opened.folder.iterdir():
        path.unlink()
    with pytest.raises(OutboxAway):
        opened.open("apart")
    assert opened.open("beside") == "beside"
    (opened.folder / scan.MARK).unlink()
    monkeypatch.setattr(Outbox, "_where", lambda self, folder: "apart")
    with pytest.raises(OutboxAway):
        opened.open("beside")


def test_an_outbox_that_goes_away_in_between_is_not_made_by_what_is_laid_down(box: Outbox, tmp_path: Path) -> None:
    (source := tmp_path / "result.png").write_bytes(b"2")
    box.folder.rename(tmp_path / "away")
    for path in ("a.png", "x/y/a.png"):
        with pytest.raises(FileNotFoundError):
            box.lay(source, Photo(path, (1, 7), "0" * 64))
    with pytest.raises(FileNotFoundError):
        box.write("x/report.txt", b"")
    assert not box.folder.exists() and not box.is_there()


# ---- ledger


def test_a_damaged_ledger_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "watch.db"
    ledger = Ledger(path)
    ledger.note("a.jpg", (1, 2), "0" * 64)
    ledger.close()
    path.write_bytes(b"no database at all" * 100)
    again = Ledger(path)
    assert again.set_aside is not None and again.set_aside.read_bytes().startswith(b"no database") and not again.stamps
    again.close()


def test_photos_are_restored_once_more_without_a_ledger_and_their_results_are_recognised(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    house.close()
    (house.settings.state / DATABASE).write_bytes(b"gone" * 999)
    house.start()
    house.until_done()
    assert list(house.results()) == ["a.png"]


def test_a_backup_has_the_ledger_of_now(house: House, tmp_path: Path) -> None:
    """And what was restored then is not restored once more in the home that comes of it."""
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    write(house.settings, tmp_path / "backup.tar")  # while the ledger is open, and not all of it in one file
    house.close()
    shutil.rmtree(house.settings.home)
    restore(house.settings, tmp_path / "backup.tar")
    house.start()
    assert house.ledger.stamps.keys() == {"a.png"}
    house.until_done()
    assert house.jobs().total() == 1 and list(house.results()) == ["a.png"]


def test_a_ledger_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "watch.db").mkdir()
    with pytest.raises(StorageError):
        Ledger(tmp_path / "watch.db")


def test_what_the_ledger_cannot_write_it_says(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "watch.db")
    ledger._db.execute("PRAGMA query_only=1")
    with pytest.raises(StorageError):
        ledger.set_mark("x", "y")
    ledger._db.execute("PRAGMA query_only=0")
    ledger.close()
    with pytest.raises(StorageError):
        ledger.mark("x")
    assert sqlite3.connect(tmp_path / "watch.db").execute("SELECT COUNT(*) FROM mark").fetchone() == (0,)


# ---- report, sheet


def test_a_report_names_each_file_with_its_reason_in_both_languages() -> None:
    text = report.text(
        [
            Failure("b.jpg", "bad_image"),
            Failure("a\nb.jpg", key="watch_too_large", facts={"size_mb": 31, "limit_mb": 30}),
        ]
    )
    zh, en, *rest = text.splitlines()
    assert "2 张" in zh and "2 of them" in en and rest[1] == "a?b.jpg" and "31 MB" in rest[2] and "31 MB" in rest[3]
    assert report.text([]) == ""


def test_a_day_that_is_over_has_its_sheet(house: House) -> None:
    day = time.strftime("%Y-%m-%d", time.localtime(START_S))
    for number in range(3):
        house.put(f"{number}.png", photo(number, "PNG"))
    house.until_done()
    assert not (house.outbox / contact_sheet.FOLDER).exists()
    house.hands.now_s += 86400
    house.until_done()
    folder = house.outbox / contact_sheet.FOLDER
    assert sorted(path.name for path in folder.iterdir()) == [f"{day}.jpg", f"{day}.txt"]
    assert (folder / f"{day}.txt").read_text() == "1. 0.png\n2. 1.png\n3. 2.png\n"
    with Image.open(folder / f"{day}.jpg") as sheet:
        assert sheet.size == (1600, 220) and len(sheet.convert("RGB").getcolors(1 << 20) or ()) > 6
    before = (folder / f"{day}.jpg").stat().st_mtime_ns
    house.until_done()
    assert (folder / f"{day}.jpg").stat().st_mtime_ns == before, "once"


def test_many_photos_have_many_sheets() -> None:
    Image.new("RGB", (40, 30)).save(data := io.BytesIO(), "WEBP")
    pairs = [Pair("2026-11-30", f"{k}.jpg", data.getvalue() if k % 2 else b"", data.getvalue()) for k in range(40)]
    pages = contact_sheet.pages("2026-11-30", pairs)
    names = [page.name.rpartition("/")[2] for page in pages]
    assert names == ["2026-11-30.jpg", "2026-11-30-2.jpg", "2026-11-30.txt"]
    assert pages[2].data.decode().splitlines()[-1] == "40. 39.jpg"


# ---- the thread


def test_what_is_said_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    notices = Notices()
    for text in ("", "away", "away", "", "", "away"):
        notices.tell("inbox", text, "back")
    assert [record.getMessage() for record in caplog.records] == ["away", "back", "away"]


def test_without_an_inbox_nobody_watches(house: House) -> None:
    watcher.watch(house.queue, Settings(house.settings.home), threading.Event())


def test_it_watches_until_it_is_stopped_and_outlives_a_disk_that_refuses(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = Pace(poll_s=0.01, settle_s=0.02, look_s=0.01, again_s=0.01)
    refusals, real = iter(range(3)), Ledger.contents

    def contents(self: Ledger, state: State) -> list[Content]:
        if next(refusals, None) is not None:
            raise StorageError("full", why="full")
        return real(self, state)

    monkeypatch.setattr(Ledger, "contents", contents)
    house.put("a.png", photo(1, "PNG"))
    stopping = threading.Event()
    thread = threading.Thread(target=watcher.watch, args=(house.queue, house.settings, stopping, pace))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not house.results():
            assert time.monotonic() < deadline
            house.work()
            time.sleep(0.01)
    finally:
        stopping.set()
        thread.join(20)
    assert not thread.is_alive()
