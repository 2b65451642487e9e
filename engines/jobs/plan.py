"""
Who does what of the jobs that wait, where several workers may: each job, in its turn, is given to the worker that will
have finished it first. Pure: knows no database and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

HOME = ""  # the worker beside the server
UNPLANNED = "?"  # nobody's, until it is given to somebody
GUESS_S = 30.0  # of what nobody knows: about a picture
CAUTION = 2.0  # a worker of which it is not known is taken to need so many times what the slowest of the others does


@dataclass(frozen=True, slots=True)
class Busy:
    """What a worker does now: so many jobs, which will have ended in `left_s`; None: unknown. `pause_s`: after each."""

    count: int = 0
    left_s: float | None = 0.0
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """
    A job's place at a worker: how many are ahead of it there, and how long those that wait will take up to and with
    itself, from when what runs has ended. None: unknown. `away`: the worker it waits for, as nobody else can.
    """

    worker: str
    ahead: int
    waits_s: float | None
    away: str = ""


def give_out(
    order: Iterable[str],
    workers: Mapping[str, Busy],
    seconds: Callable[[str, str], float | None],
    awaited: Callable[[str], str] = lambda job: "",
) -> dict[str, Turn]:
    """
    Return the turn of each job. `seconds` says how long a job takes a worker: inf if it cannot do it, None if nobody
    knows. `awaited`: which worker that is away could do what none of these can; what nobody can do is HOME's, which
    says why.
    """
    last = {name: Turn(name, busy.count - 1, 0.0) for name, busy in workers.items()}
    turns: dict[str, Turn] = {}
    for job in order:
        takes = {name: s for name in workers if (s := seconds(job, name)) is None or math.isfinite(s)}
        if not takes and (away := awaited(job)):
            turns[job] = Turn(UNPLANNED, 0, None, away)
            continue
        takes = takes or {HOME: 0.0}
        guess_s = max((CAUTION * s for s in takes.values() if s is not None), default=GUESS_S)
        after = {name: _after(last[name], workers[name], s) for name, s in takes.items()}
        ends = {name: _end_s(turn, workers[name], guess_s) for name, turn in after.items()}
        name = min(ends, key=lambda name: (ends[name], name != HOME))
        turns[job] = last[name] = after[name]
    return turns


def _after(last: Turn, busy: Busy, seconds: float | None) -> Turn:
    ahead = last.ahead + 1
    return Turn(last.worker, ahead, total((last.waits_s, busy.pause_s if ahead else 0.0, seconds)))


def _end_s(turn: Turn, busy: Busy, guess_s: float) -> float:
    left_s = GUESS_S if busy.left_s is None else busy.left_s
    return left_s + (guess_s * (turn.ahead + 1 - busy.count) if turn.waits_s is None else turn.waits_s)


def total(seconds: Iterable[float | None]) -> float | None:
    """Return the sum. None: a part of it is unknown."""
    parts = list(seconds)
    return None if None in parts else math.fsum(part for part in parts if part is not None)
