"""Quiet hours: which they are, and what a queue does in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.jobs.quiet import QuietHours
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Fetch, Generate
from tests.support.queues import FINAL, claimed

NIGHT = "22:00-07:00"


def at(clock: str) -> float:
    """A moment of the 10th of June 2026, by this machine's clock."""
    return time.mktime(time.strptime(f"2026-06-10 {clock}", "%Y-%m-%d %H:%M:%S"))


@pytest.mark.parametrize(
    ("span", "clock", "left_s"),
    [
        (NIGHT, "21:59:59", 0),
        (NIGHT, "22:00:00", 9 * 3600),
        (NIGHT, "23:30:30", 7.5 * 3600 - 30),
        (NIGHT, "06:59:59", 1),
        (NIGHT, "07:00:00", 0),
        ("13:00-14:30", "13:00:00", 5400),
        (" 9:05 - 9:06 ", "09:05:59", 1),
        ("13:00-14:30", "14:30:00", 0),
        ("13:00-14:30", "12:00:00", 0),
        ("00:00-00:00", "00:00:00", 0),
        ("", "03:00:00", 0),
    ],
)
def test_how_long_it_stays_quiet(span: str, clock: str, left_s: float) -> None:
    assert QuietHours.parse(span).left_s(at(clock)) == left_s


@pytest.mark.parametrize(
    "span", ["22-7", "24:00-07:00", "22:60-07:00", "22:00", "-", "22:00-07:00-08:00", "²2:00-07:00"]
)
def test_what_is_no_span_is_refused(span: str) -> None:
    with pytest.raises(ValueError, match="22:00-07:00"):
        QuietHours.parse(span)


class Clock:
    """Time, as a test has it. What sleeps or waits does so by the true one."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(at("23:00:00"))
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def queue(clock: Clock, tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path, quiet=QuietHours.parse(NIGHT))
    yield opened
    opened.close()


def test_at_night_no_batch_begins_and_single_jobs_do(queue: SqliteQueue, clock: Clock) -> None:
    clock.now = at("21:59:00")
    batch = queue.submit_all([Enhance("a.jpg")] * 9, "me", "batch")
    running = claimed(queue)
    assert running.id == batch[0]
    clock.now = at("22:00:00")
    assert queue.publish(running, FINAL), "what runs ends"
    assert queue.claim() is None
    asked = [queue.submit(Generate(str(i))) for i in range(6)]
    for job_id in asked:  # also where a batch would have its turn after four of them
        job = claimed(queue)
        assert job.id == job_id
        queue.publish(job, FINAL)
    model = queue.submit(Fetch("gpen"))
    build = queue.claim(lane="builds")
    assert build is not None and build.id == model
    assert queue.claim() is None
    clock.now = at("07:00:00")
    assert claimed(queue).id == batch[1]


def test_who_waits_for_the_morning_is_told_so(queue: SqliteQueue, clock: Clock) -> None:
    (first, second), single = queue.submit_all([Enhance("a.jpg")] * 2, "me", "batch"), queue.submit(Generate("p"))
    assert [(queue.place(job).ahead, queue.place(job).quiet_s) for job in (single, first, second)] == [
        (0, 0.0), (1, 8 * 3600.0), (2, 8 * 3600.0),
    ]  # fmt: skip
    clock.now += 600
    assert queue.place(first).quiet_s == 8 * 3600 - 600
    clock.now = at("07:00:00")  # nothing in the database has changed
    assert [(queue.place(job).ahead, queue.place(job).quiet_s) for job in (single, first, second)] == [
        (0, 0.0), (1, 0.0), (2, 0.0),
    ]  # fmt: skip


def test_the_end_is_foretold_from_the_morning_on(queue: SqliteQueue, clock: Clock) -> None:
    queue.submit(Enhance("a.jpg"))
    queue.publish(claimed(queue), FINAL)
    (photo,) = queue.submit_all([Enhance("a.jpg")], "me", "batch")
    assert queue.place(photo).eta_s == pytest.approx(8 * 3600 + FINAL.seconds, abs=1)


def test_without_quiet_hours_the_night_is_as_the_day(clock: Clock, tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "other.db", tmp_path)
    (photo,) = queue.submit_all([Enhance("a.jpg")], "me", "batch")
    assert queue.place(photo).quiet_s == 0.0 and claimed(queue).id == photo
    queue.close()
