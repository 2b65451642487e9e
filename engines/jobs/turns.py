"""Whose turn it is: interactive jobs before batches, each in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from engines.jobs import Priority

# So many interactive jobs in a row may pass a batch, then one of its own begins. Who waits for one picture waits for
# one photo of somebody's hundred, and the hundred get on however many others come: a fifth of all jobs is theirs.
MOST_PASSED = 4


def in_turn(waiting: Iterable[tuple[str, Priority]], passed: int, quiet: bool = False) -> Iterator[str]:
    """
    Yield the jobs that wait, which come as they were submitted, in the order in which they will begin if no other
    comes. `passed`: how many have passed the batch by now. `quiet`: batches wait for the morning. What the queue
    claims, it claims by the same rule.
    """
    interactive, batch = deque[str](), deque[str]()
    for job_id, priority in waiting:
        (batch if priority == "batch" else interactive).append(job_id)
    while interactive and batch and not quiet:
        if passed < MOST_PASSED:
            passed += 1
            yield interactive.popleft()
        else:
            passed = 0
            yield batch.popleft()
    yield from chain(interactive, batch)
