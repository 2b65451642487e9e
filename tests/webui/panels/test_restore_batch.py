"""Many photos at once: each by itself, nothing lost, nothing unprocessed among the results."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from engines.images import causes
from engines.jobs.quiet import QuietHours
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Failed, Final, Generate, Preview
from engines.messages.faces import FaceReport
from tests.support.http import FILE_DATA, Session, encoded, people, scene, succeeded, tree
from tests.support.owners import own
from webui import archive
from webui.boards import photos as board
from webui.boards.photos import LIMIT, Item
from webui.i18n import words
from webui.people import Person
from webui.pictures import file_name
from webui.widgets.photo_settings import NAMES

if TYPE_CHECKING:
    from tests.support.server import Rig

ZH, EN = words("zh"), words("en")
SHOWN = ("board", "seen", "cancel", "timer")


def settings(page: Session, **changes: Any) -> list[Any]:
    values = dict(zip(NAMES, page.values(page.endpoint("restore"))[1:], strict=True))
    return list({**values, **changes}.values())


def begin(page: Session, photos: dict[str, bytes], jobs: Any = None, **changes: Any) -> list[str]:
    """The names of the jobs that the browser is told to remember."""
    files = [page.upload(content, name) for name, content in photos.items()]
    answer = page.answer(page.endpoint("start"), [files, jobs or [], *settings(page, **changes)])
    named: list[str] = answer[0]
    return named


def again(page: Session, jobs: list[str], wanted: str, whole: bool = False, **changes: Any) -> list[str]:
    event = {"job": wanted, "whole": whole}
    messages = page.call(page.endpoint("again"), [jobs, *settings(page, **changes)], event)
    assert succeeded(messages), messages
    named: list[str] = messages[-1]["output"]["data"][0]
    return named


def ended(rig: Rig, jobs: list[str]) -> list[Item]:
    for job in jobs:
        list(rig.queue.follow(job))
    return board.read(rig.owned(jobs[0]), jobs)


def photos() -> dict[str, bytes]:
    return {"妈妈.jpg": encoded(people(), "JPEG"), "broken.jpg": b"\xff\xd8 torn", "two.png": encoded(people(2), "PNG")}


def test_each_photo_is_a_job_of_its_own(rig: Rig) -> None:
    with rig.session() as page:
        jobs = begin(page, photos(), strength=41, format="jpeg")
        items = ended(rig, jobs)
        board = page.answer(page.endpoint("come_back", "batch-board"), [jobs])[0]
    assert [item.state for item in items] == ["done", "failed", "done"]
    assert [item.name for item in items] == ["妈妈.jpg", "broken.jpg", "two.png"]
    assert [item.result.rpartition("-")[2] for item in items] == ["妈妈.jpg", "", "two.jpg"]
    orders = [rig.queue.job(job).request for job in jobs]
    assert all(isinstance(order, Enhance) and (order.strength, order.format) == (41, "jpeg") for order in orders)
    assert ZH("batch_ended", done=2, lost=1) in board and ZH.error("bad_image", {"why": causes.CUT_OFF}) in board
    assert [a["download"] for a in tree(board).all("a") if a.get("download")] == [
        file_name(items[k].result) for k in (0, 2)
    ]
    assert len([b for b in tree(board).all("button") if b.get("data-again") == items[1].job_id]) == 1


def test_many_photos_give_way_to_who_waits_for_one_picture(rig: Rig) -> None:
    rig.settle()
    with rig.stuck(), rig.session() as page:
        many = begin(page, photos())
        *_, one = begin(page, {"one.png": encoded(people(), "PNG")})
        assert [rig.queue.place(job_id).ahead for job_id in (one, *many)] == [1, 2, 3, 4]


def test_a_file_without_a_byte_fails_by_itself(rig: Rig) -> None:
    with rig.session() as page:
        items = ended(rig, begin(page, {"a.png": encoded(people(), "PNG"), "empty.png": b""}))
    assert [(item.state, item.code) for item in items] == [("done", ""), ("failed", "bad_image")]


def test_the_archive_holds_the_results_and_nothing_else(rig: Rig) -> None:
    """Never an original, never a picture of another job, and the very bytes of each."""
    rig.client.post("/generate", json={"prompt": "x", "bundle": "sketch", "seed": 1}).raise_for_status()
    drawn = rig.queue.finished(1)[0].job.id
    with rig.session() as page:
        jobs = begin(page, photos())
        items = ended(rig, jobs)
        wanted = {"jobs": "-".join([*jobs, drawn, "f" * 32, "..", ""])}
        others = rig.client.get("/batch.zip", params={"jobs": "-".join(jobs)})
        assert others.status_code == 404, "they are somebody else's"
        answer = page.client.get("/batch.zip", params=wanted)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="pictures_')
    with zipfile.ZipFile(io.BytesIO(answer.content)) as pack:
        assert pack.testzip() is None
        restored, drawing = [file_name(items[k].result) for k in (0, 2)], rig.queue.job(drawn)
        assert pack.namelist() == [*restored, *rig.queue.latest(drawing.id).images], "nobody's is for who has its name"
        assert all(info.compress_type == zipfile.ZIP_STORED for info in pack.infolist())
        for name in pack.namelist():
            assert pack.read(name) == (rig.settings.outputs / name).read_bytes()
            assert pack.read(name) not in photos().values()


@pytest.mark.parametrize(
    "jobs", ["", "x", "..", "/etc/passwd", "f" * 32, "%00", "-" * 5000, "outputs_20260101000000.png"]
)
def test_an_archive_of_nothing_is_refused(rig: Rig, jobs: str) -> None:
    answer = rig.client.get("/batch.zip", params={"jobs": jobs})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_what_failed_is_tried_again_alone(rig: Rig) -> None:
    with rig.session() as page:
        jobs = begin(page, {"a.png": encoded(people(), "PNG"), "hill.png": encoded(scene(), "PNG")}, auto=False)
        items = ended(rig, jobs)
        assert [(item.state, item.code) for item in items] == [("done", ""), ("failed", "no_face")]
        whole = again(page, jobs, jobs[1], whole=True, strength=12)
        assert whole[0] == jobs[0] and whole[1] != jobs[1], "in its place, and the other one not once more"
        assert [item.state for item in ended(rig, whole)] == ["done", "done"]
    before, after = (rig.queue.job(job).request for job in (jobs[1], whole[1]))
    assert isinstance(before, Enhance) and isinstance(after, Enhance)
    assert (after.image, after.name) == (before.image, "hill.png")
    assert after.whole_picture and after.strength == 12, "with the settings of now"


def test_all_that_failed_is_tried_again(rig: Rig) -> None:
    with rig.session() as page:
        jobs = begin(page, {"a.png": b"x", "b.png": encoded(people(), "PNG"), "c.png": b"y"})
        ended(rig, jobs)
        anew = again(page, jobs, "")
        ended(rig, anew)
        untouched = again(page, anew, jobs[1]), again(page, anew, "f" * 32)
    assert [old == new for old, new in zip(jobs, anew, strict=True)] == [False, True, False]
    assert untouched == (anew, anew), "what is done, or not of this batch, is not"


def test_a_batch_outlives_page_and_server(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    queue = SqliteQueue(tmp_path / "jobs.db", folder)
    jobs = [queue.submit(Enhance(f"{k}.jpg", name=f"{k}.jpg")) for k in range(3)]
    first = queue.claim()
    assert first is not None
    queue.publish(first, Final(("outputs_20260101000000-0.png",), 0, 2.0, "ort"))
    assert queue.claim() is not None  # the server is killed in the middle of the second
    queue.close()
    queue = SqliteQueue(tmp_path / "jobs.db", folder)
    queue.recover()
    items = board.read(own(queue), jobs)
    assert [(item.name, item.state) for item in items] == [("0.jpg", "done"), ("1.jpg", "queued"), ("2.jpg", "queued")]
    assert board.status_text(items, ZH) == "批量处理中:1/3 · 剩余约 4.0 秒"
    queue.close()


def test_the_page_looks_again_only_for_news(rig: Rig) -> None:
    with rig.session() as page:
        jobs = begin(page, {"a.png": encoded(people(), "PNG")})
        ended(rig, jobs)
        look, back = page.endpoint("watch"), page.endpoint("come_back", "batch-board")
        first = dict(zip(SHOWN, page.answer(look, [jobs, None]), strict=True))
        second = dict(zip(SHOWN, page.answer(look, [jobs, None]), strict=True))
        page.answer(back, [jobs])
    assert ZH("batch_done", count=1) in first["board"] and first["timer"]["active"] is False
    assert ZH("batch_done", count=1) not in str(second["board"]), "it shows that already"


def test_a_look_that_left_before_the_answer_to_a_press_hides_nothing(rig: Rig) -> None:
    """Whatever the browser remembered when it was sent: the server knows what this page began."""
    with rig.stuck(), rig.session() as page:
        one = begin(page, {"a.png": encoded(scene(), "PNG")})
        shown = dict(zip(SHOWN, page.answer(page.endpoint("come_back", "batch-board"), [[]]), strict=True))
        both = begin(page, {"b.png": encoded(scene(), "PNG")}, [])
    assert "a.png" in shown["board"] and shown["timer"]["active"] is True
    assert both[:1] == one, "and the next press joins it"


def test_more_photos_join_a_batch_that_goes_on(rig: Rig) -> None:
    with rig.stuck(), rig.session() as page:
        one = begin(page, {"a.png": encoded(scene(), "PNG")})
        both = begin(page, {"b.png": encoded(scene(), "PNG")}, one)
        assert both[:1] == one and len(both) == 2
    with rig.session() as page:
        ended(rig, both)
        assert not set(begin(page, {"c.png": encoded(people(), "PNG")}, both)) & set(both), (
            "one that is over makes room"
        )


def test_photos_that_join_can_be_cancelled_though_those_before_them_were(idle: Rig) -> None:
    with idle.session("en") as page:
        first = begin(page, {"a.jpg": encoded(Image.new("RGB", (64, 48)), "JPEG")})
        page.call(page.endpoint("stop", "batch-cancel"), [first])
        files = [page.upload(encoded(Image.new("RGB", (48, 64)), "JPEG"), "b.jpg")]
        *_, cancel, _, _ = page.answer(page.endpoint("start"), [files, first, *settings(page)])
    assert (cancel["visible"], cancel["interactive"]) == (True, True) and "batch_cancel" in str(cancel["value"])


def test_cancelling_stops_what_is_not_finished(rig: Rig) -> None:
    with rig.session() as page:
        done = begin(page, {"a.png": encoded(people(), "PNG")})
        ended(rig, done)
        with rig.stuck():
            waiting = begin(page, {"b.png": encoded(scene(), "PNG"), "c.png": encoded(scene(), "PNG")})
            heard = page.call(page.endpoint("stop", "batch-cancel"), [done + waiting])
            assert succeeded(heard) and "stage_cancelling" in str(heard[-1])
            assert [rig.jobs()[job] for job in waiting] == ["cancelled", "cancelled"]
    assert [item.state for item in board.read(rig.owned(done[0]), done + waiting)] == ["done", "cancelled", "cancelled"]


def test_no_more_than_the_limit_and_no_less_than_one(rig: Rig) -> None:
    before = rig.jobs()
    with rig.session("en") as page:
        photo = page.upload(encoded(scene(), "PNG"), "a.png")
        endpoint = page.endpoint("start")
        assert EN("batch_too_many", limit=LIMIT) in str(
            page.call(endpoint, [[photo] * (LIMIT + 1), [], *settings(page)])
        )
        for nothing in ([], None):
            assert EN("batch_none") in str(page.call(endpoint, [nothing, [], *settings(page)]))
    assert rig.jobs().keys() == before.keys()


def test_settings_that_make_no_sense_begin_nothing(rig: Rig) -> None:
    before = rig.jobs()
    with rig.session("en") as page:
        photo = page.upload(encoded(scene(), "PNG"), "a.png")
        assert not succeeded(page.call(page.endpoint("start"), [[photo], [], *settings(page, strength=500)]))
    assert rig.jobs().keys() == before.keys()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "/proc/self/environ"])
def test_only_uploaded_files_are_taken(rig: Rig, path: str) -> None:
    before, stored = rig.jobs(), sorted(rig.settings.uploads.glob("*"))
    with rig.session() as page:
        for meta in (FILE_DATA, {}):
            files = [{"path": path, "orig_name": "a.png", "meta": meta}]
            assert not succeeded(page.call(page.endpoint("start"), [files, [], *settings(page)]))
    assert (rig.jobs(), sorted(rig.settings.uploads.glob("*"))) == (before, stored)


STRANGE: Sequence[Any] = (None, 5, "x", {"a": 1}, [None], [["x"]], [{"a": 1}], ["x" * 10_000], ["../x"], ["F" * 32])


@pytest.mark.parametrize("jobs", STRANGE, ids=lambda value: str(value)[:20])
def test_what_is_no_batch_shows_none(rig: Rig, jobs: Any) -> None:
    before = rig.jobs()
    assert board.read(rig.house.of(None), jobs) == []
    with rig.session("en") as page:
        assert EN("batch_empty", limit=LIMIT) in str(page.call(page.endpoint("come_back", "batch-board"), [jobs]))
        page.call(page.endpoint("stop", "batch-cancel"), [jobs])
        page.call(page.endpoint("again"), [jobs, *settings(page)], {"job": "", "whole": False})
    assert rig.jobs().keys() == before.keys()


def test_portraits_of_others_are_no_photos_of_a_batch(rig: Rig) -> None:
    drawn = rig.queue.submit(Generate("secret words", bundle="sketch", width=64, height=64, steps=1))
    list(rig.queue.follow(drawn))
    assert board.read(rig.house.of(None), [drawn]) == []


def test_the_same_job_counts_once_and_a_list_has_an_end(rig: Rig) -> None:
    with rig.session() as page:
        (job,) = begin(page, {"a.png": encoded(people(), "PNG")})
    assert len(board.read(rig.owned(job), [job] * 500)) == 1
    ended(rig, [job])


# ---- drawing


def item(state: Any = "done", **more: Any) -> Item:
    return Item(**{"job_id": "a" * 32, "name": "a.jpg", "state": state, **more})


def test_a_row_says_what_became_of_its_photo() -> None:
    faces = (FaceReport((0, 0, 1, 1), "restored", 70), FaceReport((0, 0, 1, 1), "skipped", 0, "already sharp"))
    said = {
        "✅ 2 张脸 · 已修复 1 · 跳过 1 · 1.2 秒": item(result="x.png", seconds=1.2, faces=faces),
        "✅ 人脸保持原样 · 1.2 秒": item(result="x.png", seconds=1.2, faces=faces[1:]),
        "✅ 1.2 秒": item(result="x.png", seconds=1.2),
        "排队中": item("queued"),
        "正在修复…": item("running"),
        "已取消": item("cancelled", code="cancelled"),
        f"❌ {ZH('error_no_face')}": item("failed", code="no_face"),
    }
    assert {board.row_text(it, ZH): it for it in said.values()} == said


def test_only_a_success_can_be_downloaded() -> None:
    for state in ("queued", "running", "failed", "cancelled"):
        shown = board.board_html([item(state, before="preview_x.webp")], ZH)
        assert not tree(shown).all("a"), state
    page = tree(board.board_html([item(result="outputs_1-奶奶.jpg")], ZH))
    result = "outputs/outputs_1-%E5%A5%B6%E5%A5%B6.jpg"
    assert [a["href"] for a in page.all("a")] == [f"batch.zip?jobs={'a' * 32}", result, result]


def test_the_line_above_counts() -> None:
    waits, runs, done = item("queued"), item("running"), item(result="x.png", seconds=4.0)
    lost = item("failed", code="bad_image")
    assert board.status_text([waits, runs], EN) == "Restoring: 0/2"
    assert board.status_text([waits, runs, done, lost], EN) == "Restoring: 2/4 · about 8.0 s left"
    assert board.status_text([done, lost], EN) == "Batch ended: 1 done, 1 not"
    assert board.status_text([done, done], EN) == "✅ All 2 photos done"
    quiet = board.status_text([waits, done], EN, quiet_s=3600.0)
    assert re.fullmatch(r"Restoring: 1/2 · Quiet hours: goes on after [0-2][0-9]:[0-5][0-9]", quiet)
    assert "Quiet" not in board.status_text([waits, runs], EN, quiet_s=3600.0), "the one that runs is not broken off"
    (bar,) = tree(board.board_html([waits, runs, done, lost], EN)).all("progress")
    assert (bar["max"], bar["value"]) == ("4", "2")


def test_a_batch_says_that_it_waits_for_the_morning(tmp_path: Path) -> None:
    now = time.localtime()
    minute = 60 * now.tm_hour + now.tm_min
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path, quiet=QuietHours(minute, (minute + 120) % 1440))
    mine = own(queue, Person("me"))
    batch = mine.submit_all([Enhance("a.png"), Enhance("b.png")], "batch")
    assert 7000 < board.quiet_s(mine, board.read(mine, batch)) <= 7200
    single = board.read(mine, [mine.submit(Enhance("c.png"))])
    assert board.quiet_s(mine, single) == 0.0
    queue.close()


def test_a_preview_that_is_gone_is_not_shown(rig: Rig) -> None:
    queue = rig.queue
    job_id = queue.submit(Enhance("gone.jpg", name="x"))
    list(queue.follow(job_id))
    jobs = rig.owned(job_id)
    found = board.read(jobs, [job_id])[0]
    shown = board._after(found, Preview(0, jobs.keys.sign("preview_" + "0" * 32 + ".webp"), kind="before"), jobs)
    assert shown.before == "" and board._after(found, Failed("no_face", ""), jobs).code == "no_face"


# ---- the archive itself


def test_an_archive_is_written_while_it_is_read(tmp_path: Path) -> None:
    """However large its files are, little of them is in memory."""
    names = ["奶奶.jpg", "b.png", "empty.webp"]
    contents = [bytes(range(256)) * 8192, b"b" * 700_001, b""]
    for name, content in zip(names, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    pieces = archive.stream(tmp_path / name for name in names)
    first = next(pieces)
    (tmp_path / "b.png").rename(tmp_path / "away.png")  # nobody has asked for it yet
    (tmp_path / "away.png").rename(tmp_path / "b.png")
    rest = list(pieces)
    assert max(map(len, [first, *rest])) < 2 * archive.PIECE_BYTES and len(rest) > 8
    with zipfile.ZipFile(io.BytesIO(b"".join([first, *rest]))) as pack:
        assert pack.namelist() == names and [pack.read(name) for name in names] == contents


def test_a_download_that_is_broken_off_leaves_nothing_open(rig: Rig) -> None:
    with rig.session() as page:
        jobs = begin(page, {"a.png": encoded(people(), "PNG")})
        ended(rig, jobs)
    with httpx.stream("GET", f"{rig.url}/batch.zip", params={"jobs": jobs[0]}) as answer:
        next(answer.iter_raw(10))
    (result,) = (item.result for item in board.read(rig.owned(jobs[0]), jobs))
    deadline = time.monotonic() + 60
    while any(str(path).endswith(result) for path in open_files()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [path for path in open_files() if str(path).endswith(result)]


def open_files() -> list[Path]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(link.readlink())
    return found
