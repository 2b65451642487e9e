"""
A whole studio in one process, whose networks are fakes: uploads, a queue, a worker that takes its jobs. It does what
the lines of standard input ask for, one after the other, and says of each how it ended: `python -m
tests.support.small_studio HOME`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from engines import logs, worker
from engines.bundle import Shelf
from engines.errors import StorageError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Develop, Enhance, Failed, Final, Generate, Request, pack
from engines.settings import Settings
from engines.studio import Studio
from engines.studio.snapshot import Saver
from engines.worker.loop import Worker
from tests.support.fakes import FakeEngine, write_detector, write_portrait, write_restorer
from tests.support.restoration import person, scene, seeing
from webui import uploads

AGAIN_S = 0.01


def main() -> None:
    settings = Settings(Path(sys.argv[1]))
    for write, name in ((write_portrait, "portrait"), (write_restorer, "restorer"), (write_detector, "detector")):
        if not (settings.models / name).exists():
            write(settings.models / name)
    settings.outputs.mkdir(exist_ok=True)
    logs.begin(settings, "worker")
    worker.AGAIN_S = AGAIN_S
    Saver.due = property(lambda saver: True)  # type: ignore[assignment, method-assign]  # after every step
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    shelf = Shelf((settings.models,))
    studio = Studio(shelf, settings.state, FakeEngine(sees=seeing(person())).select)
    Worker(queue, studio, shelf, "auto").start()
    for line in sys.stdin:
        kind, _, name = line.strip().partition(" ")
        print(pack(asked(queue, partial(REQUESTS[kind], name, settings.uploads))), flush=True)


def asked(queue: SqliteQueue, request: Callable[[], Request]) -> Final | Failed:
    """As a front door does: take it, and wait for its end. What is not taken is answered."""
    try:
        *_, last = queue.follow(queue.submit(request()))
    except StorageError as exc:
        return Failed(exc.code, "not taken", exc.facts)
    assert isinstance(last, Final | Failed)
    return last


def restore(name: str, folder: Path) -> Enhance:
    """A photo like no other: what was restored before would be answered at once."""
    picture = scene()
    picture[0, 0] = np.frombuffer(name.encode().rjust(3, b"0")[-3:], np.uint8)
    Image.fromarray(picture).save(data := io.BytesIO(), "PNG")
    data.seek(0)
    return Enhance(str(uploads.keep(data, folder)))


REQUESTS: dict[str, Callable[[str, Path], Request]] = {
    "draw": lambda name, folder: Generate(name, steps=2, seed=1),
    "sketch": lambda name, folder: Generate(name, steps=1, seed=1, preview="only", count=2),
    "develop": lambda name, folder: Develop(name),
    "restore": restore,
}

if __name__ == "__main__":
    main()
