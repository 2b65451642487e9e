"""The contract of every queue: the owner of the house pauses it, and a person puts the own jobs in another order."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from engines.errors import NotFoundError
from engines.jobs import Job, Place
from engines.messages import Enhance, Fetch, Generate
from tests.conftest import Within
from tests.support.queues import FINAL, Queue, claimed, progress

ONE = Generate("p")


def test_while_it_is_paused_no_picture_begins(queue: Queue) -> None:
    assert not queue.is_paused()
    running, waiting, model = queue.submit(ONE), queue.submit(ONE), queue.submit(Fetch("gpen"))
    job = claimed(queue)
    queue.pause()
    assert queue.is_paused() and queue.claim() is None
    assert queue.publish(job, progress(1)) and queue.publish(job, FINAL), "what runs ends"
    assert queue.claim() is None and queue.job(running).state == "done"
    build = queue.claim(lane="builds")
    assert build is not None and build.id == model, "a download is no picture"
    queue.resume()
    assert not queue.is_paused() and claimed(queue).id == waiting


def test_who_waits_is_told_and_nothing_is_foretold(queue: Queue) -> None:
    queue.submit(Enhance("a.jpg"))
    queue.publish(claimed(queue), FINAL)
    running, first, second = (queue.submit(Enhance("a.jpg")) for _ in range(3))
    claimed(queue)
    queue.pause()
    assert queue.place(running).eta_s == pytest.approx(FINAL.seconds, abs=1) and not queue.place(running).paused
    assert [queue.place(job_id) for job_id in (first, second)] == [Place(1, None, True), Place(2, None, True)]
    queue.resume()
    assert not queue.place(first).paused and queue.place(first).eta_s is not None


def test_a_pause_outlives_the_program(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    job_id = queue.submit(ONE)
    queue.pause()
    queue.pause()
    restarted = reopen()
    restarted.recover()
    assert restarted.is_paused() and restarted.claim() is None
    restarted.resume()
    assert claimed(queue).id == job_id, "and whoever else has it open sees its end"


def test_the_end_of_a_pause_wakes_a_worker(queue: Queue, within: Within[Job | None]) -> None:
    job_id = queue.submit(ONE)
    queue.pause()
    timer = threading.Timer(0.05, queue.resume)
    timer.start()
    job = within(30, lambda: queue.claim(wait_s=120))
    timer.join()
    assert job is not None and job.id == job_id


def test_a_pause_does_not_forget_how_many_have_passed_a_batch(queue: Queue) -> None:
    queue.submit_all([ONE], priority="batch")
    for _ in range(3):
        queue.submit(ONE)
        claimed(queue)
    queue.pause()
    queue.resume()
    later = [queue.submit(ONE) for _ in range(2)]
    assert [queue.place(job_id).ahead for job_id in later] == [3, 5]


def test_one_moves_before_the_own_others_and_before_nobody_elses(queue: Queue) -> None:
    running = queue.submit(ONE, "me")
    mine = [queue.submit(ONE, "me")]
    theirs = [queue.submit(ONE, "they")]
    mine += [queue.submit(ONE, "me"), queue.submit(ONE, "me")]
    theirs += [queue.submit(ONE, "they")]
    assert claimed(queue).id == running
    before = [queue.place(job_id).ahead for job_id in theirs]
    queue.move_first(mine[2])
    order = [mine[2], theirs[0], mine[0], mine[1], theirs[1]]
    assert [queue.place(job_id).ahead for job_id in order] == [1, 2, 3, 4, 5]
    assert [queue.place(job_id).ahead for job_id in theirs] == before
    assert [claimed(queue).id for _ in order] == order


def test_what_is_of_another_kind_is_not_passed(queue: Queue) -> None:
    model, one = queue.submit(Fetch("gpen"), "me"), queue.submit(ONE, "me")
    batch = queue.submit_all([ONE, ONE], "me", priority="batch")
    queue.move_first(batch[1])
    assert [queue.place(job_id).ahead for job_id in (model, one, batch[1], batch[0])] == [0, 0, 1, 2]


def test_what_belongs_to_nobody_stays_where_it_is(queue: Queue) -> None:
    """Each may be somebody else's."""
    jobs = [queue.submit(ONE) for _ in range(3)]
    queue.move_first(jobs[2])
    assert [queue.place(job_id).ahead for job_id in jobs] == [0, 1, 2]


def test_what_does_not_wait_moves_nothing(queue: Queue) -> None:
    jobs = [queue.submit(ONE, "me") for _ in range(4)]
    queue.publish(claimed(queue), FINAL)
    claimed(queue)
    for job_id in jobs[:2]:
        queue.move_first(job_id)
    assert [queue.place(job_id).ahead for job_id in jobs[2:]] == [1, 2]
    assert [queue.job(job_id).state for job_id in jobs] == ["done", "running", "queued", "queued"]
    with pytest.raises(NotFoundError):
        queue.move_first("nothing")
