"""
`./run.sh watch [INBOX]`: watch an inbox where no server runs. A composition root of its own: the queue, the worker and
the watcher, and no page. Where a server has the home, that one watches, by STUDIO_INBOX.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from engines import logs
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called
from webui import without_page

if TYPE_CHECKING:  # what is compiled for certain processors is imported when it has been tried
    from engines.jobs.sqlite_queue import SqliteQueue

LOOK_S = 1.0  # between two looks whether somebody watches
NO_INBOX = (
    f"请说明要看哪个文件夹:{COMMAND} watch 文件夹,或设置 STUDIO_INBOX。"
    f" Say which folder to watch: {COMMAND} watch FOLDER, or set STUDIO_INBOX."
)
SERVED = (
    "若那是本程序的服务器,请在它那里设置 STUDIO_INBOX,由它来看。"
    " If that is this program's server, set STUDIO_INBOX there: it will watch."
)


def main(arguments: Sequence[str]) -> int:
    os.umask(0o077)  # photos and faces: nobody else's on this machine; results are as open as their originals
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    asked = _parser().parse_args(arguments)
    env = {**os.environ, **({"STUDIO_INBOX": asked.inbox} if asked.inbox else {})}
    try:
        settings = Settings.load(env)
        if settings.inbox_folder is None:
            raise SettingsError(NO_INBOX)
        lock, queue = without_page.open_home(settings, "watch", SERVED)
    except without_page.CANNOT as exc:
        without_page.say_why(exc)
        return 2
    logs.begin(settings, "watch")
    print(f"✓ 放入 {settings.inbox_folder} 的照片会修复到 {settings.outbox_folder}", flush=True)
    print("  what is put into the first is restored into the second · 停止 Stop: Ctrl+C", flush=True)
    _work(queue, settings, {**env, "STUDIO_HOME": str(settings.home)}, lock, stopping)
    return 0 if stopping.is_set() else 1  # by itself it does not end


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} watch", description=called(__doc__ or ""))
    parser.add_argument("inbox", nargs="?", default="", help="其中的照片自动修复 · folder whose photos are restored")
    return parser


def _work(queue: SqliteQueue, settings: Settings, env: dict[str, str], lock: TextIO, stopping: threading.Event) -> None:
    """Restore what comes until it is `stopping`, or until nobody watches any more, which only a bug can bring about."""
    from engines.worker import inventory
    from engines.worker.supervisor import Supervisor
    from webui import sweep
    from webui.watch import watcher

    worker = Supervisor(queue, env, lock.fileno(), crash_log=logs.folder(settings.state) / logs.CRASHES)
    threading.Thread(target=sweep.hourly, args=(queue, settings, stopping), name="sweep", daemon=True).start()
    queue.announce(inventory.at_start(settings))
    watching = threading.Thread(target=watcher.watch, args=(queue, settings, stopping), name="watch", daemon=True)
    worker.start()
    watching.start()
    while watching.is_alive() and not stopping.wait(LOOK_S):
        continue
    worker.stop(without_page.STOP_S)
    watching.join(1.0)  # a share that hangs keeps it longer
    queue.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
