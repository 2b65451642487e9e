"""Fixtures of the tests of queues: each test runs on every queue of tests/support/queues.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.queues import QUEUES, Queue


@pytest.fixture(params=QUEUES)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Queue]]:
    """Opens the same queue again and again, as restarts and further processes do."""
    opened: list[Queue] = []

    def open_queue() -> Queue:
        opened.append(QUEUES[request.param](tmp_path))
        return opened[-1]

    yield open_queue
    for queue in opened:
        queue.close()


@pytest.fixture
def queue(reopen: Callable[[], Queue]) -> Queue:
    return reopen()
