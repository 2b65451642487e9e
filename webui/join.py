"""
`./run.sh worker [--join URL] [--token TOKEN] [--wake]`: let this machine work for a studio on another one, which gives
it jobs while it is here and does without it when it is not. Without an address it is the studio in the local network
that has made the token. A composition root of its own: the queue, the worker, the bridge to the studio, and no page. It
has a home of its own, STUDIO_HOME, with its models.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from engines import logs
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called
from webui import network, packages, without_page
from webui.people import proof

if TYPE_CHECKING:  # what is compiled for certain processors is imported when it has been tried
    from engines.jobs.sqlite_queue import SqliteQueue

NO_TOKEN = (
    f"请给出令牌:{COMMAND} worker --token 令牌 [--join 地址],或设置 STUDIO_WORKER_TOKEN(与 STUDIO_SERVER)。"
    f" Give the token: {COMMAND} worker --token TOKEN [--join URL], or set STUDIO_WORKER_TOKEN (and STUDIO_SERVER)."
    f" 令牌在工作室那台机器上取得 · it comes from the studio's machine: {COMMAND} token NAME --worker"
)
NO_SERVER = (
    "没有说为哪个工作室干活(--join 地址),也不能自己找。 It was not said for which studio to work (--join URL), and this"
    " machine cannot look for it."
)
NONE_YET = (
    "! 局域网里还没有拿这个令牌的工作室,继续找。工作室那边要设 STUDIO_MDNS=on;或在这里写明 --join 地址。"
    " No studio with this token is in the local network yet; still looking. It needs STUDIO_MDNS=on; or say --join URL"
    " here."
)
LOOK_S = 10.0  # until that is said


def main(arguments: Sequence[str]) -> int:
    os.umask(0o077)  # photos and faces: nobody else's on this machine
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    asked = _parser().parse_args(arguments)
    given = {"STUDIO_SERVER": asked.join, "STUDIO_WORKER_TOKEN": asked.token, "STUDIO_WAKE": "on" if asked.wake else ""}
    env = {**os.environ, **{name: value for name, value in given.items() if value}}
    try:
        settings = Settings.load(env)
        if not settings.worker_token:
            raise SettingsError(NO_TOKEN)
        packages.check(settings)
        if not settings.server and find_spec(packages.MDNS[0]) is None:
            raise SettingsError(f"{NO_SERVER} {packages.to_install(packages.MDNS[1])}")
        lock, queue = without_page.open_home(settings, "worker")
    except without_page.CANNOT as exc:
        without_page.say_why(exc)
        return 2
    logs.begin(settings, "worker-bridge")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # each request would be a line
    if not settings.server:
        settings = replace(settings, server=_find(settings.worker_token, stopping))
        if stopping.is_set():
            return 0
    print(f"✓ 为 {settings.server} 干活 · this machine works for it · 停止 Stop: Ctrl+C", flush=True)
    has_failed = _work(queue, settings, {**env, "STUDIO_HOME": str(settings.home)}, lock, stopping)
    return 1 if has_failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} worker", description=called(__doc__ or ""))
    parser.add_argument("--join", metavar="URL", default="", help="工作室的地址 · the studio's address")
    parser.add_argument("--token", default="", help="这台机器的令牌 · this machine's token")
    parser.add_argument("--wake", action="store_true", help="工作室可以唤醒它 · the studio may wake it")
    return parser


def _find(token: str, stopping: threading.Event) -> str:
    """Return the address of the studio with that token, as soon as it is there; empty: it is `stopping`."""
    from webui import mdns

    said = threading.Timer(LOOK_S, partial(print, NONE_YET, flush=True))
    said.start()
    try:
        return mdns.find(lambda url: proof.refusal(url, token), stopping)
    finally:
        said.cancel()


def _work(queue: SqliteQueue, settings: Settings, env: dict[str, str], lock: TextIO, stopping: threading.Event) -> bool:
    """
    Work until it is `stopping`. Return whether a bug has ended it: a machine that said that it is there, and did
    nothing, would keep its jobs from everybody.
    """
    from engines.worker import inventory
    from engines.worker.bridge import Bridge
    from engines.worker.studio_client import StudioAway, StudioClient, StudioRefuses
    from engines.worker.supervisor import Supervisor

    studio = StudioClient(settings.server, settings.worker_token)
    there = urlsplit(settings.server)
    wakes_at = network.hardware_address(there.hostname or "", there.port or 80) if settings.wake else ""
    bridge = Bridge(studio, queue, settings.uploads / "studio", socket.gethostname(), wakes_at)
    worker = Supervisor(queue, env, lock.fileno(), crash_log=logs.folder(settings.state) / logs.CRASHES)
    queue.announce(inventory.at_start(settings))
    worker.start()
    called, work = bool(settings.queue), bridge.work
    if called:
        from engines.jobs import celery_queue

        listen = partial(celery_queue.listen, settings.queue, stopping=stopping)
        work = partial(bridge.heed, listen)
    failed = threading.Event()
    for name, act in (("heartbeat", partial(bridge.beat, called=called)), ("bridge", work)):
        threading.Thread(target=_to_the_end, args=(act, stopping, failed), name=name, daemon=True).start()
    stopping.wait()
    try:
        studio.leave()  # first: others begin with what it had at once
    except (StudioAway, StudioRefuses):
        pass  # who is heard no more has left
    worker.stop(without_page.STOP_S)
    queue.close()
    return failed.is_set()


def _to_the_end(act: Callable[[threading.Event], object], stopping: threading.Event, failed: threading.Event) -> None:
    try:
        act(stopping)
    finally:
        if not stopping.is_set():
            failed.set()
            stopping.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
