"""Jobs that people delete: at once for everybody, not for good at once, and in the end with everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import NotFoundError
from engines.jobs import THUMBNAILS, Search
from engines.messages import Develop, Enhance, Failed, Generate, Preview, Request
from tests.support.queues import FINAL, Queue, claimed, progress

ME = Search("me")
LATER = 4e9


def end(queue: Queue, name: str, owner: str = "me", request: Request | None = None, before: str = "") -> str:
    job_id = queue.submit(request or Generate("p"), owner)
    job = claimed(queue)
    for file in filter(None, (name, before)):
        put(queue.folder / file)
    put(queue.folder / THUMBNAILS / f"{name.partition('.')[0]}.webp")
    if before:
        queue.publish(job, Preview(0, before, kind="before"))
    queue.publish(job, replace(FINAL, images=(name,)))
    return job_id


def put(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a picture")


def there(queue: Queue) -> list[str]:
    return sorted(path.name for path in queue.folder.rglob("*") if path.is_file())


def rows(queue: Queue) -> set[str]:
    return {row[0] for table in ("SELECT id FROM job", "SELECT job FROM event") for row in queue._rows(table)}


def test_it_is_nowhere_to_be_seen_and_can_be_taken_back(queue: Queue) -> None:
    job_id = end(queue, "a.png")
    queue.share(job_id, True)
    queue.favour([job_id], "me", True)
    before = queue.page(ME, 9)
    assert queue.delete([job_id], "me", time.time()) == [job_id]
    assert queue.page(ME, 9).jobs == queue.page(Search(None), 9).jobs == ()
    assert queue.finished(9) == queue.latest_of("me", 9) == queue.deletable() == []
    assert queue.finished_jobs([job_id], "me") == [] and queue.is_deleted("a.png")
    with pytest.raises(NotFoundError):
        queue.job(job_id)
    assert queue.delete([job_id], "me", time.time()) == [], "once is enough"
    assert "a.png" in there(queue)
    assert queue.undelete([job_id], "me") == [job_id] and queue.undelete([job_id], "me") == []
    assert queue.page(ME, 9) == before and not queue.is_deleted("a.png")


def test_nobody_deletes_or_brings_back_what_is_somebody_elses(queue: Queue) -> None:
    theirs, nobodys, mine = end(queue, "a.png", "other"), end(queue, "b.png", ""), end(queue, "c.png")
    assert queue.delete([theirs, nobodys, mine, "f" * 32], "me", time.time()) == [mine]
    assert queue.delete([nobodys], "", time.time()) == []
    assert queue.undelete([mine], "other") == [] and queue.deleted_since("other", 0) == []
    assert [job_id for job_id, _ in queue.deleted_since("me", 0)] == [mine]


def test_only_what_is_finished_can_be_deleted(queue: Queue) -> None:
    job_id = queue.submit(Generate("p"), "me")
    assert queue.delete([job_id], "me", time.time()) == []
    claimed(queue)
    assert queue.delete([job_id], "me", time.time()) == []


def test_what_was_deleted_lately_is_known_after_a_restart(queue: Queue, reopen: Callable[[], Queue]) -> None:
    old, new = end(queue, "a.png"), end(queue, "b.png")
    queue.delete([old], "me", 1000.0)
    queue.delete([new], "me", 1009.0)
    again = reopen()
    assert again.deleted_since("me", 1001.0) == [(new, 1009.0)]
    assert again.undelete([new], "me") == [new]


def test_a_purge_leaves_nothing_of_it(queue: Queue, reopen: Callable[[], Queue]) -> None:
    """Neither the words nor the photo as it came, and nothing else is touched."""
    stays = end(queue, "b.png")
    gone = end(queue, "a.png", request=Enhance("/x", name="private"), before="preview_a.webp")
    put(queue.folder / "a.negative.npz")
    queue.delete([gone], "me", 1000.0)
    assert queue.purge(1000.0) == 0 and "a.png" in there(queue), "not yet"
    again = reopen()
    assert again.purge(1000.1) == 1 and again.purge(1000.1) == 0
    assert there(queue) == ["b.png", "b.webp"] and rows(queue) == {stays}
    assert again.undelete([gone], "me") == []


def test_a_picture_that_another_job_has_stays_to_be_seen(queue: Queue) -> None:
    """The same photo with the same settings again is answered with the picture of the first time."""
    mine = end(queue, "a.png", request=Enhance("/x"))
    other = end(queue, "a.png", "other", Enhance("/x"))
    queue.delete([mine], "me", 1000.0)
    assert not queue.is_deleted("a.png")
    assert queue.purge(LATER) == 1 and "a.png" in there(queue)
    queue.delete([other], "other", 1000.0)
    assert queue.is_deleted("a.png") and queue.purge(LATER) == 1 and there(queue) == []


def test_a_picture_that_may_still_come_back_with_another_job_is_not_lost(queue: Queue) -> None:
    old, new = (end(queue, "a.png", request=Enhance("/x")) for _ in range(2))
    queue.delete([old], "me", 1000.0)
    queue.delete([new], "me", 1020.0)
    assert queue.purge(1010.0) == 1 and queue.undelete([new], "me") == [new]
    assert [finished.final.images for finished in queue.page(ME, 9).jobs] == [("a.png",)]


def test_what_waits_for_a_picture_gets_it_first(queue: Queue) -> None:
    job_id = end(queue, "a.png")
    queue.submit(Develop("a.png"), "me")
    queue.delete([job_id], "me", 1000.0)
    assert queue.purge(LATER) == 0 and "a.png" in there(queue)
    queue.publish(claimed(queue), replace(FINAL, images=("b.png",)))
    assert queue.purge(LATER) == 1 and there(queue) == []


def test_what_the_disk_keeps_is_deleted_another_time(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = end(queue, "a.png")
    queue.delete([job_id], "me", 1000.0)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", refuse)
        assert queue.purge(LATER) == 0
    assert job_id in rows(queue) and queue.is_deleted("a.png")
    assert queue.purge(LATER) == 1 and there(queue) == []


def refuse(*_: object, **__: object) -> None:
    raise OSError(30, "Read-only file system")


def test_a_photo_as_it_came_is_shown_while_it_is_there(queue: Queue) -> None:
    job_id = end(queue, "a.png", request=Enhance("/x"), before="preview_a.webp")
    assert queue.before(job_id) == "preview_a.webp" and queue.before(end(queue, "b.png")) == ""
    (queue.folder / "preview_a.webp").unlink()
    assert queue.before(job_id) == ""


# ---- all of an owner's


def test_what_is_handed_over_is_anothers(queue: Queue) -> None:
    job_id = end(queue, "a.png", "anna")
    assert queue.hand_over([job_id], "bert", "wall") == [] and queue.hand_over([job_id], "anna", "wall") == [job_id]
    assert queue.job(job_id).owner == "wall" and queue.finished(9, "anna") == []
    waiting = queue.submit(Generate("p"), "anna")
    assert queue.hand_over([waiting], "anna", "wall") == [], "it is not finished"


def test_all_of_an_owner_goes_however_far_it_is(queue: Queue) -> None:
    done, others = end(queue, "a.png", "visitor:1"), end(queue, "b.png", "visitor:2")
    queue.submit(Enhance("/x/photo.jpg"), "visitor:1")
    running = claimed(queue)
    waiting = queue.submit(Generate("p"), "visitor:1")
    erased = queue.erase("visitor:1")
    assert {type(request) for request in erased} == {Generate, Enhance} and len(erased) == 3
    for job_id in (done, running.id, waiting):
        with pytest.raises(NotFoundError):
            queue.job(job_id)
    assert not queue.publish(running, progress(1)), "it is told to stop"
    assert queue.claim() is None, "what waited does not begin"
    assert queue.purge(LATER) == 2, "what runs stays until it has ended"
    assert not (queue.folder / "a.png").exists() and (queue.folder / "b.png").exists()
    queue.publish(running, Failed("cancelled", ""))
    assert queue.purge(LATER) == 1 and queue.job(others).owner == "visitor:2"
    assert rows(queue) == {others}


def test_nobodys_is_not_erased(queue: Queue) -> None:
    job_id = queue.submit(Generate("p"))
    assert queue.erase("") == [] and queue.job(job_id).state == "queued"


def test_a_photo_of_what_is_erased_is_not_in_use(queue: Queue) -> None:
    queue.submit(Enhance("/x/photo.jpg"), "visitor:1")
    claimed(queue)
    queue.erase("visitor:1")
    assert queue.unfinished() == []


def test_owners_lapse_when_their_last_job_is_over_for_long(queue: Queue) -> None:
    end(queue, "a.png", "visitor:1")
    end(queue, "b.png", "visitor:2")
    end(queue, "c.png", "visitors")
    queue.submit(Generate("p"), "visitor:2")
    assert queue.lapsed("visitor:", time.time() - 5) == []
    assert queue.lapsed("visitor:", time.time() + 5) == ["visitor:1"], "the second has one that waits"
    queue.erase("visitor:1")
    assert queue.lapsed("visitor:", time.time() + 5) == []
