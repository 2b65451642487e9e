"""Two lanes of one queue: pictures never wait for a build, and a build is a job like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

from engines.jobs import Job
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Build, Develop, Enhance, Fetch, Generate, Request
from tests.support.queues import FINAL, Queue, claimed, progress

BUILD = Build("restorer", "mine.pth", "edge-int8", "mine", prompts=("一位女士",))
FETCH = Fetch("gpen-bfr-512")
PICTURES: tuple[Request, ...] = (Generate('{"kind": "build"'), Enhance("a.jpg"), Develop("a.png"))


def test_a_build_and_pictures_do_not_wait_for_each_other(queue: Queue) -> None:
    build = queue.submit(BUILD)
    pictures = [queue.submit(request) for request in PICTURES]
    later = queue.submit(FETCH)
    assert [queue.place(job_id).ahead for job_id in (build, *pictures, later)] == [0, 0, 1, 2, 1]
    running = queue.claim(lane="builds")
    assert running == Job(build, "", BUILD, "running", 1)
    assert [claimed(queue).id for _ in pictures] == pictures and queue.claim() is None, (
        "an hour's build holds up nobody"
    )
    assert running is not None and queue.publish(running, progress(1)) and queue.place(later).ahead == 1
    queue.publish(running, FINAL)
    assert queue.place(later).ahead == 0
    then = queue.claim(lane="builds")
    assert then is not None and then.id == later and queue.claim(lane="builds") is None


def test_a_lane_is_busy_while_anything_waits_or_runs_there(queue: Queue) -> None:
    assert (queue.busy(), queue.busy("builds")) == (False, False)
    queue.submit(BUILD)
    assert (queue.busy(), queue.busy("builds")) == (False, True)
    queue.submit(Generate("p"))
    job = claimed(queue)
    assert queue.busy()
    queue.publish(job, FINAL)
    assert not queue.busy()


def test_a_build_is_cancelled_recovered_and_fenced_like_any_job(reopen: Callable[[], Queue]) -> None:
    queue = reopen()
    job_id = queue.submit(BUILD)
    stale = queue.claim(lane="builds")
    restarted = reopen()
    restarted.recover()
    fresh = restarted.claim(lane="builds")
    assert stale is not None and fresh is not None and (fresh.id, fresh.attempts, fresh.request) == (job_id, 2, BUILD)
    assert restarted.claim() is None, "it is no picture after a restart either"
    assert queue.publish(stale, progress(1)) is False
    restarted.cancel(job_id)
    assert restarted.publish(fresh, progress(1)) is False


def test_a_build_is_no_picture_to_look_at(queue: Queue) -> None:
    queue.submit(BUILD)
    build = queue.claim(lane="builds")
    assert build is not None and queue.publish(build, FINAL) and queue.job(build.id).state == "done"
    assert queue.finished(9) == []


def test_idle_workers_of_two_lanes_do_not_keep_each_other_awake(tmp_path: Path) -> None:
    queue, said = SqliteQueue(tmp_path / "jobs.db", tmp_path), []
    queue._db.set_trace_callback(said.append)
    workers = [Thread(target=queue.claim, args=(0.4, lane)) for lane in ("pictures", "builds")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(said) < 10, "each looks once before it waits, and nothing wakes it"
    queue._db.set_trace_callback(None)
    queue.close()
