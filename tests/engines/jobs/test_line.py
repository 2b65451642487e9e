"""The contract of every queue: a job's place in the line, and when it will be done, by what earlier ones took."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import NotFoundError, QueueFull
from engines.jobs import Estimate, Place
from engines.jobs.sqlite_queue import UNKNOWN_S, SqliteQueue
from engines.messages import RESTORED_BEFORE, Build, Enhance, Failed, Fetch, Generate, Preview, Progress, Request
from engines.messages.status import BundleStatus, Choice, Status, Verdict
from tests.support.queues import FINAL, Queue, claimed, progress

READY = Status("ready", bundles=(BundleStatus("portrait", "portrait", {}, "", ((512, 512),), 8, 0.0, "ort", ""),))
PHOTO = Enhance("a.jpg")


def work_off(queue: Queue, request: Request, seconds: float) -> None:
    queue.submit(request)
    queue.publish(claimed(queue), replace(FINAL, seconds=seconds))


def etas(queue: Queue, *jobs: str) -> list[float | None]:
    return [queue.place(job_id).eta_s for job_id in jobs]


def test_nobody_knows_when_nothing_has_been_done(queue: Queue) -> None:
    queue.announce(READY)
    first, second = queue.submit(Generate("p")), queue.submit(PHOTO)
    assert [queue.place(job_id) for job_id in (first, second)] == [Place(0, None), Place(1, None)]
    claimed(queue)
    assert [queue.place(job_id) for job_id in (first, second)] == [Place(0, None), Place(1, None)]


def test_a_job_is_done_after_those_ahead_of_it(queue: Queue) -> None:
    queue.announce(READY)
    work_off(queue, Generate("p"), 40.0)
    work_off(queue, PHOTO, 3.0)
    jobs = [queue.submit(request) for request in (Generate("q"), PHOTO, Generate("r", count=2), PHOTO)]
    assert etas(queue, *jobs) == pytest.approx([40, 43, 123, 126])
    assert [queue.place(job_id).ahead for job_id in jobs] == [0, 1, 2, 3]
    queue.cancel(jobs[2])
    assert etas(queue, *jobs) == [*etas(queue, *jobs[:2]), None, pytest.approx(46)]


def test_what_nobody_has_submitted_yet_is_foretold(queue: Queue) -> None:
    queue.announce(READY)
    assert queue.expected(Build("restorer", "a.pth", "edge-int8", "x")) is None
    job_id = queue.submit(Build("restorer", "a.pth", "edge-int8", "one"))
    job = queue.claim(lane="builds")
    assert job is not None and job.id == job_id
    queue.publish(job, replace(FINAL, seconds=90.0))
    assert queue.expected(Build("restorer", "a.pth", "edge-int8", "another")) == Estimate(pytest.approx(90))
    assert queue.expected(Build("restorer", "a.pth", "edge-fp32", "another")) is None


def test_what_was_proved_is_foretold_before_anything_is_done(queue: Queue) -> None:
    passed = Verdict("ort", "CPU", "1.0", "fp32", finish_s=9.0, megapixels=512 * 512 / 1e6, run_s={"denoiser": 1.0})
    bundle = replace(READY.bundles[0], choices=(Choice("ort", "edge", "accepted", verdict=passed),))
    queue.announce(replace(READY, bundles=(bundle,)))
    assert etas(queue, queue.submit(Generate("p")), queue.submit(Generate("p", steps=16))) == pytest.approx([9, 26])


def test_a_photo_that_was_restored_before_says_nothing_of_others(queue: Queue) -> None:
    work_off(queue, PHOTO, 3.0)
    for _ in range(5):
        queue.submit(PHOTO)
        queue.publish(claimed(queue), replace(FINAL, seconds=0.01, reason=RESTORED_BEFORE))
    assert etas(queue, queue.submit(PHOTO)) == [pytest.approx(3)]


def test_a_line_with_an_unknown_job_in_it_has_no_end(queue: Queue) -> None:
    work_off(queue, PHOTO, 3.0)
    photo, portrait, later = queue.submit(PHOTO), queue.submit(Generate("p")), queue.submit(PHOTO)
    assert etas(queue, photo, portrait, later) == [pytest.approx(3), None, None]


def test_what_runs_says_itself_how_long_it_will(queue: Queue) -> None:
    queue.announce(READY)
    work_off(queue, Generate("p"), 40.0)
    running, waiting = queue.submit(Generate("p")), queue.submit(Generate("q"))
    job = claimed(queue)
    assert etas(queue, running, waiting) == pytest.approx([40, 80], abs=2)
    queue.publish(job, progress(1))
    assert etas(queue, running, waiting) == pytest.approx([40, 80], abs=2), "it has not said so yet"
    queue.publish(job, Progress("denoise", 2, 8, 25.0))
    queue.publish(job, Preview(2, "preview.webp"))
    assert etas(queue, running, waiting) == pytest.approx([25, 65], abs=2)
    queue.publish(job, FINAL)
    assert queue.place(running) == Place(0, None)


def test_the_clock_goes_on_between_looks(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    work_off(queue, PHOTO, 10.0)
    running, waiting = queue.submit(PHOTO), queue.submit(PHOTO)
    job = claimed(queue)
    monkeypatch.setattr(time, "time", lambda: now + 4)
    assert etas(queue, running, waiting) == pytest.approx([6, 16])
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert etas(queue, running, waiting) == pytest.approx([0, 10]), "it takes longer than others did"
    queue.publish(job, Progress("restore", 1, 2, 5.0))
    assert etas(queue, running, waiting) == pytest.approx([5, 15])
    monkeypatch.setattr(time, "time", lambda: now + 62)
    assert etas(queue, running, waiting) == pytest.approx([3, 13])


def test_the_rest_after_each_picture_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    queue = SqliteQueue(tmp_path / "jobs.db", tmp_path, pause_s=5.0)
    work_off(queue, PHOTO, 3.0)
    first, second = queue.submit(PHOTO), queue.submit(PHOTO)
    assert etas(queue, first, second) == pytest.approx([8, 16]), "one has just been restored"
    monkeypatch.setattr(time, "time", lambda: now + 4)
    assert etas(queue, first, second) == pytest.approx([4, 12])
    monkeypatch.setattr(time, "time", lambda: now + 60)
    queue.submit(PHOTO)
    assert etas(queue, first, second) == pytest.approx([3, 11]), "the rest is over"
    claimed(queue)
    assert etas(queue, first, second) == pytest.approx([3, 11]), "who runs does not rest, who follows it does"
    queue.submit(Fetch("gpen"))
    build = queue.claim(lane="builds")
    assert build is not None and queue.publish(build, replace(FINAL, seconds=90.0))
    assert etas(queue, queue.submit(Fetch("gpen"))) == pytest.approx([90]), "the worker rests from pictures"
    queue.close()


def test_lanes_do_not_wait_for_each_other(queue: Queue) -> None:
    queue.submit(Fetch("gpen"))
    build = queue.claim(lane="builds")
    assert build is not None and queue.publish(build, replace(FINAL, seconds=900.0))
    work_off(queue, PHOTO, 3.0)
    fetch, photo = queue.submit(Fetch("gpen")), queue.submit(PHOTO)
    assert etas(queue, fetch, photo) == pytest.approx([900, 3])


def test_who_opens_the_queue_anew_knows_what_was(reopen: Callable[[], Queue]) -> None:
    work_off(reopen(), PHOTO, 3.0)
    queue, other = reopen(), reopen()
    job_id = queue.submit(PHOTO)
    assert etas(queue, job_id) == pytest.approx([3])
    claimed(other)
    other.publish(other.job(job_id), replace(FINAL, seconds=9.0))
    work_off(other, PHOTO, 9.0)
    assert etas(queue, queue.submit(PHOTO)) == pytest.approx([9]), "what another process wrote is seen"


def test_what_is_not_there_has_no_place(queue: Queue) -> None:
    with pytest.raises(NotFoundError):
        queue.place("nothing")


def test_only_what_went_well_says_how_long_it_takes(queue: Queue) -> None:
    queue.submit(PHOTO)
    queue.publish(claimed(queue), Failed("no_face", ""))
    assert etas(queue, queue.submit(PHOTO)) == [None]


def test_a_job_that_cannot_be_read_takes_no_time(queue: Queue, tmp_path: Path) -> None:
    work_off(queue, PHOTO, 3.0)
    with closing(sqlite3.connect(tmp_path / "queue.db")) as db:
        db.execute("INSERT INTO job(id, request) VALUES('strange', 'junk')")
        db.execute("INSERT INTO job(id, request, state, ended) VALUES('was strange', 'junk', 'done', 9e9)")
        db.execute("INSERT INTO event VALUES('was strange', 1, 'junk')")
        db.commit()
    assert etas(queue, "strange", queue.submit(PHOTO)) == pytest.approx([0, 3])


def full(queue: SqliteQueue, count: int = 1) -> object:
    with pytest.raises(QueueFull) as refused:
        queue.submit_all([PHOTO] * count)
    return refused.value.facts["retry_s"]


def test_who_finds_no_room_is_told_when_there_will_be_some(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db", tmp_path, limit=3)
    assert queue.submit_all([PHOTO] * 3) and full(queue) == UNKNOWN_S
    job = claimed(queue)
    queue.publish(job, Progress("restore", 1, 2, 4.0))
    assert full(queue) == 4
    queue.publish(job, replace(FINAL, seconds=20.0))
    queue.submit(PHOTO)
    assert (full(queue), full(queue, 2), full(queue, 3), full(queue, 9)) == (20, 40, 60, 60)
    queue.close()


def test_everybody_who_asks_is_answered_from_one_look(tmp_path: Path) -> None:
    queue, said = SqliteQueue(tmp_path / "jobs.db", tmp_path), list[str]()
    work_off(queue, PHOTO, 3.0)
    jobs = queue.submit_all([PHOTO] * 200)
    queue.place(jobs[0])
    queue._db.set_trace_callback(said.append)
    assert etas(queue, *jobs)[-1] == pytest.approx(600)
    assert len(said) == 2 * len(jobs), "its lane, and whether anything has changed"
    queue._db.set_trace_callback(None)
    queue.close()
