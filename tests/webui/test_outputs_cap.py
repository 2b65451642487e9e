"""Pictures for which there is no room: whose, when, after which warning, and which never."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines.jobs import Search
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Develop, Enhance, Failed, Generate, Preview
from engines.settings import Settings
from tests.support.owners import KEYS, own
from tests.support.queues import FINAL, claimed
from webui import outputs_cap, sweep
from webui.i18n import words
from webui.outputs_cap import NOTICE_S, enforce
from webui.panels.history.wall import first_page
from webui.people import Person

SIZE = 1000
DAY = 1_800_000_000.0
EN, ZH = words("en"), words("zh")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return capped(tmp_path, 2)


def capped(home: Path, pictures: int) -> Settings:
    """Room for so many."""
    return Settings(home, outputs_gb=pictures * SIZE / 1e9)


@pytest.fixture
def queue(settings: Settings) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    settings.outputs.mkdir()
    yield opened
    opened.close()


def draw(queue: SqliteQueue, *names: str, owner: str = "anna", request: object = None) -> str:
    queue.submit(request or Generate("p"), owner)  # type: ignore[arg-type]
    job = claimed(queue)
    for name in names:
        (queue.folder / name).write_bytes(bytes(SIZE))
    assert queue.publish(job, replace(FINAL, images=names))
    return job.id


def there(queue: SqliteQueue) -> list[str]:
    return sorted(path.name for path in queue.folder.iterdir())


def a_day_later(queue: SqliteQueue, settings: Settings) -> None:
    enforce(queue, settings, DAY)
    enforce(queue, settings, DAY + NOTICE_S)


def test_the_oldest_go_and_no_more_than_have_to(queue: SqliteQueue, settings: Settings) -> None:
    for name in ("c.png", "a.png", "d.png", "b.png"):  # in the order in which they were drawn
        draw(queue, name)
    a_day_later(queue, settings)
    assert there(queue) == ["b.png", "d.png"]


def test_without_a_limit_nothing_goes(queue: SqliteQueue, settings: Settings) -> None:
    for k in range(5):
        draw(queue, f"{k}.png")
    a_day_later(queue, replace(settings, outputs_gb=0.0))
    assert len(there(queue)) == 5


def test_nothing_goes_before_it_was_too_much_for_a_day(queue: SqliteQueue, settings: Settings) -> None:
    for k in range(3):
        draw(queue, f"{k}.png")
    for hour in range(24):
        enforce(queue, settings, DAY + 3600 * hour)
        assert len(there(queue)) == 3
    enforce(queue, settings, DAY + NOTICE_S - 1)
    assert len(there(queue)) == 3
    enforce(queue, settings, DAY + NOTICE_S)
    assert there(queue) == ["1.png", "2.png"]
    draw(queue, "3.png")
    enforce(queue, settings, DAY + NOTICE_S + 1)
    assert len(there(queue)) == 3, "a new day begins: it did fit in between"


def test_what_fits_again_is_forgotten(queue: SqliteQueue, settings: Settings) -> None:
    for k in range(3):
        draw(queue, f"{k}.png")
    enforce(queue, settings, DAY)
    (queue.folder / "1.png").unlink()
    enforce(queue, settings, DAY + 3600)
    draw(queue, "3.png")
    enforce(queue, settings, DAY + NOTICE_S)
    assert len(there(queue)) == 3
    assert outputs_cap.over_since(settings) == outputs_cap.Over(DAY + NOTICE_S)


def test_the_day_lasts_across_a_restart_and_a_clock_that_was_put_back(queue: SqliteQueue, settings: Settings) -> None:
    for k in range(3):
        draw(queue, f"{k}.png")
    enforce(queue, settings, DAY)
    assert json.loads((settings.state / "outputs_over.json").read_text()) == {"since_s": DAY}
    enforce(queue, settings, DAY - 7 * 86400)
    enforce(queue, settings, DAY - 6 * 86400 - 1)
    assert len(there(queue)) == 3
    enforce(queue, settings, DAY - 6 * 86400)
    assert len(there(queue)) == 2
    (settings.state / "outputs_over.json").write_text("half a")
    draw(queue, "3.png")
    enforce(queue, settings, DAY)
    assert outputs_cap.over_since(settings) == outputs_cap.Over(DAY)


def test_what_is_in_the_album_stays_however_old(queue: SqliteQueue, settings: Settings) -> None:
    shared = [draw(queue, f"shared{k}.png") for k in range(3)]
    for job_id in shared:
        queue.share(job_id, True)
    draw(queue, "mine.png")
    a_day_later(queue, settings)
    assert there(queue) == [f"shared{k}.png" for k in range(3)], "there is nothing else to delete"


def test_a_favourite_stays_however_old_and_nobody_is_warned_of_it(queue: SqliteQueue, settings: Settings) -> None:
    first = draw(queue, "first.png")
    for k in range(3):
        draw(queue, f"{k}.png")
    queue.favour([first], "anna", True)
    enforce(queue, settings, time.time() - 20.5 * 3600)
    assert EN("history_notice", pictures=2, hours=4) in str(
        first_page(own(queue, Person("anna")), Search("anna"), EN, settings)
    )
    a_day_later(queue, settings)
    assert there(queue) == ["2.png", "first.png"]
    queue.favour([first], "anna", False)
    draw(queue, "3.png")
    a_day_later(queue, settings)
    assert there(queue) == ["2.png", "3.png"], "it is like any other again"


def test_a_picture_that_a_favourite_has_too_stays(queue: SqliteQueue, settings: Settings) -> None:
    draw(queue, "restored.png", request=Enhance("x"))
    queue.favour([draw(queue, "restored.png", request=Enhance("x"), owner="ben")], "ben", True)
    draw(queue, "drawn.png")
    a_day_later(queue, capped(settings.home, 1))
    assert there(queue) == ["restored.png"]


def test_all_pictures_of_a_job_go_together_with_what_is_beside_them(queue: SqliteQueue, settings: Settings) -> None:
    draw(queue, "a.png", "b.png", "c.png")
    (queue.folder / "b.negative.npz").write_bytes(b"latents")
    draw(queue, "d.png")
    a_day_later(queue, settings)
    assert there(queue) == ["d.png"]


def test_what_a_job_counts_on_that_has_not_ended_stays(queue: SqliteQueue, settings: Settings) -> None:
    draw(queue, "negative.png")
    draw(queue, "restored.png", request=Enhance("x"))
    queue.submit_all([Generate("p"), Develop("negative.png")], "anna")
    running = claimed(queue)
    for name in ("preview_1.webp", "result.png", "counted.png"):
        (queue.folder / name).write_bytes(bytes(SIZE))
    queue.publish(running, Preview(1, "preview_1.webp"))
    queue.publish(running, Preview(1, "result.png", kind="result"))
    queue.publish(running, Preview(1, "restored.png", kind="result"))
    queue.save_snapshot(running, b"", ["counted.png"])
    a_day_later(queue, settings)
    assert there(queue) == ["counted.png", "negative.png", "preview_1.webp", "restored.png", "result.png"]


def test_a_picture_that_two_jobs_name_is_as_young_as_the_younger_one(queue: SqliteQueue, settings: Settings) -> None:
    """The same photo with the same settings again is answered with the picture of the first time."""
    draw(queue, "restored.png", request=Enhance("x"))
    draw(queue, "drawn.png")
    draw(queue, "restored.png", request=Enhance("x"), owner="ben")
    a_day_later(queue, capped(settings.home, 1))
    assert there(queue) == ["restored.png"]


def test_a_picture_of_which_a_copy_is_in_the_album_stays(queue: SqliteQueue, settings: Settings) -> None:
    draw(queue, "restored.png", request=Enhance("x"))
    queue.share(draw(queue, "restored.png", request=Enhance("x"), owner="ben"), True)
    draw(queue, "drawn.png")
    a_day_later(queue, capped(settings.home, 1))
    assert there(queue) == ["restored.png"]


def test_files_that_no_job_names_count_and_stay(queue: SqliteQueue, settings: Settings) -> None:
    (queue.folder / "of an earlier version.png").write_bytes(bytes(2 * SIZE))
    draw(queue, "a.png")
    queue.submit(Generate("p"))
    queue.publish(claimed(queue), Failed("no_face", ""))
    a_day_later(queue, settings)
    assert there(queue) == ["of an earlier version.png"]


def test_what_was_put_into_the_album_at_the_last_moment_stays(
    queue: SqliteQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = draw(queue, "a.png")
    for k in range(2):
        draw(queue, f"{k}.png")
    plan = outputs_cap.doomed

    def late(*arguments: object) -> object:
        going = plan(*arguments)  # type: ignore[arg-type]
        queue.share(job_id, True)
        return going

    monkeypatch.setattr(outputs_cap, "doomed", late)
    a_day_later(queue, settings)
    assert "a.png" in there(queue)


def test_nobody_shares_in_the_middle_of_a_deletion(
    queue: SqliteQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = draw(queue, "a.png")
    (going,) = queue.deletable()
    deletable = queue.deletable
    shared, sharer = threading.Event(), threading.Thread(target=lambda: (queue.share(job_id, True), shared.set()))

    def looked_at() -> object:
        jobs = deletable()
        sharer.start()
        assert not shared.wait(0.2), "it waits until the pictures are gone"
        return jobs

    monkeypatch.setattr(queue, "deletable", looked_at)
    assert queue.delete_pictures([going]) == [going] and there(queue) == []
    sharer.join(10)
    assert shared.is_set()


def test_the_log_has_one_line_for_each_turn(
    queue: SqliteQueue, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for k in range(4):
        draw(queue, f"{k}.png")
    for hour in range(30):
        enforce(queue, settings, DAY + 3600 * hour)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and "those of 2 jobs are deleted in 24 hours" in lines[0]
    assert "the pictures of 2 jobs were deleted" in lines[1]


def test_the_hourly_sweep_does_it(queue: SqliteQueue, settings: Settings) -> None:
    for k in range(3):
        draw(queue, f"{k}.png")
    sweep.sweep(queue, settings)
    over = outputs_cap.over_since(settings)
    assert over is not None and abs(over.since_s - time.time()) < 60 and len(there(queue)) == 3
    (settings.state / "outputs_over.json").write_text(json.dumps({"since_s": time.time() - NOTICE_S}))
    sweep.sweep(queue, settings)
    assert there(queue) == ["1.png", "2.png"] and outputs_cap.over_since(settings) is None


def test_a_home_without_the_folder_is_swept(tmp_path: Path) -> None:
    settings = capped(tmp_path / "home", 1)
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    sweep.sweep(queue, settings)
    queue.close()


# ---- what people are shown


def test_everybody_is_warned_of_his_own(queue: SqliteQueue, settings: Settings) -> None:
    draw(queue, "a.png", "b.png")
    draw(queue, "c.png", owner="ben")
    first = draw(queue, "d.png")
    draw(queue, "e.png", "f.png", owner="ben")

    def shown(owner: str, say: object = EN) -> str:
        return str(first_page(own(queue, Person(owner)), Search(owner), say, settings))  # type: ignore[arg-type]

    assert "will be deleted" not in shown("anna"), "nobody has noticed yet"
    enforce(queue, settings, time.time() - 20.5 * 3600)
    assert EN("history_notice", pictures=3, hours=4) in shown("anna")
    assert EN("history_notice", pictures=1, hours=4) in shown("ben")
    assert ZH("history_notice", pictures=3, hours=4) in shown("anna", ZH)
    assert "will be deleted" not in shown("carla") and "will be deleted" not in shown("")
    queue.share(first, True)
    assert EN("history_notice", pictures=2, hours=4) in shown("anna")
    assert EN("history_notice", pictures=3, hours=4) in shown("ben"), "others go in its place"
    album = str(first_page(own(queue, Person("anna")), Search(None), EN, settings))
    assert "will be deleted" not in album


def test_what_was_deleted_is_not_in_the_history(queue: SqliteQueue, settings: Settings) -> None:
    draw(queue, "a.png")
    draw(queue, "b.png", "c.png")
    a_day_later(queue, settings)
    (queue.folder / "b.png").unlink()  # by somebody else
    grid = str(first_page(own(queue, Person("anna")), Search("anna"), EN, settings))
    assert f"outputs/{KEYS.sign('c.png')}" in grid
    assert "a.png" not in grid and "b.png" not in grid, "no broken image"


def test_a_job_whose_end_cannot_be_read_is_left_alone(queue: SqliteQueue) -> None:
    draw(queue, "a.png")
    with queue._transaction() as db:
        db.execute("UPDATE event SET body='{}'")
    draw(queue, "b.png")
    assert [job.pictures for job in queue.deletable()] == [("b.png",)]
