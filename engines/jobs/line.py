"""
The line of each lane, as everybody in it asks: how many are ahead of a job, and when it will be done. Reads the queue's
tables, and writes nothing.

Every page that waits asks more than twice a second. So the line is looked at once for each change of the database,
whoever asks, and in between only the clock goes on; a request is read once, and of the history only what is new.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

from engines.errors import RequestError
from engines.jobs import Estimate, Lane, Place
from engines.jobs.database import Row
from engines.jobs.estimate import History, Run
from engines.jobs.quiet import QuietHours
from engines.jobs.statements import HISTORY, LANE, LINE, NEWEST, REQUEST
from engines.jobs.turns import in_turn
from engines.messages import RESTORED_BEFORE, Final, Progress, Request, unpack
from engines.messages.status import BundleStatus

AT_FIRST = 300  # runs that are looked at after a start
LATEST = 4  # events of a job: previews come between what it says of its end


@dataclass(frozen=True, slots=True)
class Board:
    """
    A lane's line at a moment. `left_s`: how long what runs, or the rest after it, will still take; `waits`: of each job
    that waits how many are ahead, and how long those that wait will take up to and with itself. None: unknown. `held`:
    those that wait for the end of the quiet hours, in `quiet_s`.
    """

    at: float
    running: Sequence[str]
    left_s: float | None
    waits: dict[str, tuple[int, float | None]]
    paused: bool = False
    held: AbstractSet[str] = frozenset()
    quiet_s: float = 0.0

    def place(self, job_id: str, now: float) -> Place:
        left_s = None if self.left_s is None else max(0.0, self.left_s - (now - self.at))
        if job_id in self.running:
            return Place(0, left_s)
        if job_id not in self.waits:  # it has ended
            return Place(0, None)
        ahead, waits_s = self.waits[job_id]
        if self.paused:
            return Place(ahead, None, paused=True)
        quiet_s = max(0.0, self.quiet_s - (now - self.at)) if job_id in self.held else 0.0
        return Place(ahead, _total((left_s, waits_s, quiet_s)), quiet_s=quiet_s)

    def next_end_s(self, count: int) -> float | None:
        """In how long so many of its jobs will have ended. None: unknown."""
        if self.paused and count > len(self.running):
            return None
        ends = [self.left_s] * len(self.running)
        ends += [
            _total((self.left_s, waits_s, self.quiet_s if job_id in self.held else 0.0))
            for job_id, (_, waits_s) in self.waits.items()
        ]
        return ends[min(count, len(ends)) - 1] if ends else None


@dataclass(frozen=True, slots=True)
class _Said:
    """What a job has said last of its end, in its event of that number, and when that was heard here."""

    number: int
    eta_s: float | None
    at: float


class Line:
    """
    `rows` asks the database, `version` changes whenever anything in it does. Whoever calls sees to it that nobody else
    does at the same time.
    """

    def __init__(
        self,
        lane: Lane,
        rows: Callable[..., list[Row]],
        version: Callable[[], object],
        quiet: QuietHours,
        pause_s: float = 0.0,
    ) -> None:
        """`pause_s`: how long the worker rests after each job of the lane."""
        self.lane, self._rows, self._version, self._quiet, self._pause_s = lane, rows, version, quiet, pause_s
        self._history, self._until = History(), 0.0
        self._requests: dict[str, Request | None] = {}  # of jobs in the line; None: it cannot be read
        self._said: dict[str, _Said] = {}  # of those that run
        self._made_of: tuple[object, object, bool] | None = None
        self._board = Board(0.0, (), 0.0, {})

    def board(self, bundles: Sequence[BundleStatus]) -> Board:
        version, quiet = self._version(), self._quiet.left_s(time.time()) > 0
        if self._made_of is None or self._made_of[::2] != (version, quiet) or self._made_of[1] is not bundles:
            self._board, self._made_of = self._look(bundles), (version, bundles, quiet)
        return self._board

    def expected(self, request: Request, bundles: Sequence[BundleStatus]) -> Estimate | None:
        """Return how long a request takes that nobody has submitted yet. None: nothing is there to say it by."""
        self.board(bundles)  # by what has ended since
        return self._history.estimate(request, bundles)

    def _look(self, bundles: Sequence[BundleStatus]) -> Board:
        now = time.time()
        self._learn(now)
        rows = self._rows(LINE, self.lane)
        running = [(job_id, *said) for job_id, state, _, *said in rows if state == "running"]
        self._forget({row[0] for row in rows}, {row[0] for row in running})
        left_s = _total(self._left_s(row, now, bundles) for row in running)
        if not running:
            left_s = min(self._pause_s, max(0.0, self._until + self._pause_s - now))
        waits: dict[str, tuple[int, float | None]] = {}
        waits_s: float | None = 0.0
        passed, paused = next(iter(self._rows(LANE, self.lane)), (0, 0))
        waiting = [(job_id, priority) for job_id, state, priority, *_ in rows if state == "queued"]
        quiet_s = self._quiet.left_s(now)
        for ahead, job_id in enumerate(in_turn(waiting, passed, quiet_s > 0), len(running)):
            waits_s = _total((waits_s, self._pause_s if ahead else 0.0, self._estimate_s(job_id, bundles)))
            waits[job_id] = ahead, waits_s
        held = {job_id for job_id, priority in waiting if quiet_s and priority == "batch"}
        return Board(now, [row[0] for row in running], left_s, waits, bool(paused), held, quiet_s)

    def _learn(self, now: float) -> None:
        """Take in what has ended since the last look. A clock that is put back makes nobody wait for it."""
        rows = self._rows(HISTORY, self.lane, min(self._until, now), now, AT_FIRST)
        if rows:
            self._until = rows[0][2]
        runs = []
        for request, last, _ in rows:
            with suppress(RequestError):  # of another version
                if isinstance(final := unpack(last), Final) and final.reason != RESTORED_BEFORE:
                    runs.append(Run(unpack(request), final.seconds, final.engine))
        self._history.add(runs)

    def _forget(self, here: AbstractSet[str], running: AbstractSet[str]) -> None:
        """Nothing is remembered of jobs that have left the line, nor of attempts that were broken off."""
        self._requests = {job_id: request for job_id, request in self._requests.items() if job_id in here}
        self._said = {job_id: said for job_id, said in self._said.items() if job_id in running}

    def _left_s(self, row: Row, now: float, bundles: Sequence[BundleStatus]) -> float | None:
        """By what the job itself says of its end; before it does, by what others took."""
        job_id, begun, last_event = row
        if job_id not in self._said or self._said[job_id].number != last_event:
            self._said[job_id] = _Said(last_event, self._eta_s(job_id), now)
        said = self._said[job_id]
        if said.eta_s is not None:
            return max(0.0, said.eta_s - (now - said.at))
        estimate_s = self._estimate_s(job_id, bundles)
        return None if estimate_s is None else max(0.0, estimate_s - (now - (begun or now)))

    def _eta_s(self, job_id: str) -> float | None:
        for (body,) in self._rows(NEWEST, job_id, LATEST):
            if isinstance(event := unpack(body), Progress):
                return event.eta_s
        return None

    def _estimate_s(self, job_id: str, bundles: Sequence[BundleStatus]) -> float | None:
        if job_id not in self._requests:
            self._requests[job_id] = None
            with suppress(RequestError):
                self._requests[job_id] = unpack(self._rows(REQUEST, job_id)[0][0])
        request = self._requests[job_id]
        if request is None:  # what cannot be read ends at once
            return 0.0
        estimate = self._history.estimate(request, bundles)
        return None if estimate is None else estimate.finish_s


def _total(seconds: Iterable[float | None]) -> float | None:
    """The sum. None: a part of it is unknown."""
    parts = list(seconds)
    return None if None in parts else math.fsum(part for part in parts if part is not None)
