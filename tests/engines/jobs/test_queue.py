"""The contract of every queue: order, claims, fencing, cancelling, following, and what survives a stop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from engines.errors import JobPostponed, NotFoundError, StorageError
from engines.jobs import ENDED, Job, state_after
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Event, Failed, Generate, Preview
from engines.messages.status import EngineStatus, Status
from tests.conftest import Within
from tests.support.queues import FINAL, Queue, claimed, progress


def test_a_job_goes_from_queued_to_done(queue: Queue) -> None:
    request = Generate("一位女士", seed=3)
    job_id = queue.submit(request)
    assert queue.job(job_id) == Job(job_id, "", request, "queued", 0)
    job = claimed(queue)
    assert job == Job(job_id, "", request, "running", 1) == queue.job(job_id)
    assert queue.publish(job, progress(1)) and queue.publish(job, FINAL)
    assert queue.job(job_id).state == "done"
    assert list(queue.follow(job_id)) == [progress(1), FINAL]


def test_who_looks_now_and_then_sees_the_newest(queue: Queue) -> None:
    job_id = queue.submit(Generate("p"))
    assert queue.latest(job_id) is None and queue.latest("no such job") is None
    other, job = queue.submit(Generate("q")), claimed(queue)
    for i in (1, 2, 3):
        queue.publish(job, progress(i))
        assert queue.latest(job_id) == progress(i)
    queue.publish(job, FINAL)
    assert queue.latest(job_id) == FINAL and queue.latest(other) is None


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (FINAL, "done"),
        (Failed("bad_size", ""), "failed"),
        (Failed("cancelled", ""), "cancelled"),
        (Preview(1, "a"), "running"),
    ],
)
def test_the_last_event_decides_the_state(queue: Queue, event: Event, state: str) -> None:
    job_id = queue.submit(Generate("p"))
    queue.publish(claimed(queue), event)
    assert queue.job(job_id).state == state == state_after(event)
    assert (state in ENDED) == (state != "running")


def test_first_come_first_served(queue: Queue) -> None:
    ids = [queue.submit(Generate(str(i))) for i in range(5)]
    assert len(set(ids)) == 5
    assert [queue.place(job_id).ahead for job_id in ids] == [0, 1, 2, 3, 4]
    first = claimed(queue)
    assert [queue.place(job_id).ahead for job_id in ids] == [0, 1, 2, 3, 4]  # it still has to be finished
    queue.publish(first, FINAL)
    assert [queue.place(job_id).ahead for job_id in ids] == [0, 0, 1, 2, 3]
    assert [claimed(queue).id for _ in range(4)] == ids[1:]
    assert queue.claim() is None


def test_waiting_for_a_job_ends_when_one_comes(queue: Queue, within: Within[Job | None]) -> None:
    submitted: list[str] = []
    timer = threading.Timer(0.05, lambda: submitted.append(queue.submit(Generate("p"))))
    timer.start()
    job = within(30, lambda: queue.claim(wait_s=120))  # woken long before it would have looked by itself
    timer.join()
    assert job is not None and [job.id] == submitted and queue.job(job.id).state == "running"


def test_what_is_not_there_is_not_found(queue: Queue) -> None:
    for ask in (queue.job, queue.cancel, lambda name: list(queue.follow(name))):
        with pytest.raises(NotFoundError):
            ask("nothing")


def test_followers_see_what_was_and_what_comes(queue: Queue, within: Within[list[Event]]) -> None:
    job_id = queue.submit(Generate("p"))
    job = claimed(queue)
    events: list[Event] = [progress(1), Preview(1, "x.webp"), progress(2), FINAL]
    for event in events[:2]:
        queue.publish(job, event)
    stream = queue.follow(job_id)
    assert [next(stream), next(stream)] == events[:2]
    for event in events[2:]:
        queue.publish(job, event)
    assert within(5, lambda: list(stream)) == events[2:]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_following_goes_on_after_what_was_seen(queue: Queue, within: Within[list[Event]], after: int) -> None:
    """Who has seen everything of a job that has ended is told so, and does not wait for ever."""
    job_id = queue.submit(Generate("p"))
    job = claimed(queue)
    events: list[Event] = [progress(1), progress(2), FINAL]
    for event in events:
        queue.publish(job, event)
    assert within(5, lambda: list(queue.follow(job_id, after))) == events[after:]


def test_a_job_that_waits_is_cancelled_at_once(queue: Queue, within: Within[list[Event]]) -> None:
    job_id = queue.submit(Generate("p"))
    queue.cancel(job_id)
    assert queue.job(job_id).state == "cancelled"
    assert queue.claim() is None
    (event,) = within(5, lambda: list(queue.follow(job_id)))
    assert isinstance(event, Failed) and event.code == "cancelled"
    queue.cancel(job_id)  # twice is no harm
    assert len(list(queue.follow(job_id))) == 1


def test_a_job_that_runs_is_told_at_its_next_event(queue: Queue) -> None:
    job_id = queue.submit(Generate("p"))
    job = claimed(queue)
    assert queue.publish(job, progress(1)) is True
    queue.cancel(job_id)
    assert queue.job(job_id).state == "running"
    assert queue.publish(job, progress(2)) is False
    queue.publish(job, Failed("cancelled", ""))
    assert queue.job(job_id).state == "cancelled"
    assert list(queue.follow(job_id))[-1] == Failed("cancelled", "")


def test_cancelling_what_has_ended_changes_nothing(queue: Queue) -> None:
    job_id = queue.submit(Generate("p"))
    queue.publish(claimed(queue), FINAL)
    queue.cancel(job_id)
    assert queue.job(job_id).state == "done" and list(queue.follow(job_id)) == [FINAL]


def test_only_the_latest_attempt_may_publish(queue: Queue, reopen: Callable[[], Queue]) -> None:
    job_id = queue.submit(Generate("p"))
    stale = claimed(queue)
    queue.publish(stale, progress(1))
    restarted = reopen()
    restarted.recover()
    fresh = claimed(restarted)
    assert (fresh.id, fresh.attempts) == (job_id, 2)
    assert queue.publish(stale, progress(66)) is False and queue.publish(stale, FINAL) is False
    assert restarted.job(job_id).state == "running"
    assert restarted.publish(fresh, FINAL) is True
    assert restarted.publish(fresh, progress(3)) is False  # nothing comes after the end
    assert list(restarted.follow(job_id)) == [FINAL]


def test_nothing_is_published_for_a_job_that_nobody_claimed(queue: Queue) -> None:
    job_id = queue.submit(Generate("p"))
    assert queue.publish(queue.job(job_id), FINAL) is False
    assert queue.job(job_id).state == "queued"


def test_what_was_running_when_the_program_stopped_is_tried_once_more(reopen: Callable[[], Queue]) -> None:
    job_id = reopen().submit(Generate("p"))
    for attempt in (1, 2):
        queue = reopen()
        queue.recover()
        assert claimed(queue).attempts == attempt
    queue = reopen()
    queue.recover()
    assert queue.claim() is None
    assert queue.job(job_id).state == "failed"
    last = list(queue.follow(job_id))[-1]
    assert isinstance(last, Failed) and last.code == "interrupted"


def test_what_ran_when_the_program_was_stopped_in_order_is_not_held_against_it(reopen: Callable[[], Queue]) -> None:
    """However often: a box that is switched off every evening must not lose what takes all night."""
    job_id = reopen().submit(Generate("p"))
    for attempt in range(1, 6):
        queue = reopen()
        queue.recover()
        assert claimed(queue).attempts == attempt
        queue.release()
    for attempt in (6, 7):  # these end in crashes
        queue = reopen()
        queue.recover()
        assert claimed(queue).attempts == attempt
    queue = reopen()
    queue.recover()
    assert queue.job(job_id).state == "failed"


def test_what_begins_anew_has_no_past(reopen: Callable[[], Queue]) -> None:
    """Pages would show a picture of the first attempt beside that of the second, and both would lie there for ever."""
    queue = reopen()
    job_id, other = queue.submit(Generate("p", count=2)), queue.submit(Generate("q"))
    queue.folder.mkdir(exist_ok=True)
    for name in ("half.png", "half.negative.npz", "half_2.png", "a.png", ".0123456789abcdef.tmp"):
        (queue.folder / name).touch()
    job = claimed(queue)
    queue.publish(job, progress(1))
    queue.publish(job, Preview(1, "half.png", kind="result"))
    queue.publish(claimed(queue), FINAL)
    queue.release()
    restarted = reopen()
    restarted.recover()
    assert restarted.since(job_id, 0) == ([], False)
    assert restarted.since(other, 0) == ([(1, FINAL)], True)
    restarted.publish(claimed(restarted), progress(2))
    assert restarted.since(job_id, 2) == ([(3, progress(2))], False), "who heard two goes on with the third"
    assert {path.name for path in queue.folder.iterdir()} == {"a.png", "half_2.png"}


def test_the_latest_snapshot_is_kept_until_the_job_ends(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    job = claimed_after(queue, Generate("p"))
    assert queue.snapshot(job) is None
    queue.save_snapshot(job, b"1", [])
    queue.save_snapshot(job, b"2\x00\xff", ["a.png"])
    queue = reopen()
    queue.recover()
    again = claimed(queue)
    assert queue.snapshot(again) == b"2\x00\xff"
    queue.publish(again, FINAL)
    assert queue.snapshot(again) is None


@pytest.mark.parametrize("end", ["cancelled", "died twice"])
def test_no_snapshot_outlives_its_job(reopen: Callable[[], Queue], end: str) -> None:
    queue = reopen()
    job = claimed_after(queue, Generate("p"))
    queue.save_snapshot(job, b"1", [])
    queue.recover()
    if end == "cancelled":
        queue.cancel(job.id)
    else:
        claimed(queue)
        queue.recover()
    assert queue.job(job.id).state in ENDED and queue.snapshot(job) is None


def test_a_late_attempt_keeps_nothing(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    stale = claimed_after(queue, Generate("p"))
    queue.recover()
    fresh = claimed(queue)
    queue.save_snapshot(fresh, b"fresh", [])
    queue.save_snapshot(stale, b"stale", [])
    assert queue.snapshot(fresh) == b"fresh"


def test_pictures_on_which_a_snapshot_counts_stay(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    queue.folder.mkdir(exist_ok=True)
    job = claimed_after(queue, Generate("p", count=3))
    names = [f"outputs_2026112909000{k}.png" for k in range(3)]
    for name in names:
        (queue.folder / name).touch()
    os.utime(queue.folder / names[2], (time.time() + 1, time.time() + 1))
    for name in names[:2]:  # the crash came before the third was told
        queue.publish(job, Preview(1, name, kind="result"))
    queue.save_snapshot(job, b"1", names[:1])
    for _ in range(2):  # the second time before anything was told of the first picture
        queue = reopen()
        queue.recover()
        assert [path.name for path in queue.folder.iterdir()] == names[:1]
        queue.claim()
        queue.release()


def claimed_after(queue: Queue, request: Generate) -> Job:
    queue.submit(request)
    return claimed(queue)


def test_a_picture_of_which_the_crash_let_nothing_be_stored_is_deleted(reopen: Callable[[], Queue]) -> None:
    """It was saved, and the program killed before the event: nobody would ever be shown it, or delete it."""
    queue = reopen()
    queue.folder.mkdir(exist_ok=True)
    long_ago, now = time.time() - 3600, time.time() + 1
    queue.submit(Generate("shown"))
    queue.publish(claimed(queue), replace(FINAL, images=("outputs_2.png",)))
    queue.submit(Generate("killed"))
    claimed(queue)
    stored = {"outputs_1.png": long_ago, "outputs_2.png": now, "outputs_3.png": now, "outputs_3.negative.npz": now}
    for name, then in {**stored, "holiday.png": now}.items():
        (queue.folder / name).touch()
        os.utime(queue.folder / name, (then, then))
    restarted = reopen()
    restarted.recover()
    left = {path.name for path in queue.folder.iterdir()}
    assert left == {"outputs_1.png", "outputs_2.png", "holiday.png"}, "what another wrote, or showed, is its own"


def test_after_the_stop_the_old_attempt_may_publish_nothing(queue: Queue) -> None:
    """Its thread may still be in the middle of a step."""
    ended, running = queue.submit(Generate("p")), queue.submit(Generate("q"))
    queue.publish(claimed(queue), FINAL)
    job = claimed(queue)
    queue.release()
    assert [queue.job(job_id).state for job_id in (ended, running)] == ["done", "queued"]
    assert queue.publish(job, FINAL) is False and queue.job(running).state == "queued"


def test_who_follows_hears_of_the_stop(queue: Queue, within: Within[list[Event]]) -> None:
    ended, running, waiting = (queue.submit(Generate(prompt)) for prompt in "pqr")
    queue.publish(claimed(queue), FINAL)
    queue.publish(claimed(queue), progress(1))

    def postponed(job_id: str) -> list[Event]:
        heard = []
        with pytest.raises(JobPostponed):
            for event in queue.follow(job_id):
                heard.append(event)
                queue.release()  # while somebody listens
        return heard

    assert within(5, partial(postponed, running)) == [progress(1)]
    assert within(5, partial(postponed, waiting)) == []
    assert list(queue.follow(ended)) == [FINAL], "what has ended is told to the end"
    with pytest.raises(JobPostponed):
        queue.place(waiting)


def test_recovering_keeps_the_order_and_leaves_the_others(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    ids = [queue.submit(Generate(str(i))) for i in range(4)]
    queue.publish(claimed(queue), FINAL)
    claimed(queue)
    queue.cancel(ids[3])
    restarted = reopen()
    restarted.recover()
    assert [restarted.job(job_id).state for job_id in ids] == ["done", "queued", "queued", "cancelled"]
    assert [claimed(restarted).id for _ in range(2)] == ids[1:3]


def test_a_job_that_was_cancelled_before_the_program_stopped_is_not_run_again(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    job_id = queue.submit(Generate("p"))
    claimed(queue)
    queue.cancel(job_id)
    restarted = reopen()
    restarted.recover()
    job = restarted.claim()
    assert job is None or restarted.publish(job, progress(1)) is False


def test_everything_is_on_disk_before_anybody_hears_of_it(
    reopen: Callable[[], Queue], within: Within[list[Event]]
) -> None:
    queue = reopen()
    request = Enhance("照片.jpg", 40, "detail")
    job_id = queue.submit(request)
    job = claimed(queue)
    queue.publish(job, progress(1))
    other = reopen()  # another process, while the first still runs
    assert other.job(job_id) == job and next(other.follow(job_id)) == progress(1)
    queue.publish(job, FINAL)
    assert within(5, lambda: list(other.follow(job_id, after=1))) == [FINAL]
    assert other.finished(9)[0].job.request == request


def test_finished_is_newest_first_and_holds_what_went_well(queue: Queue) -> None:
    ends: list[Event] = [FINAL, Failed("bad_size", ""), FINAL, Failed("cancelled", ""), FINAL]
    for i, end in enumerate(ends):
        queue.submit(Generate(str(i)))
        job = claimed(queue)
        queue.publish(job, progress(1))
        queue.publish(job, end)
    queue.submit(Generate("waiting"))
    done = queue.finished(10)
    assert [item.job.request.prompt for item in done if isinstance(item.job.request, Generate)] == ["4", "2", "0"]
    assert all(item.final == FINAL and item.job.state == "done" for item in done)
    assert [item.job.ended for item in done] == sorted((item.job.ended for item in done), reverse=True)
    assert [item.job.id for item in queue.finished(2)] == [item.job.id for item in done[:2]]
    assert queue.finished(0) == []


def test_two_workers_never_take_the_same_job(queue: Queue, reopen: Callable[[], Queue]) -> None:
    """Four threads on two connections; 200 jobs; every job once, in order within a worker."""
    ids = [queue.submit(Generate(str(i))) for i in range(200)]
    other, taken = reopen(), {name: list[str]() for name in range(4)}

    def work(name: int) -> None:
        mine = (queue, other)[name % 2]
        while (job := mine.claim()) is not None:
            taken[name].append(job.id)

    run_all([threading.Thread(target=work, args=(name,)) for name in taken])
    assert sorted(sum(taken.values(), [])) == sorted(ids)
    assert all(names == sorted(names, key=ids.index) for names in taken.values())


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_many_followers_see_all_events_in_order(queue: Queue, reopen: Callable[[], Queue]) -> None:
    job_id = queue.submit(Generate("p"))
    job, other = claimed(queue), reopen()
    events: list[Event] = [*map(progress, range(60)), FINAL]
    seen = {name: list[Event]() for name in range(8)}
    started = threading.Barrier(len(seen) + 1)

    def follow(name: int) -> None:
        stream = (other if name == 0 else queue).follow(job_id)
        started.wait(10)
        seen[name].extend(stream)

    def publish() -> None:
        started.wait(10)
        for event in events:
            assert queue.publish(job, event)

    run_all([threading.Thread(target=publish), *(threading.Thread(target=follow, args=(name,)) for name in seen)])
    assert all(got == events for got in seen.values())


def test_the_workers_status_reaches_everybody(queue: Queue) -> None:
    assert queue.status() == Status("loading")
    ready = Status("ready", "", (EngineStatus("ort", True, "CPU", "2 threads"),))
    queue.announce(ready)
    assert queue.status() == ready


def test_a_folder_in_the_place_of_the_database_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.mkdir()
    with pytest.raises(StorageError):
        SqliteQueue(path, tmp_path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        SqliteQueue(tmp_path / "file" / "queue.db", tmp_path)
