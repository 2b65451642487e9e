"""
The process with the engines: `python -m engines.worker REPORTS [WHY]`, which the supervisor starts. It has a queue of
its own on the database. On standard input come the names of jobs that the server has changed, and "stop"; to the file
descriptor REPORTS go the names of those that were changed here, and how the worker is, as JSON. The end of standard
input is the end of the server, however it came to that, and then of all that was started here. WHY the models are not
loaded before a job asks for one: loading them has ended earlier processes.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from engines import backends, logs
from engines.backends import refusals
from engines.backends.lenders import Lenders
from engines.backends.verdicts import Verdicts
from engines.bundle import BUILT_IN, Shelf
from engines.bundle.loras import Loras
from engines.images.decoder import Decoder
from engines.jobs import QuietHours
from engines.jobs.sqlite_queue import SqliteQueue
from engines.machine import preflight
from engines.messages import pack
from engines.messages.status import Status
from engines.roles import memory
from engines.settings import Settings, values
from engines.studio import Studio
from engines.studio.experience import Experience
from engines.worker import STOP
from engines.worker.builds import BackgroundJobs
from engines.worker.heat import Limits, Rest, hottest_c
from engines.worker.loop import Worker

STOP_S = 6.0  # for the present job
ALIVE_S = 1.0  # how often to say so
LATER_NICE = 10


class ReportingQueue(SqliteQueue):
    """A queue that tells another process of what it has written, and of the worker's status."""

    def announce(self, status: Status) -> None:
        super().announce(status)
        self.report(pack(status))


def serve(make: Callable[[SqliteQueue, Settings], Worker]) -> None:
    os.umask(0o077)
    with suppress(OSError):  # not on Linux
        Path("/proc/self/oom_score_adj").write_text("500")  # when memory runs out, this one goes and not the server
    # The server says when to stop: a Ctrl+C in its terminal, or a stop of all processes of a unit, is for it.
    for number in (signal.SIGINT, signal.SIGTERM):  # no SIG_IGN, which builds would inherit
        signal.signal(number, lambda *_: None)
    settings = Settings.load(os.environ)
    logs.begin(settings, "worker")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # each run of a part that is lent would be a line
    queue = ReportingQueue(
        settings.state / "jobs.db", settings.outputs, repairing=False, quiet=QuietHours.parse(settings.quiet_hours)
    )
    queue.report = partial(_report, open(int(sys.argv[1]), "w", encoding="utf-8"), threading.Lock())
    stopping = threading.Event()
    threading.Thread(target=_hear, args=(queue, stopping.set), name="server", daemon=True).start()
    worker = make(queue, settings)
    worker.start(*(sys.argv[2:] or nobody_works()))
    while not stopping.wait(ALIVE_S):
        queue.report("")
    worker.stop(STOP_S)
    logging.shutdown()
    os._exit(0)  # an engine may be in the middle of a step, which what it stands on must not be taken from


def _report(reports: IO[str], lock: threading.Lock, line: str) -> None:
    with lock, suppress(OSError):  # the server is gone: standard input says so too
        reports.write(f"{line}\n")
        reports.flush()


def _hear(queue: SqliteQueue, stop: Callable[[], None]) -> None:
    for line in sys.stdin:
        if (name := line.strip()) == STOP:
            stop()
        else:
            queue.wake(name)
    os.killpg(0, signal.SIGKILL)  # 0: this session, which is ours alone


def nobody_works() -> tuple[str, ...]:
    """Return the reason, if there is no engine that can work here: loading models would only say it less well."""
    probes = [(engine.name, engine.probe()) for engine in backends.engines()]
    if any(probe.ok for _, probe in probes):
        return ()
    return (f"no engine can work here ({'; '.join(f'{name}: {probe.reason}' for name, probe in probes)})",)


def _try_engines(queue: SqliteQueue, settings: Settings) -> None:
    """
    Import the runtime of each engine in a child, before it is probed. PyTorch's takes seconds: where another engine can
    work and nobody has set PyTorch, it is tried while the models are loaded.
    """
    folder, asked = settings.state / preflight.FOLDER, ("edge", settings.backend)
    first = [engine for engine in backends.engines() if engine.group in asked or engine.name in asked]
    others = [engine.trial for engine in backends.engines() if engine not in first]
    refusals.examine([engine.trial for engine in first], folder, partial(queue.report, ""))
    if any(engine.probe().ok for engine in first):
        later = partial(refusals.examine, others, folder, nice=LATER_NICE)
        threading.Thread(target=later, name="other engines", daemon=True).start()
    else:
        refusals.examine(others, folder, partial(queue.report, ""))


def _lenders(settings: Settings) -> Lenders:
    return Lenders(values.addresses("STUDIO_PARTS", settings.parts), settings.parts_token)


def make_worker(queue: SqliteQueue, settings: Settings) -> Worker:
    _try_engines(queue, settings)
    shelf = Shelf((settings.models, BUILT_IN), settings.state / "compiled")
    verdicts = Verdicts(settings.state / "verdicts")
    loras = Loras((settings.loras, BUILT_IN / "loras"))
    budget, lenders = memory.budget(settings.memory_gb), _lenders(settings)
    too_large = partial(memory.too_large, budget=budget, lenders=lenders)
    select = partial(backends.select, verdicts=verdicts, too_large=too_large)
    experience = Experience(verdicts, too_large)
    studio = Studio(shelf, settings.state, select, loras, budget, Decoder(settings.decode_s), experience, lenders)
    folders = settings.models, settings.checkpoints
    alone = partial(memory.too_large, budget=budget)  # proofs borrow nothing
    background = BackgroundJobs(shelf, *folders, verdicts, settings.loras, settings.hf_mirror, too_large, alone)
    rest = Rest(Limits(settings.hot_c, settings.cool_c), settings.pause_s, hottest_c)
    return Worker(queue, studio, shelf, settings.backend, background, rest)


if __name__ == "__main__":
    serve(make_worker)
