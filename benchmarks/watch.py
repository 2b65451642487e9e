"""
What a watch folder takes of a core while nothing happens in it: the watcher as it runs in the server, for a while, over
10,000 photos that were restored long ago, on this machine's own disk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from benchmarks.timing import head
from engines.jobs.sqlite_queue import SqliteQueue
from engines.settings import Settings
from webui.watch import scan
from webui.watch.ledger import DATABASE, Ledger
from webui.watch.watcher import watch

FILES, IN_A_FOLDER = 10_000, 100
SECONDS = 60.0
LOOKS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home", inbox=str(Path(folder) / "inbox"))
        inbox = Path(settings.inbox)
        _fill(inbox, settings)
        look_ms = 1000 * min(_look_s(inbox) for _ in range(LOOKS))
        share = _idle_share(settings)
    head(
        f"{FILES} photos in which nothing happens", "a look, ms of a core", f"watched for {SECONDS:.0f} s, % of a core"
    )
    print(f"| {look_ms:.0f} | {100 * share:.2f} (1 is the limit) |")


def _fill(inbox: Path, settings: Settings) -> None:
    """Make the photos, and a ledger in which they are all done."""
    with closing(Ledger(settings.state / DATABASE)) as ledger:
        for number in range(FILES):
            path = f"{number // IN_A_FOLDER:03}/IMG_{number:05}.jpg"
            photo = inbox / path
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.write_bytes(str(number).encode())
            stat = photo.stat()
            ledger.note(path, (stat.st_size, stat.st_mtime_ns), f"{number:064}")


def _look_s(inbox: Path) -> float:
    begun = time.process_time()
    scan.listing(inbox)
    return time.process_time() - begun


def _idle_share(settings: Settings) -> float:
    queue, stopping = SqliteQueue(settings.state / "jobs.db", settings.outputs), threading.Event()
    thread = threading.Thread(target=watch, args=(queue, settings, stopping))
    thread.start()
    time.sleep(2.0)  # the ledger is opened, and the first look is over
    before = time.process_time()
    time.sleep(SECONDS)
    spent = time.process_time() - before
    stopping.set()
    thread.join()
    queue.close()
    return spent / SECONDS


if __name__ == "__main__":
    main()
