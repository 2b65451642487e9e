"""
The line of each lane, as everybody in it asks: how many are ahead of a job, and when it will be done. Reads the queue's
tables, and writes nothing.

Every page that waits asks more than twice a second. So the line is looked at once for each change of the database,
whoever asks, and in between only the clock goes on; a request is read once, and of the history only what is new.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from engines.errors import RequestError
from engines.jobs import Estimate, Lane, Place
from engines.jobs.database import Row
from engines.jobs.estimate import History, Run
from engines.jobs.plan import HOME, Busy, Turn, give_out, total
from engines.jobs.quiet import QuietHours
from engines.jobs.statements import HISTORY, LANE, LINE, NEWEST, REQUEST
from engines.jobs.turns import in_turn
from engines.jobs.work import can_do, has_bundle
from engines.messages import RESTORED_BEFORE, Final, Progress, Request, unpack
from engines.messages.status import Status


@dataclass(frozen=True, slots=True, eq=False)
class Crew:
    """How each worker is: of those that are here, HOME among them, and of those that have been and are not."""

    here: Mapping[str, Status]
    away: Mapping[str, Status] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Return whether there is anybody beside HOME, here or away."""
        return len(self.here) + len(self.away) > 1

    def can(self, worker: str, request: Request) -> bool:
        """Return whether a worker that is here can do it. What nobody can do is HOME's, which says why."""
        home = self.here[HOME]
        if worker != HOME:
            return can_do(request, self.here[worker], home)
        others = (status for name, status in chain(self.here.items(), self.away.items()) if name != HOME)
        return has_bundle(request, home) or not any(can_do(request, status, home) for status in others)

    def awaited(self, request: Request) -> str:
        """Return which of those that are away could do it, one that can be woken if there is; empty: none."""
        able = [name for name, status in self.away.items() if can_do(request, status, self.here[HOME])]
        return next((name for name in able if self.away[name].wakes_at), able[0] if able else "")


AT_FIRST = 300  # runs that are looked at after a start
LATEST = 4  # events of a job: previews come between what it says of its end


@dataclass(frozen=True, slots=True)
class Board:
    """
    A lane's line at a moment. `left_s`: how long what runs at each worker, or the rest after it, will still take; None:
    unknown. `waits`: the turns of the jobs that wait. `held`: those that wait for the end of the quiet hours, in
    `quiet_s`. `waking`: the workers that are away and can be woken.
    """

    at: float
    running: Mapping[str, str]  # jobs, and whose they are
    left_s: Mapping[str, float | None]
    waits: Mapping[str, Turn]
    paused: bool = False
    held: AbstractSet[str] = frozenset()
    quiet_s: float = 0.0
    waking: AbstractSet[str] = frozenset()

    def place(self, job_id: str, now: float) -> Place:
        if job_id in self.running:
            return Place(0, self._left_s(self.running[job_id], now))
        if job_id not in self.waits:  # it has ended
            return Place(0, None)
        turn = self.waits[job_id]
        if self.paused:
            return Place(turn.ahead, None, paused=True)
        if turn.away:
            return Place(turn.ahead, None, away=turn.away, waking=turn.away in self.waking)
        quiet_s = max(0.0, self.quiet_s - (now - self.at)) if job_id in self.held else 0.0
        return Place(turn.ahead, total((self._left_s(turn.worker, now), turn.waits_s, quiet_s)), quiet_s=quiet_s)

    def _left_s(self, worker: str, now: float) -> float | None:
        left_s = self.left_s[worker]
        return None if left_s is None else max(0.0, left_s - (now - self.at))

    def awaited(self) -> set[str]:
        """Return the workers for which a job waits that could begin if they were here."""
        waits = {} if self.paused else self.waits
        return {turn.away for job_id, turn in waits.items() if turn.away and job_id not in self.held}

    def next_end_s(self, count: int) -> float | None:
        """In how long so many of its jobs will have ended. None: unknown."""
        if self.paused and count > len(self.running):
            return None
        ends = [self.left_s[worker] for worker in self.running.values()]
        ends += [
            total((self.left_s.get(turn.worker), turn.waits_s, self.quiet_s if job_id in self.held else 0.0))
            for job_id, turn in self.waits.items()
        ]
        ends.sort(key=lambda end: math.inf if end is None else end)
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
        self._histories: dict[str, History] = {}  # of each worker's own runs
        self._until = 0.0
        self._requests: dict[str, Request | None] = {}  # of jobs in the line; None: it cannot be read
        self._said: dict[str, _Said] = {}  # of those that run
        self._made_of: tuple[object, object, bool] | None = None
        self._board = Board(0.0, {}, {HOME: 0.0}, {})

    def board(self, crew: Crew) -> Board:
        version, quiet = self._version(), self._quiet.left_s(time.time()) > 0
        if self._made_of is None or self._made_of[::2] != (version, quiet) or self._made_of[1] is not crew:
            self._board, self._made_of = self._look(crew), (version, crew, quiet)
        return self._board

    def expected(self, request: Request, crew: Crew) -> Estimate | None:
        """Return how long a request takes that nobody has submitted yet. None: nothing is there to say it by."""
        self.board(crew)  # by what has ended since
        able = [name for name in crew.here if crew.can(name, request)]
        estimates = [self._history(name).estimate(request, crew.here[name].bundles) for name in able]
        return min((e for e in estimates if e), key=lambda estimate: estimate.finish_s, default=None)

    def _look(self, crew: Crew) -> Board:
        now = time.time()
        self._learn(now)
        rows = self._rows(LINE, self.lane)
        running = {row[0]: row for row in rows if row[1] == "running"}
        self._forget({row[0] for row in rows}, running.keys())
        names = {*crew.here, *(row[3] for row in running.values())}  # one that is away may have one yet
        workers = {name: self._busy(name, running.values(), now, crew) for name in names}
        passed, paused = next(iter(self._rows(LANE, self.lane)), (0, 0))
        waiting = [(job_id, priority) for job_id, state, priority, *_ in rows if state == "queued"]
        quiet_s = self._quiet.left_s(now)
        order = in_turn(waiting, passed, quiet_s > 0)
        here = {name: workers[name] for name in crew.here}
        waits = give_out(order, here, partial(self._seconds, crew), partial(self._awaited, crew))
        held = {job_id for job_id, priority in waiting if quiet_s and priority == "batch"}
        whose = {job_id: row[3] for job_id, row in running.items()}
        left_s = {name: busy.left_s for name, busy in workers.items()}
        waking = {name for name, status in crew.away.items() if status.wakes_at}
        return Board(now, whose, left_s, waits, bool(paused), held, quiet_s, waking)

    def _busy(self, worker: str, running: Iterable[Row], now: float, crew: Crew) -> Busy:
        pause_s = self._pause_s if worker == HOME else 0.0  # the others have their own settings
        rows = [row for row in running if row[3] == worker]
        left_s = total(self._left_s(row, now, crew) for row in rows)
        if not rows and pause_s:
            left_s = min(pause_s, max(0.0, self._until + pause_s - now))
        return Busy(len(rows), left_s, pause_s)

    def _seconds(self, crew: Crew, job_id: str, worker: str) -> float | None:
        """As give_out wants it. What cannot be read ends at once."""
        request = self._request(job_id)
        able = worker == HOME if request is None else crew.can(worker, request)
        return self._estimate_s(job_id, worker, crew) if able else math.inf

    def _awaited(self, crew: Crew, job_id: str) -> str:
        request = self._request(job_id)
        return crew.awaited(request) if request is not None else ""

    def _history(self, worker: str) -> History:
        return self._histories.setdefault(worker, History())

    def _learn(self, now: float) -> None:
        """Take in what has ended since the last look. A clock that is put back makes nobody wait for it."""
        rows = self._rows(HISTORY, self.lane, min(self._until, now), now, AT_FIRST)
        if rows:
            self._until = rows[0][2]
        runs: dict[str, list[Run]] = {}
        for request, last, _, worker in rows:
            with suppress(RequestError):  # of another version
                if isinstance(final := unpack(last), Final) and final.reason != RESTORED_BEFORE:
                    runs.setdefault(worker, []).append(Run(unpack(request), final.seconds, final.engine))
        for worker, newest_first in runs.items():
            self._history(worker).add(newest_first)

    def _forget(self, here: AbstractSet[str], running: AbstractSet[str]) -> None:
        """Nothing is remembered of jobs that have left the line, nor of attempts that were broken off."""
        self._requests = {job_id: request for job_id, request in self._requests.items() if job_id in here}
        self._said = {job_id: said for job_id, said in self._said.items() if job_id in running}

    def _left_s(self, row: Row, now: float, crew: Crew) -> float | None:
        """By what the job itself says of its end; before it does, by what others took."""
        job_id, _, _, worker, begun, last_event = row
        if job_id not in self._said or self._said[job_id].number != last_event:
            self._said[job_id] = _Said(last_event, self._eta_s(job_id), now)
        said = self._said[job_id]
        if said.eta_s is not None:
            return max(0.0, said.eta_s - (now - said.at))
        estimate_s = self._estimate_s(job_id, worker, crew)
        return None if estimate_s is None else max(0.0, estimate_s - (now - (begun or now)))

    def _eta_s(self, job_id: str) -> float | None:
        for (body,) in self._rows(NEWEST, job_id, LATEST):
            if isinstance(event := unpack(body), Progress):
                return event.eta_s
        return None

    def _estimate_s(self, job_id: str, worker: str, crew: Crew) -> float | None:
        request = self._request(job_id)
        if request is None:  # what cannot be read ends at once
            return 0.0
        estimate = self._history(worker).estimate(request, crew.here[worker].bundles if worker in crew.here else ())
        return None if estimate is None else estimate.finish_s

    def _request(self, job_id: str) -> Request | None:
        if job_id not in self._requests:
            self._requests[job_id] = None
            with suppress(RequestError):
                self._requests[job_id] = unpack(self._rows(REQUEST, job_id)[0][0])
        return self._requests[job_id]
