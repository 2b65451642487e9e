"""What a page sees of a job: its place in the line, every change, the end; and the same when it comes back."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from engines.errors import NotFoundError
from engines.jobs import Job
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Event, Failed, Final, Generate, Preview, Progress
from tests.support.http import SKETCH
from tests.support.owners import KEYS, own
from webui import follow as following
from webui.follow import follow, resume
from webui.i18n import words
from webui.stage import status_text
from webui.stream import JobView

if TYPE_CHECKING:
    from tests.support.server import Rig

T = TypeVar("T")
Within = Callable[[float, Callable[[], T]], T]
EN = words("en")
ASKED = Generate("a woman")
EVENTS: tuple[Event, ...] = (
    Progress("load", 0, 1),
    Progress("denoise", 1, 2, 0.5),
    Preview(1, "preview_1.webp", 0.2),
    Progress("denoise", 2, 2, 0.2),
    Final(("outputs_1.png",), 3, 0.9, "ort", "ort on CPU"),
)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    made = SqliteQueue(tmp_path / "jobs.db", tmp_path)
    yield made
    made.close()


class Steps(Iterator[JobView]):
    """Scenes one by one, each awaited when it is asked for."""

    def __init__(self, runner: asyncio.Runner, scenes: AsyncIterator[JobView]) -> None:
        self.runner, self.scenes = runner, scenes

    def __next__(self) -> JobView:
        scene = self.runner.run(self._next())
        if scene is None:
            raise StopIteration
        return scene

    async def _next(self) -> JobView | None:
        return await anext(self.scenes, None)

    def close(self) -> None:
        self.runner.run(self.scenes.aclose())  # type: ignore[attr-defined]


Watch = Callable[[AsyncIterator[JobView]], Steps]


@pytest.fixture
def watch() -> Iterator[Watch]:
    with asyncio.Runner() as runner:
        yield partial(Steps, runner)


def claim(queue: SqliteQueue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def work_off(queue: SqliteQueue, *events: Event) -> None:
    job = claim(queue)
    for event in events:
        queue.publish(job, event)


def statuses(scenes: Iterator[JobView]) -> list[str]:
    return [scene.status for scene in scenes]


def test_a_waiting_job_counts_down_to_its_turn(
    queue: SqliteQueue, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.0)
    jobs = [queue.submit(ASKED) for _ in range(3)]
    scenes = watch(follow(own(queue), jobs[2], JobView(caption="a woman")))
    ahead = []
    for _ in range(2):
        scene = next(scenes)
        ahead.append(scene.facts["ahead"])
        assert (scene.status, scene.state, scene.caption) == ("stage_waiting", "running", "a woman")
        work_off(queue, *EVENTS)
    assert ahead == [2, 1]
    assert next(scenes).status == "stage_load"


def test_who_waits_is_told_how_long_it_takes(queue: SqliteQueue, watch: Watch) -> None:
    for _ in range(2):
        queue.submit(Enhance("a.jpg"))
    work_off(queue, Final(("outputs_1.png",), 3, 20.0, "ort"))
    claim(queue)
    scene = next(watch(follow(own(queue), queue.submit(Enhance("b.jpg")), JobView())))
    assert status_text(scene, EN) == "Waiting: 1 jobs ahead · about 40 s"


def test_who_is_first_in_a_paused_queue_is_told_so(
    queue: SqliteQueue, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.0)
    queue.pause()
    scenes = watch(follow(own(queue), queue.submit(ASKED), JobView()))
    for _ in range(2):
        scene = next(scenes)
        assert (scene.status, scene.state, scene.eta_s) == ("stage_paused", "running", None)
        assert status_text(scene, EN) == EN("stage_paused", ahead=0)
    queue.resume()
    assert next(scenes).status == "stage_load"


def test_a_running_job_is_ahead_of_a_waiting_one(queue: SqliteQueue, watch: Watch) -> None:
    queue.submit(ASKED)
    second = queue.submit(ASKED)
    claim(queue)
    assert next(watch(follow(own(queue), second, JobView()))).facts == {"ahead": 1}


def test_a_job_that_is_first_in_line_does_not_wait(queue: SqliteQueue, watch: Watch) -> None:
    assert next(watch(follow(own(queue), queue.submit(ASKED), JobView()))).status == "stage_load"


def test_every_event_is_a_scene_and_the_last_one_ends_it(
    queue: SqliteQueue, watch: Watch, within: Within[list[JobView]]
) -> None:
    job_id = queue.submit(ASKED)
    worker = threading.Thread(target=work_off, args=(queue, *EVENTS))
    worker.start()
    scenes = within(20, lambda: list(watch(follow(own(queue), job_id, JobView()))))
    worker.join()
    assert len(scenes) == 1 + len(EVENTS)
    assert [scene.status for scene in scenes[1:]] == ["stage_load", *["stage_denoise"] * 3, "stage_done_one"]
    assert (scenes[-1].state, scenes[-1].seed) == ("done", 3)
    assert scenes[-1].current and scenes[-1].current.image == KEYS.sign("outputs_1.png")


def test_scenes_come_when_events_do_and_not_at_the_end(
    queue: SqliteQueue, watch: Watch, within: Within[JobView]
) -> None:
    job_id = queue.submit(ASKED)
    job = claim(queue)
    scenes = watch(follow(own(queue), job_id, JobView()))
    next(scenes)
    for event, status in ((EVENTS[0], "stage_load"), (EVENTS[1], "stage_denoise")):
        queue.publish(job, event)
        assert within(20, lambda: next(scenes)).status == status


def test_a_job_cancelled_while_it_waits_ends_the_line(
    queue: SqliteQueue, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.0)
    queue.submit(ASKED)
    second = queue.submit(ASKED)
    scenes = watch(follow(own(queue), second, JobView()))
    assert next(scenes).status == "stage_waiting"
    queue.cancel(second)
    *_, last = scenes
    assert (last.state, last.code) == ("failed", "cancelled")


def test_an_unknown_job_cannot_be_followed(queue: SqliteQueue, watch: Watch) -> None:
    with pytest.raises(NotFoundError):
        list(watch(follow(own(queue), "0" * 32, JobView())))


def test_a_page_that_comes_back_is_shown_the_end_at_once(queue: SqliteQueue, watch: Watch) -> None:
    job_id = queue.submit(ASKED)
    work_off(queue, *EVENTS)
    (only,) = watch(resume(own(queue), job_id, JobView()))
    assert (only.state, only.status, only.seed) == ("done", "stage_done_one", 3)
    assert only.current and only.current.image == KEYS.sign("outputs_1.png")
    assert only.tiles[0].tiny_s == 0.2, "what it went through is known too"


@pytest.mark.parametrize("failed", [Failed("cancelled", ""), Failed("engine_failed", "", {"engine": "ort"})])
def test_a_page_that_comes_back_is_shown_how_it_failed(queue: SqliteQueue, watch: Watch, failed: Failed) -> None:
    job_id = queue.submit(ASKED)
    work_off(queue, *EVENTS[:3], failed)
    (only,) = watch(resume(own(queue), job_id, JobView()))
    assert (only.state, only.code) == ("failed", failed.code)


def test_a_page_that_comes_back_to_a_running_job_catches_up_and_goes_on(
    queue: SqliteQueue, watch: Watch, within: Within[list[str]]
) -> None:
    job_id = queue.submit(ASKED)
    job = claim(queue)
    for event in EVENTS[:3]:
        queue.publish(job, event)
    scenes = watch(resume(own(queue), job_id, JobView()))
    assert statuses(itertools.islice(scenes, 4)) == ["stage_load", "stage_load", "stage_denoise", "stage_denoise"]
    for event in EVENTS[3:]:
        queue.publish(job, event)
    assert within(20, lambda: statuses(scenes)) == ["stage_denoise", "stage_done_one"]


def test_a_page_that_comes_back_to_a_waiting_job_waits_on(queue: SqliteQueue, watch: Watch) -> None:
    queue.submit(ASKED)
    assert next(watch(resume(own(queue), queue.submit(ASKED), JobView()))).facts == {"ahead": 1}


@pytest.mark.parametrize("job_id", ["", "0" * 32, "'; DROP TABLE job; --", "x" * 100_000])
def test_a_page_that_comes_back_to_nothing_sees_nothing(queue: SqliteQueue, watch: Watch, job_id: str) -> None:
    kept = queue.submit(ASKED)
    assert list(watch(resume(own(queue), job_id, JobView()))) == []
    assert queue.job(kept).state == "queued"


def test_a_page_that_goes_away_does_not_stop_the_job(queue: SqliteQueue, watch: Watch) -> None:
    job_id = queue.submit(ASKED)
    job = claim(queue)
    scenes = watch(follow(own(queue), job_id, JobView()))
    next(scenes)
    queue.publish(job, EVENTS[0])
    next(scenes)
    scenes.close()
    assert all(queue.publish(job, event) for event in EVENTS[1:])
    assert queue.job(job_id).state == "done"


def test_a_closed_tab_loses_no_picture(rig: Rig) -> None:
    """R15: tabs that are closed in the middle, one after the other; every picture is in the history."""
    before = len(rig.jobs())
    for k in range(5):
        with rig.session() as page:
            assert page.join(page.endpoint("generate"), page.sketching(f"closed tab {k}")).status_code == 200
            assert next(message for message in page.listen() if message["msg"] == "process_generating")
    until(lambda: all(state == "done" for state in list(rig.jobs().values())[before:]))
    prompts = {f.job.request.prompt for f in rig.queue.finished(20) if isinstance(f.job.request, Generate)}
    assert prompts >= {f"closed tab {k}" for k in range(5)}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def test_a_page_opened_again_shows_the_job_it_left(rig: Rig) -> None:
    job_id = rig.queue.submit(Generate("come back", **SKETCH))
    list(rig.queue.follow(job_id))
    (final,) = (finished.final for finished in rig.queue.finished(1))
    with rig.session("en") as page:
        messages = str(page.call(page.endpoint("come_back"), [job_id]))
        assert final.images[0] in messages and "Done in" in messages
        unknown = str(page.call(page.endpoint("come_back"), ["0" * 32]))
        assert "outputs_" not in unknown and EN("stage_empty") in unknown
