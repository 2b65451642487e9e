"""What the tests of every queue share: which queues there are, what a worker claims, and events to publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engines.jobs import Job
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Final, Progress

Queue = SqliteQueue  # the protocol plus what a worker needs: claim, recover, close
QUEUES: dict[str, Callable[[Path], Queue]] = {"sqlite": lambda home: SqliteQueue(home / "queue.db", home / "outputs")}
FINAL = Final(("a.png",), 7, 1.5, "ort", "why")


def claimed(queue: Queue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def progress(i: int) -> Progress:
    return Progress("denoise", i, 99)
