"""Calls over a real Redis: each comes at once, again while it is not heeded, and never makes a job of itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from engines.jobs.celery_queue import AGAIN_S, AWAY, REACH_S, RETRY_S, CeleryQueue, calls_of, celery_app, listen
from engines.jobs.dispatch import CannotCall
from engines.jobs.plan import HOME
from engines.messages import Generate
from tests.support.brokers import wait_until
from tests.support.fakes import FakeClock
from tests.support.queues import FINAL
from tests.support.redis_server import MISSING, PROGRAM, RedisServer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(server: RedisServer, tmp_path: Path, clock: FakeClock) -> Iterator[CeleryQueue]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    (folder := tmp_path / "outputs").mkdir()
    queue = CeleryQueue(server.url, tmp_path / "jobs.db", folder, 100, clock=clock.perf_counter)
    yield queue
    queue.close()


def given(queue: CeleryQueue, worker: str = "desk", count: int = 1) -> list[str]:
    jobs = queue.submit_all([Generate("p")] * count)
    queue.give(dict.fromkeys(jobs, worker))
    return jobs


def calls(server: RedisServer, worker: str = "desk") -> list[str]:
    """The jobs to which it was called and has not come yet, the first call first."""
    with redis.Redis.from_url(server.url) as client:
        bodies = [json.loads(body) for body in client.lrange(calls_of(worker), 0, -1)]
    return [json.loads(body["headers"]["argsrepr"].replace("'", '"'))[0] for body in reversed(bodies)]


def test_a_call_is_an_id_in_json_and_nothing_else(queue: CeleryQueue, server: RedisServer) -> None:
    (job_id,) = given(queue)
    queue.call(["desk"])
    with redis.Redis.from_url(server.url) as client:
        (body,) = client.lrange(calls_of("desk"), 0, -1)
    message = json.loads(body)
    assert message["content-type"] == "application/json"
    assert job_id in body.decode() and "Generate" not in body.decode() and "prompt" not in body.decode()


def test_who_does_nothing_is_called_to_the_job_whose_turn_it_is(
    queue: CeleryQueue, server: RedisServer, clock: FakeClock
) -> None:
    first, second = given(queue, count=2)
    given(queue, "den")
    queue.call(["desk"])
    queue.call(["desk"])
    assert calls(server) == [first] and calls(server, "den") == [], "once, and nobody else"
    assert queue.claim(worker="desk") is not None
    clock.now += AGAIN_S + 1
    queue.call(["desk"])
    assert calls(server) == [first], "it has something to do"
    queue.cancel(first)
    queue.take_all_back("desk")
    queue.give({second: "desk"})
    queue.cancel(first)
    queue.call(["desk"])
    assert calls(server)[-1] == second


def test_a_call_in_vain_is_repeated(queue: CeleryQueue, server: RedisServer, clock: FakeClock) -> None:
    """The machine was just busy with something else, or Redis has forgotten it."""
    (job_id,) = given(queue)
    queue.call(["desk"])
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    clock.now += AGAIN_S - 1
    queue.call(["desk"])
    assert calls(server) == []
    clock.now += 2
    queue.call(["desk"])
    assert calls(server) == [job_id]


def test_nobody_is_called_to_what_may_not_begin(queue: CeleryQueue, server: RedisServer) -> None:
    (job_id,) = given(queue)
    queue.pause()
    queue.call(["desk"])
    assert calls(server) == []
    queue.resume()
    queue.give({job_id: HOME})
    queue.call(["desk"])
    assert calls(server) == []
    queue.give({job_id: "desk"})
    queue.cancel(job_id)
    queue.call(["desk"])
    assert calls(server) == []


class Desk:
    """A machine that listens, and takes the jobs to which it is called; while `is_busy`, none is done."""

    def __init__(self, queue: CeleryQueue, url: str, clock: FakeClock) -> None:
        self.queue, self.clock, self.done, self.idle = queue, clock, list[str](), threading.Event()
        self.idle.set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=listen, args=(url, "desk", self._do, self._stopping))
        self._thread.start()

    def _do(self, job_id: str) -> None:
        if (job := self.queue.claim(worker="desk")) is not None:
            self.idle.wait(60)
            self.queue.publish(job, FINAL)
            self.done.append(job.id)

    def until_done(self, jobs: list[str]) -> None:
        def is_done() -> bool:
            self.clock.now += 1
            with suppress(CannotCall):
                self.queue.call(["desk"])
            return set(self.done) == set(jobs)

        wait_until(is_done, f"{len(jobs)} jobs done")

    def stop(self) -> None:
        self.idle.set()
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("is_busy", [False, True])
def test_who_listens_comes_at_once_and_also_after_redis_was_away(
    is_busy: bool, tmp_path: Path, clock: FakeClock
) -> None:
    """Celery by itself would wait for ever if it was away at the end of a job."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    (folder := tmp_path / "outputs").mkdir()
    queue = CeleryQueue(server.url, tmp_path / "jobs.db", folder, 100, clock=clock.perf_counter)
    desk = Desk(queue, server.url, clock)
    try:
        desk.until_done(jobs := given(queue, count=3))
        if is_busy:
            desk.idle.clear()
            jobs += given(queue)
            queue.call(["desk"])
            wait_until(lambda: queue.job(jobs[-1]).state == "running", "it has begun")
        server.kill()
        clock.now += RETRY_S + 1
        with pytest.raises(CannotCall, match=AWAY):
            queue.call(["desk"])
        desk.idle.set()
        wait_until(lambda: set(desk.done) == set(jobs), "what has begun is done")
        jobs += given(queue)
        server.start()
        desk.until_done(jobs)
    finally:
        desk.stop()
        queue.close()
        server.kill()


def test_a_redis_that_hangs_is_away(queue: CeleryQueue, server: RedisServer, clock: FakeClock) -> None:
    given(queue)
    server.hang()
    try:
        begun = time.monotonic()
        with pytest.raises(CannotCall):
            queue.call(["desk"])
        assert time.monotonic() - begun < 10 * REACH_S, "whoever looks after the machines cannot wait for it"
    finally:
        server.go_on()
    clock.now += RETRY_S + AGAIN_S
    wait_until(lambda: _calls(queue), "it answers again")


def _calls(queue: CeleryQueue) -> bool:
    try:
        queue.call(["desk"])
    except CannotCall:
        return False
    return True


@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_nothing_but_json_is_read(server: RedisServer, serializer: str) -> None:
    app = celery_app(server.url)
    assert app.conf.accept_content == ["json"] and app.conf.task_acks_late and app.conf.task_reject_on_worker_lost
    assert app.conf.broker_transport_options["visibility_timeout"] >= 86_400, "longer than any job"
    assert serializer not in app.conf.accept_content
