"""
`./run.sh parts [--token TOKEN]`: lend parts of this machine's models to a studio on another one, which sends arrays and
gets arrays back. A composition root of its own: the lender and its doors, and no page, no queue, no jobs. It reads the
models of STUDIO_HOME, and stores nothing of what it is sent.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines import logs
from engines.machine import preflight
from engines.settings import Settings, SettingsError
from engines.settings.installation import COMMAND, called
from webui import without_page

if TYPE_CHECKING:  # what is compiled for certain processors is imported when it has been tried
    from engines.worker.lender import Lender

PORT = 7870
STOP_S = 5
CONNECTIONS = 32
IDLE_S = 60  # until a connection is closed on which nothing is asked: the other side does so before
NO_TOKEN = (
    f"请说明令牌:{COMMAND} parts --token 令牌,或设置 STUDIO_PARTS_TOKEN;工作室那边用同一个。"
    f" Say the token: {COMMAND} parts --token TOKEN, or set STUDIO_PARTS_TOKEN; the studio has the same."
)


def main(arguments: Sequence[str]) -> int:
    os.umask(0o077)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # until uvicorn has its own, which raises them again after its stop
        signal.signal(number, lambda *_: stopping.set())
    asked = _parser().parse_args(arguments)
    env = {**os.environ, **({"STUDIO_PARTS_TOKEN": asked.token} if asked.token else {})}
    try:
        settings = Settings.load(env)
        if not settings.parts_token:
            raise SettingsError(NO_TOKEN)
        if why := preflight.refusal(settings.state / preflight.FOLDER):
            raise SettingsError(" ".join(why))
        settings.models.mkdir(mode=0o700, parents=True, exist_ok=True)
        host = asked.host or settings.host
        door = socket.create_server((host, asked.port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except without_page.CANNOT as exc:
        without_page.say_why(exc)
        return 2
    logs.begin(settings, "parts")
    from engines.worker.lender import Lender

    lender = Lender.at_home(settings)
    if not stopping.is_set():
        port, names = door.getsockname()[1], ", ".join(lender.shelf.names())
        print(f"✓ 出借模型部件,端口 {port} · parts are lent on port {port}: {names} · 停止 Stop: Ctrl+C", flush=True)
        _serve(lender, settings, door)
    logging.shutdown()
    os._exit(0)  # an engine may be in the middle of a run, which what it stands on must not be taken from


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{COMMAND} parts", description=called(__doc__ or ""))
    parser.add_argument("--token", default="", help="与工作室共用的令牌 · the token that the studio has too")
    parser.add_argument("--port", type=int, default=PORT, help=f"端口 · port [{PORT}]")
    parser.add_argument("--host", default="", help="监听地址 · address to listen on [STUDIO_HOST]")
    return parser


def _serve(lender: Lender, settings: Settings, door: socket.socket) -> None:
    import uvicorn

    from webui import connections
    from webui.parts.app import build

    config = uvicorn.Config(
        build(lender, settings.parts_token),
        http=connections.DeadlineProtocol,
        proxy_headers=False,
        log_config=None,  # its complaints go where ours go
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    uvicorn.Server(config).run(sockets=[door])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
