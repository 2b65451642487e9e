"""
Keeps the process with the engines alive, from the server: starts it, hears what it says, ends one that hangs, and
starts another when it crashed. Imports no engine: what one of them does to its process is not done to the server.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engines import logs
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Progress, unpack
from engines.messages.status import WorkerState
from engines.settings.installation import PROJECT
from engines.worker import AGAIN_S, STOP, crashes, insist, surviving

log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-m", "engines.worker")
LOOK_S = 0.5  # how often to look whether it hangs
OF_ETA = 4.0  # how many times what a job says that it still takes may pass in silence
COLD_AFTER = 2  # deaths in a row while models were loaded: then none is before a job asks for it
# NumPy's BLAS has threads of its own, which go on spinning after a small sum and take the processors from the engine's:
# with two cores a portrait with live previews took twice as long. No engine computes by it.
ALONE = {"OPENBLAS_NUM_THREADS": "1"}
REST_S = (0.0, 0.0, 1.0, 2.0, 5.0)  # before a new start, by the number of such deaths


@dataclass(frozen=True)
class Patience:
    """
    Seconds of silence until a worker is taken to hang: of its process, which says that it lives every second, but a
    machine may swap; of a job, at least, as the first decode is in nobody's estimate; and of one that has not said yet
    how long it takes, as an engine may have to be compiled first.
    """

    process_s: float = 30.0
    job_s: float = 600.0
    unknown_s: float = 1800.0


class Supervisor:
    """
    Keeps one worker of the queue's. `command` runs it, with the number of a file descriptor for its reports after it;
    `env` is its environment; `lock`, a file descriptor, is held by it too: nobody else begins while it lives. What ends
    it in the middle of a job is written down in `crash_log`, if there is one.
    """

    def __init__(
        self,
        queue: SqliteQueue,
        env: Mapping[str, str],
        lock: int,
        command: Sequence[str] = COMMAND,
        patience: Patience = Patience(),
        crash_log: Path | None = None,
    ) -> None:
        self.queue, self.env, self.lock, self.command, self.patience = queue, env, lock, command, patience
        self.crash_log = crash_log
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._child_lock = threading.Lock()  # who speaks to it finds it whole, and a stop finds it begun or never to be
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)

    def start(self) -> None:
        self.queue.report = self._tell
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process with the engines; None: there is none at the moment."""
        with self._child_lock:
            return self._child.pid if self._child is not None else None

    @property
    def lives(self) -> bool:
        """Whether there is somebody who would start another process."""
        return self._thread.is_alive()

    def stop(self, wait_s: float) -> None:
        """End it, in order or by force after `wait_s`. What has not ended waits for the next start, unspent."""
        with self._child_lock:
            self._stopping.set()
            child = self._child
        self._tell(STOP)
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(wait_s)
            _kill(child)
        if self._thread.ident is not None:  # it has been started
            self._thread.join()
        self.queue.release()

    def _tell(self, line: str) -> None:
        """Never wait: a worker that hears nothing looks by itself twice a second, and is killed when it should stop."""
        with self._child_lock, suppress(OSError):
            if self._child is not None and self._child.stdin is not None:
                os.write(self._child.stdin.fileno(), f"{line}\n".encode())

    def _keep(self) -> None:
        deaths, why = 0, "the program was killed"  # in a row, while models were loaded for nobody's job
        while not self._stopping.wait(REST_S[min(deaths, len(REST_S) - 1)]):
            with surviving("the supervisor", lambda: self._stopping.wait(AGAIN_S)):
                insist(partial(self.queue.recover, why), self._stopping, partial(self._say, "failed"))
                was_ready, why = self._live(why if deaths >= COLD_AFTER else "")
                if self._stopping.is_set():
                    return
                job_id, _ = self.queue.running() or ("", 0)
                deaths = 0 if was_ready or job_id else deaths + 1
                with logs.about(job_id):
                    log.error("the process with the engines has ended: %s", why)
                self._say("loading", why)
                if self.crash_log is not None:
                    crashes.record(self.crash_log, self.queue, why)

    def _say(self, state: WorkerState, detail: str) -> None:
        """Announce it, with what was last known of engines and models. There is no worker now that could rest."""
        now = replace(self.queue.status(), resting="", temperature_c=None)
        self.queue.announce(replace(now, state=state if detail else "loading", detail=detail))

    def _live(self, cold: str) -> tuple[bool, str]:
        """One worker's life; `cold`: why it loads no model by itself. Return whether it was ready, and why it ended."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as reports:
            try:
                child = self._spawn(writing, cold)
            finally:
                os.close(writing)
            if child is None:
                return False, ""
            with child:
                try:
                    was_ready, hangs = self._attend(child, reports.fileno())
                finally:  # there are never two, and what it has started ends with it
                    _kill(child)
                    with self._child_lock:
                        self._child = None
        return was_ready, hangs or _cause(child.returncode)

    def _spawn(self, writing: int, cold: str) -> subprocess.Popen[bytes] | None:
        """In a session of its own: what is typed into the server's terminal is for the server."""
        with self._child_lock:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(
                [*self.command, str(writing), *([cold] if cold else [])],
                stdin=subprocess.PIPE,
                bufsize=0,
                cwd=PROJECT,
                env={**ALONE, **self.env},
                pass_fds=(writing, self.lock),
                start_new_session=True,
            )
            assert self._child.stdin is not None  # it was asked for
            os.set_blocking(self._child.stdin.fileno(), False)
            return self._child

    def _attend(self, child: subprocess.Popen[bytes], reports: int) -> tuple[bool, str]:
        """Hear it to its end. Return whether it was ever ready, and why it was ended, if it was."""
        was_ready, watch = False, _Watch(self.queue, self.patience)
        for line in _lines(reports, LOOK_S):
            if line is None:
                if child.poll() is not None:  # though somebody whom it has started may hold its reports open
                    return was_ready, ""
                if why := "it was stopped" if _is_stopped(child) else watch.hangs():
                    return was_ready, why
                continue
            watch.heard()
            if line.startswith("{"):
                status = unpack(line)
                was_ready |= status.state == "ready"
                self.queue.announce(status)
            else:
                self.queue.wake(line)
        return was_ready, ""


class _Watch:
    """How long a worker has said nothing, and its job."""

    def __init__(self, queue: SqliteQueue, patience: Patience) -> None:
        self.queue, self.patience = queue, patience
        self._heard = self._moved = time.monotonic()
        self._at: object = None

    def heard(self) -> None:
        self._heard = time.monotonic()

    def hangs(self) -> str:
        """Return why it is taken to hang; empty: it is not."""
        now, at = time.monotonic(), self.queue.running()
        if at != self._at:
            self._at, self._moved = at, now
        if now - self._heard > self.patience.process_s:
            return "it said nothing any more"
        if at and now - self._moved > self._limit_s(at[0]):
            return "the job went no further"
        return ""

    def _limit_s(self, job_id: str) -> float:
        """By what it has said of its end last: a preview says nothing of it, and a step may take minutes."""
        said = [event.eta_s for _, event in self.queue.since(job_id, 0)[0] if isinstance(event, Progress)]
        if not said or said[-1] is None:
            return self.patience.unknown_s
        return max(self.patience.job_s, OF_ETA * said[-1])


def _lines(source: int, every_s: float) -> Iterator[str | None]:
    """Yield what comes, line by line, and None after every `every_s`, to its end."""
    held, looked = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([source], [], [], every_s)
        if ready:
            if not (piece := os.read(source, 1 << 16)):
                return
            *lines, held = (held + piece).split(b"\n")
            yield from (line.decode("utf-8", errors="replace") for line in lines)
        if time.monotonic() - looked >= every_s:
            looked = time.monotonic()
            yield None


def _is_stopped(child: subprocess.Popen[bytes]) -> bool:
    """Whether somebody has halted it (SIGSTOP): it would keep its jobs for ever."""
    try:
        return os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has ended, and who stops it has seen that
        return False


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End it and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _cause(status: int) -> str:
    """Say why a process has ended, by its exit status."""
    if status == -signal.SIGKILL:
        return "it was killed, perhaps for want of memory"
    if status < 0:
        return f"it crashed ({signal.Signals(-status).name})"
    return f"it ended by itself (status {status})"
