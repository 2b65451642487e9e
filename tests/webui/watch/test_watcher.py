"""The watch folder, from the inbox to the outbox: with a real queue and ledger, and a clock that is turned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.jobs import Search
from engines.messages import Enhance, Failed
from tests.support.inboxes import PACE, START_S, House, broken, checksum, photo, restored
from webui.watch.intake import OWNER


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


def stamps(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_what_is_put_in_comes_out_restored(house: House) -> None:
    """Under its name, in its folder and with its time; the originals are untouched."""
    data = {"a.jpg": photo(1), "2004/Ännchen/婚礼 合影.JPG": photo(2), "c.png": photo(3, "PNG")}
    for number, (path, content) in enumerate(data.items()):
        house.put(path, content, mtime_s=1_000_000_000.123 + number)
    before = stamps(house.inbox)
    house.until_done()
    assert stamps(house.inbox) == before
    assert house.jobs() == {checksum(content): 1 for content in data.values()}
    assert house.results() == {
        "a.jpg.png": restored(data["a.jpg"]),
        "2004/Ännchen/婚礼 合影.JPG.png": restored(data["2004/Ännchen/婚礼 合影.JPG"]),
        "c.png": restored(data["c.png"]),
    }, "the worker here writes PNG, whatever it is asked for, and a PNG is never called a JPEG"
    times = [(house.outbox / path).stat().st_mtime for path in ("a.jpg.png", "c.png")]
    assert times == pytest.approx([1_000_000_000.123, 1_000_000_002.123])
    assert house.report() == ""


def test_it_asks_for_what_suits_the_photo(house: House) -> None:
    for name in ("a.jpg", "b.PNG", "c.webp", "d.heic"):
        house.put(name, b"\xff\xd8" + name.encode() + b"\xff\xd9")
    house.settle()
    requests = {job.request.name: job.request for job in house.queue.latest_of(OWNER, 9)}  # type: ignore[union-attr]
    formats = {name: request.format for name, request in requests.items() if isinstance(request, Enhance)}
    assert formats == {"a.jpg": "jpeg", "b.PNG": "png", "c.webp": "webp", "d.heic": "jpeg"}
    assert all(request.auto and request.keep_date for request in requests.values() if isinstance(request, Enhance))


def test_its_jobs_are_batches_and_in_nobodys_history(house: House) -> None:
    house.put("a.jpg", photo(1))
    house.settle()
    asked = house.queue.submit(Enhance("/x"), owner="somebody")
    assert house.queue.latest_of("somebody", 9)[0].id == asked
    job = house.queue.claim(0)
    assert job is not None and job.id == asked, "who waits at a page comes first"
    house.queue.publish(job, Failed("no_face", ""))
    house.work()
    assert house.queue.page(Search("somebody"), 9).jobs == () and house.queue.page(Search(None), 9).jobs == ()


def test_a_file_that_grows_is_not_opened(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, opened = photo(1) + bytes(5000), []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened.append(str(path)) or real(path, *rest, **more))
    for length in range(100, 4000, 300):
        house.put("a.jpg", whole[:length])
        house.pass_s(PACE.settle_s - 1)
    assert not [path for path in opened if path.endswith("a.jpg")] and not house.jobs()
    house.put("a.jpg", photo(1))
    house.until_done()
    assert house.jobs() == {checksum(photo(1)): 1}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_half_a_file_is_waited_for_however_long_its_writer_pauses(house: House, kind: str) -> None:
    name, data = f"a.{kind.lower()}", photo(1, kind)
    house.put(name, data[:-9])
    for _ in range(10):
        house.pass_s(PACE.settle_s)
    assert not house.jobs()
    house.put(name, data)
    house.until_done()
    assert house.jobs() == {checksum(data): 1}, "the half was never read"


def test_what_never_becomes_whole_is_tried_when_patience_ends(house: House) -> None:
    """A camera may have put something after the end of its JPEG."""
    data = photo(1) + b"SEFT of a telephone"
    house.put("a.jpg", data)
    house.settle()
    assert not house.jobs()
    house.pass_s(PACE.patient_s)
    house.until_done()
    assert house.results() == {"a.jpg.png": restored(data)}


def test_an_empty_file_is_waited_for_and_then_reported(house: House) -> None:
    house.put("a.jpg", b"")
    house.settle()
    assert house.report() == ""
    house.pass_s(PACE.patient_s)
    assert "a.jpg" in house.report() and "文件是空的" in house.report() and "The file is empty" in house.report()
    house.put("a.jpg", photo(1))
    house.until_done()
    assert house.report() == "" and list(house.results()) == ["a.jpg.png"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_changes_while_it_is_copied_is_not_submitted(
    house: House, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """Its writer pauses for longer than it takes to settle, and goes on just then; or another file takes its name."""
    target, real = house.put("a.jpg", photo(1)), os.fstat
    number = target.stat().st_ino

    def meanwhile(file: int) -> os.stat_result:
        """The file as it was when its copy began."""
        stat = real(file)
        if stat.st_ino == number and (house.settings.uploads).exists():
            monkeypatch.setattr(os, "fstat", real)
            if replaced:
                target.rename(house.inbox / "b.txt")
                house.put("a.jpg", photo(2))
            else:
                target.write_bytes(photo(1) + b"more")
        return stat

    house.pass_s(PACE.poll_s)
    monkeypatch.setattr(os, "fstat", meanwhile)
    house.pass_s(PACE.settle_s)
    assert os.fstat is real, "it was copied"
    assert not house.jobs() and not list(house.settings.uploads.iterdir())
    house.put("a.jpg", photo(3))
    house.until_done()
    assert house.jobs() == {checksum(photo(3)): 1}


def test_what_no_photo_is_called_is_left_alone(house: House) -> None:
    for name in (
        *(".DS_Store", "._a.jpg", ".hidden.jpg", "~a.jpg", "a.jpg.part", "a.jpg.crdownload", "a.tmp", "Thumbs.db"),
        *(
            "@eaDir/a.jpg",
            "x/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
            "#recycle/a.jpg",
            "#RECYCLE/b.jpg",
            "@Recycle/c.jpg",
        ),
        *(".Trash-1000/files/a.jpg", "$RECYCLE.BIN/a.jpg", "~tmp/a.jpg", "a.txt", "a.mp4"),
    ):
        house.put(name, photo(1))
    house.put("good.jpg", photo(2))
    house.until_done()
    assert list(house.results()) == ["good.jpg.png"] and house.report() == ""


def test_links_are_not_followed(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret" / "a.jpg"
    secret.parent.mkdir()
    secret.write_bytes(photo(1))
    (house.inbox / "link.jpg").symlink_to(secret)
    (house.inbox / "folder").symlink_to(secret.parent)
    (house.inbox / "circle").symlink_to(house.inbox)
    house.until_done()
    assert not house.jobs() and not house.results()


def test_an_outbox_inside_the_inbox_does_not_feed_it(tmp_path: Path) -> None:
    house = House(tmp_path, outbox_name="share/inbox/better")
    house.put("a.png", photo(1, "PNG"))
    for _ in range(3):
        house.until_done()
    assert house.results() == {"a.png": restored(photo(1, "PNG"))} and house.jobs().total() == 1
    house.close()


def test_an_outbox_that_is_reached_by_another_way_does_not_feed_it(tmp_path: Path) -> None:
    """A share may be mounted twice: that it is the same folder no path says, but its mark."""
    first = House(tmp_path)
    first.put("a.png", photo(1, "PNG"))
    first.until_done()
    first.outbox.rename(first.inbox / "restored")
    first.outbox.symlink_to(first.inbox / "restored")
    for _ in range(4):
        first.until_done()
    assert first.jobs().total() == 1
    first.close()


def test_a_photo_twice_is_restored_once(house: House) -> None:
    for path in ("a.png", "b.png", "x/c.png"):
        house.put(path, photo(1, "PNG"))
    house.until_done()
    house.put("later.png", photo(1, "PNG"))
    house.until_done()
    assert house.jobs() == {checksum(photo(1, "PNG")): 1}
    assert house.results() == dict.fromkeys(("a.png", "b.png", "later.png", "x/c.png"), restored(photo(1, "PNG")))


def test_a_photo_that_is_renamed_is_laid_down_again_without_a_job(house: House) -> None:
    """What lies in the outbox stays: nothing is deleted there."""
    target = house.put("a.png", photo(1, "PNG"))
    house.until_done()
    (house.inbox / "2004").mkdir()
    target.rename(house.inbox / "2004" / "b.png")
    house.until_done()
    assert house.jobs().total() == 1 and sorted(house.results()) == ["2004/b.png", "a.png"]


def test_a_photo_that_is_renamed_while_it_is_restored_is_laid_down_under_its_new_name_alone(house: House) -> None:
    target = house.put("a.png", photo(1, "PNG"))
    house.settle()
    target.rename(house.inbox / "b.png")
    house.pass_s(PACE.poll_s)
    house.work()
    house.until_done()
    assert house.jobs().total() == 1 and sorted(house.results()) == ["b.png"]


def test_a_photo_that_was_taken_away_meanwhile_is_laid_down_all_the_same(house: House) -> None:
    house.put("other.png", photo(2, "PNG"))
    target = house.put("a.png", photo(1, "PNG"))
    house.settle()
    target.unlink()
    house.until_done()
    assert sorted(house.results()) == ["a.png", "other.png"]


def test_a_renamed_photo_is_served_from_the_outbox_when_the_picture_is_gone(house: House) -> None:
    target = house.put("a.png", photo(1, "PNG"))
    house.until_done()
    shutil.rmtree(house.queue.folder)
    house.queue.folder.mkdir()
    target.rename(house.inbox / "b.png")
    house.until_done()
    assert house.jobs().total() == 1 and house.results()["b.png"] == restored(photo(1, "PNG"))
    (house.outbox / "a.png").unlink()
    (house.outbox / "b.png").write_bytes(b"edited by its owner")
    (house.inbox / "b.png").rename(house.inbox / "c.png")
    house.until_done()
    assert house.jobs().total() == 2, "nothing of it is left: it is restored once more"
    assert house.results() == {"b.png": b"edited by its owner", "c.png": restored(photo(1, "PNG"))}


def test_a_photo_that_is_replaced_replaces_its_result(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    house.put("a.png", photo(2, "PNG"))
    house.until_done()
    assert house.results() == {"a.png": restored(photo(2, "PNG"))} and house.jobs().total() == 2


def test_a_photo_that_is_replaced_while_it_is_restored_has_its_last_result(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.settle()
    house.put("a.png", photo(2, "PNG"))
    house.until_done()
    assert house.results() == {"a.png": restored(photo(2, "PNG"))}


def test_a_photo_that_was_only_touched_is_not_restored_again(house: House) -> None:
    target = house.put("a.png", photo(1, "PNG"))
    house.until_done()
    os.utime(target, ns=(5, 5 * 10**9))
    house.until_done()
    assert house.jobs().total() == 1
    assert (house.outbox / "a.png").stat().st_mtime_ns == 5 * 10**9


def test_what_is_not_ours_is_never_written_over(house: House) -> None:
    house.outbox.mkdir()
    (house.outbox / "a.png").write_bytes(b"somebody's")
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    assert house.results() == {"a.png": b"somebody's", "a (2).png": restored(photo(1, "PNG"))}
    house.put("a.png", photo(2, "PNG"))
    house.until_done()
    assert house.results() == {"a.png": b"somebody's", "a (2).png": restored(photo(2, "PNG"))}


def test_names_that_differ_in_their_kind_do_not_meet(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.put("a.jpg", photo(2))
    house.put("a.webp", photo(3, "WEBP"))
    house.until_done()
    assert {name: data for name, data in house.results().items()} == {
        "a.png": restored(photo(1, "PNG")),
        "a.jpg.png": restored(photo(2)),
        "a.webp.png": restored(photo(3, "WEBP")),
    }


def test_a_result_that_its_owner_has_changed_stays(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    (house.outbox / "a.png").write_bytes(b"retouched")
    house.put("a.png", photo(2, "PNG"))
    house.until_done()
    assert house.results() == {"a.png": b"retouched", "a (2).png": restored(photo(2, "PNG"))}


def test_a_result_that_its_owner_has_taken_away_does_not_come_back(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    (house.outbox / "a.png").unlink()
    house.restart()
    house.until_done()
    assert house.results() == {} and house.jobs().total() == 1


def test_names_may_be_as_long_as_they_can_be_and_in_any_letters(house: House) -> None:
    long, odd = "长" * 83 + "ab.jpg", os.fsdecode(b"b\xff\xfe.png")
    assert len(long.encode()) == 255
    house.put(long, photo(1))
    house.put(odd, photo(2, "PNG"))
    house.put("emoji 👩‍🦰\n.png", photo(3, "PNG"))
    house.until_done()
    names = sorted(house.results())
    assert len(names) == 3 and odd in names and "emoji 👩‍🦰\n.png" in names
    assert any(name.startswith("长" * 82) and name.endswith(".png") for name in names)


# ---- shares


def test_a_share_that_goes_away_and_returns_changes_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    house.put("a.png", photo(1, "PNG"))
    house.put("b.jpg", broken(1))
    house.until_done()
    before, said, share = house.results(), house.report(), house.inbox.parent
    assert "b.jpg" in said
    for hidden in ("unmounted", "unmounted once more"):
        away = share.rename(share.with_name(hidden))
        for _ in range(5):
            house.settle()
        share.mkdir()  # the bare mount point
        for _ in range(5):
            house.settle()
        house.inbox.mkdir()
        for _ in range(5):
            house.settle()
        assert list(house.inbox.iterdir()) == [] and not house.outbox.exists()
        shutil.rmtree(share)
        away.rename(share)
        house.until_done()
    assert house.results() == before and house.report() == said and house.jobs().total() == 2
    lines = [record.getMessage() for record in caplog.records if "away" in record.getMessage()]
    assert 2 <= len(lines) <= 6, "once each time, and not at every look"


def test_a_share_that_goes_away_while_jobs_run_loses_nothing(house: House) -> None:
    for number in range(6):
        house.put(f"{number}.png", photo(number, "PNG"))
    house.pass_s(PACE.poll_s)
    house.pass_s(PACE.settle_s)
    share = house.inbox.parent
    away = share.rename(share.with_name("away"))
    house.work()
    house.settle()
    house.restart()
    house.settle()
    assert not share.exists()
    away.rename(share)
    house.until_done()
    assert house.jobs().total() == 6 and len(house.results()) == 6


def test_results_wait_for_an_outbox_on_a_share_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mount point is there, and is not it: what lay there would be hidden when the share returns."""
    house = House(tmp_path, outbox_name="elsewhere/better")
    monkeypatch.setattr(type(house.watcher.outbox), "_where", lambda self, folder: "apart")
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    away = house.outbox.rename(tmp_path / "away")
    house.put("b.png", photo(2, "PNG"))
    house.until_done()
    house.outbox.mkdir()
    house.until_done()
    assert list(house.outbox.iterdir()) == []
    assert sum("outbox is away" in record.getMessage() for record in caplog.records) == 1
    house.outbox.rmdir()
    away.rename(house.outbox)
    house.until_done()
    assert sorted(house.results()) == ["a.png", "b.png"]
    house.close()


def test_an_outbox_beside_the_inbox_that_was_deleted_is_made_again(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    shutil.rmtree(house.outbox)
    house.put("b.png", photo(2, "PNG"))
    house.until_done()
    assert sorted(house.results()) == ["b.png"]


def test_a_full_disk_is_said_once_and_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno

    def full(path: object, *rest: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    house.put("a.png", photo(1, "PNG"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(Path, "rename", full)
        house.until_done()
        assert house.results() == {}
    assert sum("No space left" in record.getMessage() for record in caplog.records) == 1
    house.until_done()
    assert sorted(house.results()) == ["a.png"] and house.jobs().total() == 1


def test_a_folder_that_cannot_be_read_hides_only_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.put("locked/b.jpg", broken(2))
    house.until_done()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    house.put("c.png", photo(3, "PNG"))
    house.until_done()
    assert "locked/b.jpg" in house.report() and sorted(house.results()) == ["a.png", "c.png"]


# ---- failures


def test_what_fails_is_reported_in_both_languages_and_tried_when_it_changes(house: House) -> None:
    house.put("x/bad.jpg", broken(1))
    house.until_done()
    house.until_done()
    assert house.jobs().total() == 1, "it is not tried again by itself"
    report = house.report()
    assert "x/bad.jpg" in report and "it is damaged" in report and "已损坏" in report
    house.put("x/bad.jpg", photo(1))
    house.until_done()
    assert house.report() == "" and list(house.results()) == ["x/bad.jpg.png"]


def test_what_failed_leaves_the_report_when_it_is_taken_away(house: House) -> None:
    house.put("good.png", photo(1, "PNG"))
    bad = house.put("bad.jpg", broken(1))
    house.until_done()
    assert "bad.jpg" in house.report()
    bad.unlink()
    house.until_done()
    assert house.report() == ""


def test_what_failed_is_tried_again_when_it_is_touched(house: House) -> None:
    target = house.put("bad.jpg", broken(1))
    house.until_done()
    os.utime(target, ns=(5, 5))
    house.until_done()
    assert house.jobs().total() == 2 and "bad.jpg" in house.report()


@pytest.mark.parametrize("code", ["interrupted", "storage_failed", "out_of_memory"])
def test_what_this_machine_was_to_blame_for_is_tried_again_but_not_for_ever(house: House, code: str) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.settle()
    for number in range(1, 9):
        if (job := house.queue.claim(0)) is not None:
            house.queue.publish(job, Failed(code, "why", {"why": "it crashed"}))
        for _ in range(4):
            house.pass_s(PACE.again_s)
        assert house.jobs().total() == min(number + 1, 4)
    assert "a.png" in house.report()


def test_what_this_machine_was_to_blame_for_is_tried_later_each_time(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.settle()
    counts = []
    for _ in range(2):
        assert (job := house.queue.claim(0)) is not None
        house.queue.publish(job, Failed("interrupted", "why", {"why": "it crashed"}))
        for seconds in (0.0, PACE.again_s - 1, 2.0):
            house.pass_s(seconds)
            counts.append(house.jobs().total())
    assert counts == [2, 2, 2, 2, 2, 3], "at once, and then after a while"


def test_a_photo_that_is_too_large_is_not_even_copied(house: House) -> None:
    target = house.put("a.jpg", photo(1))
    os.truncate(target, 31_000_000)
    house.until_done()
    assert not house.jobs() and "31 MB" in house.report()


def test_a_photo_that_may_not_be_read_is_reported_and_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every look: a disk with a bad spot would be at work for nothing else."""
    tried, real = list[str](), os.open

    def refusing(path: str, *rest: int, **more: int) -> int:
        if str(path).endswith("locked.jpg"):
            tried.append(str(path))
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    house.put("locked.jpg", photo(1))
    house.put("a.png", photo(2, "PNG"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        house.pass_s(PACE.poll_s)
        house.pass_s(PACE.patient_s)
        assert "Permission denied" in house.report() and len(tried) == 1
        house.pass_s(PACE.poll_s)
        house.pass_s(PACE.again_s)
        assert "Permission denied" in house.report() and len(tried) == 2
    house.pass_s(PACE.again_s)
    house.until_done()
    assert house.report() == "" and house.jobs().total() == 2


def test_a_cancelled_job_stays_cancelled(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.settle()
    house.queue.cancel(house.queue.latest_of(OWNER, 1)[0].id)
    house.until_done()
    assert house.jobs().total() == 1 and house.results() == {} and "a.png" in house.report()


# ---- limits


def test_no_more_wait_than_leave_room_for_others(house: House) -> None:
    for number in range(40):
        house.put(f"{number}.png", photo(number, "PNG"))
    house.settle()
    assert house.jobs().total() == PACE.jobs
    house.work(3)
    house.pass_s(PACE.look_s)
    assert house.jobs().total() == PACE.jobs + 3, "the next ones do not wait for a look at the inbox"
    house.until_done()
    assert house.jobs().total() == 40 and len(house.results()) == 40


def test_of_many_that_wait_only_the_next_are_opened(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at ten thousand that have just come opens none of them."""
    for number in range(40):
        house.put(f"{number}.png", photo(number, "PNG"))
    house.settle()
    opened, real = list[str](), os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened.append(str(path)) or real(path, *rest, **more))
    house.pass_s(PACE.poll_s)
    assert not [path for path in opened if path.startswith(str(house.inbox))]


def test_so_many_an_hour(tmp_path: Path) -> None:
    house = House(tmp_path, per_hour=3)
    for number in range(8):
        house.put(f"{number}.png", photo(number, "PNG"))
    counts = []
    for _ in range(3):
        house.until_done()
        counts.append(house.jobs().total())
        house.hands.now_s += 3600
    assert counts == [3, 6, 8]
    house.close()


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path, queue_limit=2)
    for number in range(5):
        house.put(f"{number}.png", photo(number, "PNG"))
    house.settle()
    assert house.jobs().total() == 2
    for _ in range(4):
        house.work()
        house.pass_s(600)
    assert house.jobs() == {checksum(photo(number, "PNG")): 1 for number in range(5)}
    house.close()


def test_what_was_replaced_before_it_could_be_submitted_is_let_go(tmp_path: Path) -> None:
    house = House(tmp_path, queue_limit=1)
    house.put("a.png", photo(1, "PNG"))
    house.put("b.png", photo(2, "PNG"))
    house.settle()
    for name, number in (("a.png", 3), ("b.png", 4)):
        house.put(name, photo(number, "PNG"))
    house.settle()
    for _ in range(4):
        house.work()
        house.pass_s(600)
    assert house.results() == {"a.png": restored(photo(3, "PNG")), "b.png": restored(photo(4, "PNG"))}
    assert house.jobs().total() == 3, "of one nobody has asked any more"
    house.close()


def test_results_leave_the_pictures_after_some_days_and_stay_in_the_outbox(house: House) -> None:
    house.put("a.png", photo(1, "PNG"))
    house.until_done()
    house.hands.now_s += 8 * 86400
    house.until_done()
    house.queue.purge(START_S + house.hands.now_s + 60)
    assert not list(house.queue.folder.glob("outputs_*")) and list(house.results()) == ["a.png"]
    (house.inbox / "a.png").rename(house.inbox / "b.png")
    house.until_done()
    assert sorted(house.results()) == ["a.png", "b.png"] and house.jobs().total() == 0


def test_it_looks_seldom_enough(house: House) -> None:
    house.watcher.round()
    assert 0 < house.watcher.round() <= PACE.poll_s
    house.put("a.png", photo(1, "PNG"))
    house.settle()
    assert house.watcher.round() <= PACE.look_s, "a job is under way"
