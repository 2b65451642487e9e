"""A job that somebody cancels, without a queue."""

from __future__ import annotations

from collections.abc import Callable, Generator

from engines.errors import JobCancelled
from engines.jobs import ENDED, state_after
from engines.messages import Event


def cancelled_when(events: Generator[Event], true: Callable[[Event], bool]) -> list[Event]:
    """The events of a job into which JobCancelled is thrown, as by the worker, after each event of which it is true."""
    heard: list[Event] = []
    for event in events:
        heard.append(event)
        if true(event) and state_after(event) not in ENDED:
            heard.append(events.throw(JobCancelled("by a test")))
    return heard
