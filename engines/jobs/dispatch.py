"""
The workers beside the home's, on other machines: who is there, what each is given, and that another one does what was
given to one that is heard no more. Lives in the server's process, and knows of no network: whoever speaks for a worker
says what it says.

While there is none, nothing is done here, and the home's worker takes what comes.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from engines import files
from engines.errors import RequestError, StorageError
from engines.jobs import Job
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import pack, unpack
from engines.messages.status import Status

log = logging.getLogger(__name__)
LEASE_S = 10.0  # of silence, after which others do what a worker was given
LOOK_S = 1.0
IDLE_S = 60.0  # while no other machine has ever been here
WAKE_S, MOST_CALLS = 60.0, 5  # between two tries to wake a machine, and how many it takes to give up


class CannotCall(Exception):
    """What carries calls does not answer: nobody is called, and nothing is lost. Its text is this program's phrase."""


@runtime_checkable
class CallsWorkers(Protocol):
    """A queue that calls workers to their jobs by messages."""

    def call(self, workers: Iterable[str]) -> None:
        """Call each of these that does nothing to the job whose turn it is there. CannotCall."""


@dataclass(frozen=True, slots=True)
class _Heard:
    status: Status
    job: str  # that it does
    called: bool  # to its jobs; else it asks for them
    at: float  # by the monotonic clock


@dataclass(frozen=True, slots=True)
class _Woken:
    """A machine that somebody has tried to wake: how often, and when the last time."""

    times: int
    at: float  # by the monotonic clock


NEVER = _Woken(0, -math.inf)


class Dispatcher:
    """
    Any thread may call. When it is `stopping`, nobody waits here any more. `memory`: the file of who has been here, as
    what only they can do waits for them. `may_come`: the names of all that may come at all. `wake` the machine at a
    hardware address, if it can be; OSError.
    """

    def __init__(
        self,
        queue: SqliteQueue,
        stopping: threading.Event,
        memory: Path,
        may_come: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
        wake: Callable[[str], None] = lambda address: None,
    ) -> None:
        self.queue, self.stopping, self.memory, self.may_come, self._clock = queue, stopping, memory, may_come, clock
        self._wake, self._woken = wake, dict[str, _Woken]()
        self._remembered = self._read()
        self._heard: dict[str, _Heard] = {}
        self._astray: dict[tuple[str, int], float] = {}  # attempts of which those who have them say nothing; since when
        self._hurdle = ""
        self._lock = threading.Lock()
        self._joined = threading.Event()
        self._opened = math.inf
        with self._lock:
            self._tell()

    @property
    def calls(self) -> bool:
        """Return whether workers may wait to be called."""
        return isinstance(self.queue, CallsWorkers)

    def open(self) -> None:
        """
        Note that workers can be heard from now on. Those to whom earlier runs of the server have given jobs may be
        there yet, and are to have the time to say so: on a slow machine the page alone takes longer to load.
        """
        self._opened = self._clock()

    def hear(self, name: str, status: Status, job: str = "", called: bool = False) -> None:
        """
        Note that a worker is there, how it is, which job it does, and whether it waits to be `called` to the next, or
        asks for it. Its name is not HOME's.
        """
        with self._lock:
            self._woken.pop(name, None)
            before = self._heard.get(name)
            if before is None:
                log.info("a worker has come: %s", name)
            # The same status is the same object: what was reckoned by it holds.
            same = before is not None and before.status == status
            status = before.status if same and before else status
            self._heard[name] = _Heard(status, job, called, self._clock())
            if not same:
                self._remember(name, status)
                self._tell()
        self._joined.set()

    def leave(self, name: str, lost: bool = False) -> None:
        """Note that a worker goes, or was `lost` without a word, and let others do what it was given."""
        with self._lock:
            if self._heard.pop(name, None) is not None:
                log.info("a worker has gone: %s", name)
                self._tell()
        self.queue.take_all_back(name, lost)

    def claim(self, name: str, wait_s: float) -> Job | None:
        """Take the job whose turn it is at a worker, waiting so long for one if there is none."""
        until = self._clock() + wait_s
        while not self.stopping.is_set():
            left_s = until - self._clock()
            if (job := self.queue.claim(min(max(left_s, 0.0), LOOK_S), worker=name)) is not None or left_s <= 0:
                return job
        return None

    def attend(self) -> None:
        """Give out what comes, and look who is there, until it is `stopping`. After a bug home does all by itself."""
        try:
            while not self.stopping.is_set():
                self._attend()
        finally:
            if not self.stopping.is_set():
                self.queue.do_alone()

    def _attend(self) -> None:
        try:
            self.round()
            if self._heard or self._remembered or self.queue.given_away():
                self.queue.wait_for_change(LOOK_S)
            else:
                self._joined.wait(IDLE_S)
                self._joined.clear()
        except StorageError as exc:  # the disk refuses: what was given out stays so
            log.error("%s", exc)
            self.stopping.wait(LOOK_S)

    def round(self) -> None:
        now = self._clock()
        with self._lock:
            silent = [name for name, heard in self._heard.items() if now - heard.at > LEASE_S]
            here = set(self._heard) - set(silent)
            if gone := self._remembered.keys() - set(self.may_come()):
                self._remembered = {name: each for name, each in self._remembered.items() if name not in gone}
                self._write()
                self._tell()
        if now - self._opened > LEASE_S:
            silent += sorted(self.queue.given_away() - here - set(silent))
        for name in silent:
            log.warning("a worker is heard no more: %s", name)
            self.leave(name, lost=True)
        self._seek(now)
        self.queue.give_out()
        self._wake_awaited(now)
        if isinstance(self.queue, CallsWorkers):
            self._call(self.queue)

    def _seek(self, now: float) -> None:
        """
        Let others do what a worker that is there does not do: it has begun anew since, or never heard that it was given
        the job. It may just have claimed it, and not have said so yet.
        """
        astray = {
            (job_id, attempt): name
            for job_id, name, attempt in self.queue.running_elsewhere()
            if (heard := self._heard.get(name)) is not None and heard.job != job_id
        }
        self._astray = {attempt: self._astray.get(attempt, now) for attempt in astray}
        for (job_id, attempt), name in astray.items():
            if now - self._astray[job_id, attempt] > LEASE_S:
                log.warning("%s does not have a job any more that it was given: %s", name, job_id)
                self.queue.take_back([job_id], name, lost=True)

    def _wake_awaited(self, now: float) -> None:
        """Wake the machines that alone can do what waits, now and then, until they come or do not wake."""
        awaited = self.queue.awaited()
        with self._lock:
            given_up = len(self._sleepers())
            if not awaited:
                self._woken.clear()
            due = [
                (name, self._remembered[name].wakes_at, woken.times + 1)
                for name in sorted(awaited - self._heard.keys())
                if name in self._remembered and now - (woken := self._woken.get(name, NEVER)).at >= WAKE_S
            ]
            self._woken |= {name: _Woken(times, now) for name, address, times in due if address}
            if len(self._sleepers()) != given_up:
                self._tell()
        for name, address, times in due:
            if address and times <= MOST_CALLS:
                log.info("a worker is woken, for the %d. time: %s", times, name)
                try:
                    self._wake(address)
                except OSError as exc:
                    log.warning("%s cannot be woken: %s", name, exc.strerror)

    def _sleepers(self) -> set[str]:
        """Return those that did not wake, however often they were called."""
        return {name for name, woken in self._woken.items() if woken.times > MOST_CALLS}

    def _call(self, queue: CallsWorkers) -> None:
        """While they cannot be called, what waits is planned without those who wait for it."""
        with self._lock:
            called = [name for name, heard in self._heard.items() if heard.called and heard.status.state == "ready"]
        hurdle = ""
        try:
            queue.call(called)
        except CannotCall as exc:
            hurdle = str(exc)
            if not self._hurdle:
                log.warning("%s: %s", exc, exc.__cause__)
        if hurdle != self._hurdle:
            if not hurdle:
                log.info("workers can be called again")
            with self._lock:
                self._hurdle = hurdle
                self._tell()

    def _tell(self) -> None:
        here = {name: heard.status for name, heard in self._heard.items() if not (self._hurdle and heard.called)}
        able = {name for name, status in here.items() if status.state == "ready"}
        away = {name: each for name, each in self._remembered.items() if name not in able}
        away |= {name: replace(away[name], wakes_at="") for name in self._sleepers() & away.keys()}
        self.queue.be_joined(here, away, self._hurdle)

    def _remember(self, name: str, status: Status) -> None:
        """Note what a worker has; that counts while it is away, and while it loads its models."""
        has = Status("ready", bundles=status.bundles, loras=status.loras, wakes_at=status.wakes_at)
        had = self._remembered.get(name)
        if status.state == "ready" and has != had:
            self._remembered = {**self._remembered, name: has}
            self._write()

    def _read(self) -> dict[str, Status]:
        """A file that is damaged, or of another version, says nothing: who is there says it anew."""
        try:
            packed = files.read_json(dict[str, str], self.memory)
            statuses = {name: unpack(text) for name, text in packed.items()}
        except (OSError, ValueError, RequestError):
            return {}
        return {name: status for name, status in statuses.items() if isinstance(status, Status)}

    def _write(self) -> None:
        packed = {name: pack(status) for name, status in self._remembered.items()}
        try:
            files.write_atomic(self.memory, json.dumps(packed).encode())
        except OSError as exc:
            log.error("it cannot be noted who works for this house: %s", exc.strerror)
