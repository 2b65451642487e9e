"""A worker's process, as the supervisor starts it, whose jobs do to it what they say. Its networks are fakes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

from engines.bundle import Shelf
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Progress, Request
from engines.settings import Settings
from engines.studio import Studio
from engines.worker.__main__ import serve
from engines.worker.loop import Worker
from tests.support.fakes import FakeEngine

ONCE = "-once"  # ends a prompt: the second time it goes well
SIGNALS = {"segfault": signal.SIGSEGV, "out of memory": signal.SIGKILL, "halted": signal.SIGSTOP}


class TroubledStudio(Studio):
    def run(self, request: Request, folder: Path) -> Generator[Event]:
        prompt: str = getattr(request, "prompt", "")
        trouble, mark = prompt.removesuffix(ONCE), folder / "once"
        yield Progress("load", 0, 1)
        yield Progress("denoise", 1, 4, 0.1)
        if not (prompt.endswith(ONCE) and mark.exists()):
            mark.touch()
            self._suffer(trouble)
        yield from super().run(request, folder)

    def _suffer(self, trouble: str) -> None:
        if trouble in SIGNALS:
            os.kill(os.getpid(), SIGNALS[trouble])
            time.sleep(3600)  # another thread may take the signal, and this one would go on for a moment
        elif trouble == "exit":
            os._exit(3)
        elif trouble == "hang":
            time.sleep(3600)


def make_worker(queue: SqliteQueue, settings: Settings) -> Worker:
    if (settings.home / "models crash").exists():
        os.kill(os.getpid(), signal.SIGSEGV)
    shelf = Shelf((settings.models,))
    return Worker(queue, TroubledStudio(shelf, settings.state, FakeEngine().select), shelf, "auto")


if __name__ == "__main__":
    serve(make_worker)
