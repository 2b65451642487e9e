"""The contract of every queue: who waits for one picture passes who waits for a hundred, but not for ever."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engines.jobs import Priority
from engines.jobs.sqlite_queue import SqliteQueue
from engines.jobs.turns import MOST_PASSED, in_turn
from engines.messages import Enhance, Generate
from tests.support.queues import FINAL, Queue, claimed

PHOTO = Enhance("a.jpg")
ONE, MANY = Generate("p"), [PHOTO] * 12


def begun(queue: Queue, count: int) -> list[str]:
    """The next jobs that begin and end."""
    jobs = [claimed(queue) for _ in range(count)]
    for job in jobs:
        queue.publish(job, FINAL)
    return [job.id for job in jobs]


def test_a_batch_gives_way(queue: Queue) -> None:
    batch = queue.submit_all(MANY, "me", priority="batch")
    first = claimed(queue)
    assert first.id == batch[0]
    one, other = queue.submit(ONE), queue.submit(PHOTO)
    assert [queue.place(job_id).ahead for job_id in (one, other, batch[1])] == [1, 2, 3], "what runs is not broken off"
    assert begun(queue, 4) == [one, other, *batch[1:3]]


def test_several_at_once_are_no_batch_unless_it_is_said(queue: Queue) -> None:
    two = queue.submit_all([ONE, ONE])
    later = queue.submit(ONE)
    assert begun(queue, 3) == [*two, later]


def test_a_stream_of_others_does_not_starve_a_batch(queue: Queue) -> None:
    batch = queue.submit_all(MANY, priority="batch")
    taken = []
    for _ in range(60):
        queue.submit(ONE)
        taken += begun(queue, 1)
    at = [taken.index(job_id) for job_id in batch]
    assert at == [MOST_PASSED + k * (MOST_PASSED + 1) for k in range(len(batch))]


def test_those_who_came_while_nobody_waited_have_passed_nobody(queue: Queue) -> None:
    for _ in range(9):
        queue.submit(ONE)
        begun(queue, 1)
    (photo,), one = queue.submit_all([PHOTO], priority="batch"), queue.submit(ONE)
    assert begun(queue, 2) == [one, photo]


@pytest.mark.parametrize("seed", range(8))
def test_the_line_is_as_it_will_be(reopen: Callable[[], Queue], seed: int) -> None:
    """Whatever is submitted and begun: if nobody comes any more, all begin in the order that they were told."""
    dice, queue, door = random.Random(seed), reopen(), reopen()
    for _ in range(30):
        priority: Priority = dice.choice(("interactive", "batch"))
        door.submit_all([ONE] * dice.randint(1, 3), priority=priority)
        begun(queue, dice.randint(0, 1))
    with closing(sqlite3.connect(queue.folder.parent / "queue.db")) as db:
        waiting = [row[0] for row in db.execute("SELECT id FROM job WHERE state='queued'")]
    foretold = sorted(waiting, key=lambda job_id: door.place(job_id).ahead)
    assert [door.place(job_id).ahead for job_id in foretold] == list(range(len(waiting)))
    assert begun(queue, len(waiting)) == foretold


def test_a_job_of_a_batch_that_was_broken_off_is_still_one(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    batch = queue.submit_all(MANY, priority="batch")
    claimed(queue)
    queue.release()
    restarted = reopen()
    restarted.recover()
    one = restarted.submit(ONE)
    assert begun(restarted, 2) == [one, batch[0]]


def test_whose_turn_it_is() -> None:
    assert list(in_turn([("a", "batch"), ("b", "interactive")], MOST_PASSED)) == ["a", "b"]
    assert list(in_turn([("a", "batch"), ("b", "interactive")], 0)) == ["b", "a"]
    assert list(in_turn([], 0)) == []


def test_jobs_of_an_older_database_are_interactive(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    SqliteQueue(path, tmp_path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE job DROP COLUMN priority")
        db.execute("DROP TABLE lane")
    queue = SqliteQueue(path, tmp_path)
    (photo,), one = queue.submit_all([PHOTO], priority="batch"), queue.submit(ONE)
    assert begun(queue, 2) == [one, photo]
    queue.close()
