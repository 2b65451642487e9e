"""
The queue of a house whose machines are called to their jobs: its rows are SQLite's, and Celery brings to a machine,
over Redis, the id of the job whose turn it is there.

A message is only a call. It may be lost, come late, or come twice: what counts is the row, for which the machine then
asks the studio. So a machine is called again while that job waits, and one that is called in vain is given nothing.
With Redis away no row is lost, and nothing is done twice.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from celery import Celery, Task
from kombu.exceptions import OperationalError
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from engines.jobs.dispatch import CannotCall
from engines.jobs.quiet import NEVER_QUIET, QuietHours
from engines.jobs.sqlite_queue import SqliteQueue
from engines.jobs.statements import DUE

TASK = "studio.do"
AGAIN_S = 5.0  # until a machine that has not come is called again
REACH_S = 2.0  # for Redis to answer
RETRY_S = 1.0
# After which Redis gives what was taken, and not finished, to somebody else. A task here is a whole job; what a machine
# leaves behind, the studio gives to another one long before, so this call, a day later, is in vain.
VISIBILITY_S = 86_400
AWAY = "Redis does not answer"


def celery_app(url: str) -> Celery:
    """Return the messages' form, the same for who calls and who is called."""
    app = Celery("studio", broker=url, set_as_current=False, fixups=[])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,  # what comes of a job goes to the studio
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the studio hears of its end over HTTP
        broker_connection_timeout=REACH_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_S,
            "socket_timeout": REACH_S,
            "socket_connect_timeout": REACH_S,
        },
    )
    return app


def redis_of(url: str) -> Redis:
    """Return a client that says at once if there is no answer."""
    return Redis.from_url(url, socket_timeout=REACH_S, socket_connect_timeout=REACH_S, retry=Retry(NoBackoff(), 0))


def calls_of(worker: str) -> str:
    """Return the name of the queue by which a worker is called."""
    return f"studio.worker.{worker}"


class CeleryQueue(SqliteQueue):
    def __init__(
        self,
        url: str,
        path: Path,
        folder: Path,
        limit: float,
        quiet: QuietHours = NEVER_QUIET,
        pause_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url`: of Redis. The others as SqliteQueue says."""
        super().__init__(path, folder, limit, quiet=quiet, pause_s=pause_s)
        self._app, self._clock = celery_app(url), clock
        self._redis = redis_of(url)
        self._called: dict[str, tuple[str, float]] = {}  # by worker: the job it was called to last, and when
        self._reached = -REACH_S

    def call(self, workers: Iterable[str]) -> None:
        """
        Call each of these workers, if it does nothing, to the job whose turn it is there. CannotCall: Redis does not
        answer. For one thread only.
        """
        now = self._clock()
        if now - self._reached > RETRY_S:  # whether anybody is to be called or not: people are told at once
            try:
                self._redis.ping()
            except RedisError as exc:
                raise CannotCall(AWAY) from exc
            self._reached = now
        for worker in workers:
            self._call(worker, now)

    def _call(self, worker: str, now: float) -> None:
        due = next((str(job_id) for (job_id,) in self._rows(DUE, self.is_quiet(), "pictures", worker)), "")
        job_id, at = self._called.get(worker, ("", now))
        if due and (due != job_id or now - at > AGAIN_S):
            try:
                self._app.send_task(TASK, args=[due], queue=calls_of(worker), ignore_result=True, retry=False)
            except OperationalError as exc:
                raise CannotCall(AWAY) from exc
            self._called[worker] = due, now

    def close(self) -> None:
        super().close()
        self._app.close()
        self._redis.close()


def listen(url: str, worker: str, do: Callable[[str], object], stopping: threading.Event) -> None:
    """Call `do` with the id of each job to which this worker is called, one after the other, until it is `stopping`."""
    from celery.exceptions import CPendingDeprecationWarning
    from celery.worker import WorkController, state  # here: who calls need not wait for it

    class Call(Task):  # type: ignore[misc]
        name = TASK

        def run(self, job_id: str) -> None:
            do(job_id)

    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # at each lost connection, of a setting of ours
    while not stopping.is_set():
        app, over = celery_app(url), threading.Event()
        app.register_task(Call())
        app.set_current()  # of this thread, as Celery looks for the tasks there
        state.should_stop = None
        watch = threading.Thread(target=_end_in_time, args=(redis_of(url), stopping, over), name="redis", daemon=True)
        watch.start()
        WorkController(
            app=app,
            hostname=f"{worker}@studio",
            pool="solo",
            concurrency=1,
            queues=[calls_of(worker)],
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        ).start()
        over.set()
        watch.join()


def _end_in_time(redis: Redis, stopping: threading.Event, over: threading.Event) -> None:
    """
    Have Celery end when it is `stopping`, or when Redis has begun anew: it connects again by itself while it does
    nothing, but if that happens during a task that is acknowledged at its end, as ours are, it waits for ever.
    """
    from celery.worker import state

    first, is_lost = _run_of(redis), False
    while not over.is_set() and not stopping.wait(RETRY_S):
        run = _run_of(redis)
        first = first or run
        is_lost = is_lost or (bool(first) and not run)
        if run and (is_lost or run != first):
            break
    redis.close()
    state.should_stop = 0  # Celery's own way: its loop ends at its next look


def _run_of(redis: Redis) -> str:
    """Return which run of Redis answers; empty: none does."""
    try:
        return str(redis.info("server")["run_id"])
    except RedisError:
        return ""
