"""The composition root: settings, queue, worker, doors. `python -m webui` serves."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from engines import logs
from engines.errors import StorageError
from engines.machine import preflight
from engines.settings import Settings, SettingsError
from webui import home_lock, notify, packages

if TYPE_CHECKING:  # what is compiled for certain processors is imported when it has been tried
    from engines.jobs.dispatch import Dispatcher
    from engines.jobs.sqlite_queue import SqliteQueue
    from engines.worker.supervisor import Supervisor
    from webui.certificates import Certificates

Opened = Callable[[asyncio.AbstractEventLoop], None]
OWN_NAMES = (".local", ".lan", ".home", ".home.arpa", ".fritz.box", ".*.ts.net")  # after the machine's own
NEVER = 10**9  # events
WRITABLE = (
    "请检查这个文件夹能否写入(只读?磁盘满?权限?),或换一个 STUDIO_HOME。"
    " See whether it can be written (read-only? full? whose is it?), or choose another STUDIO_HOME."
)
STOP_S, LEAVE_S = 7.0, 1.0  # what a stop may take, of the worker and then of all else: Docker kills after 10


def main() -> int:
    os.umask(0o077)  # photos, prompts and faces: nobody else's on this machine
    _tame_malloc()
    systemd = notify.take(os.environ, os.getpid())
    stopping, served = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # until uvicorn has its own, which raises them again after its stop
        signal.signal(number, lambda *_: stopping.set())
    try:
        settings = Settings.load(os.environ)
        packages.check(settings)
        lock = home_lock.take(settings)
        _prepare(settings)
        door = _open(settings)
        _check_processor(settings)
        _secret(settings)
        queue = _queue(settings)
        tls = _certificates(settings) if settings.https else None
        home_lock.sign(lock, f"port {door.getsockname()[1]}{', https' if tls else ''}")
    except (SettingsError, StorageError) as exc:
        print(f"无法启动 Cannot start: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:  # of its folder; of the port and of the packages it is said above
        print(f"无法启动 Cannot start: {exc.filename or settings.home}: {exc.strerror}\n{WRITABLE}", file=sys.stderr)
        return 2
    logs.begin(settings, "server")
    if queue.repaired:
        _say_repaired(*queue.repaired)
    if queue.lost_commits:
        _say_lost()
    from engines.jobs.dispatch import Dispatcher
    from engines.worker import inventory
    from engines.worker.supervisor import Supervisor
    from webui import network, sweep
    from webui.people.tokens import Tokens

    env = {**os.environ, "STUDIO_HOME": str(settings.home)}
    worker = Supervisor(queue, env, lock.fileno(), crash_log=logs.folder(settings.state) / logs.CRASHES)
    stopper = threading.Thread(target=_stop, args=(worker, stopping, served), name="stopper", daemon=True)
    stopper.start()
    threading.Thread(target=sweep.hourly, args=(queue, settings, stopping), name="sweep", daemon=True).start()
    _watch_inbox(queue, settings, stopping)
    _announce_in_network(settings, door, stopping)
    queue.announce(inventory.at_start(settings))
    tokens = Tokens(settings.state / "tokens.json")
    dispatcher = Dispatcher(queue, stopping, settings.state / "workers.json", tokens.workers, wake=network.wake)
    threading.Thread(target=dispatcher.attend, name="dispatcher", daemon=True).start()
    worker.start()  # loads the models while the page is being imported, which takes as long

    def opened(loop: asyncio.AbstractEventLoop) -> None:
        dispatcher.open()
        _watch(systemd, queue, worker, stopping, loop)

    try:
        _serve(settings, queue, dispatcher, door, tls, stopping, opened)
    finally:
        stopping.set()
        served.set()
        stopper.join()
        queue.close()  # whoever still follows a job ends with it
    return 0


def _watch_inbox(queue: SqliteQueue, settings: Settings, stopping: threading.Event) -> None:
    if settings.inbox_folder is not None:
        from webui.watch import watcher  # here: a house without an inbox need not wait for it

        threading.Thread(target=watcher.watch, args=(queue, settings, stopping), name="watch", daemon=True).start()


def _announce_in_network(settings: Settings, door: socket.socket, stopping: threading.Event) -> None:
    if settings.mdns:
        from webui import mdns  # here: a house that is not announced need not wait for it

        studio = mdns.Studio(door.getsockname()[1], settings.path, settings.https)
        threading.Thread(target=mdns.announce, args=(studio, settings.host, stopping), name="mdns", daemon=True).start()


def _secret(settings: Settings) -> None:
    from webui.people import secret

    secret.load(settings.state / "secret")  # what the disk refuses is said here, and not by the page


def _queue(settings: Settings) -> SqliteQueue:
    from engines.jobs import QuietHours
    from engines.jobs.sqlite_queue import SqliteQueue

    quiet, limit, pause_s = QuietHours.parse(settings.quiet_hours), settings.queue_limit, settings.pause_s
    where = settings.state / "jobs.db", settings.outputs
    if settings.queue:
        from engines.jobs.celery_queue import CeleryQueue  # here: a house without Redis need not wait for it

        return CeleryQueue(settings.queue, *where, limit, quiet, pause_s)
    return SqliteQueue(*where, limit, quiet=quiet, pause_s=pause_s)


def _stop(worker: Supervisor, stopping: threading.Event, served: threading.Event) -> None:
    """
    Stop the worker as soon as it is `stopping`, and end the process if the page is still being imported, which a signal
    must not break off: what is imported half keeps its lock, for which other threads wait.
    """
    stopping.wait()
    worker.stop(STOP_S)
    if not served.wait(LEAVE_S):
        logging.shutdown()
        os._exit(0)


def _tame_malloc() -> None:
    """
    On Linux with glibc: let all threads share two heaps, and give what is large a mapping of its own. By itself malloc
    gives 40 threads up to 16 heaps, and after the first large upload or page puts all that are smaller into them, where
    they keep apart what lies between. In half an hour of fifty people the server grew by 16 MB, and by no object of
    Python's; by 5 with two heaps; with both it stays (0.2 MB/h).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-8, 2)  # M_ARENA_MAX
        mallopt(-3, 1 << 18)  # M_MMAP_THRESHOLD: once it is set it does not move


def _check_processor(settings: Settings) -> None:
    """SettingsError: what the program imports next would end it on this processor."""
    if why := preflight.refusal(settings.state / preflight.FOLDER):
        raise SettingsError(" ".join(why))


def _prepare(settings: Settings) -> None:
    """
    Make the folders, and set what Gradio reads from the environment when it is imported: nothing leaves this machine,
    and no table of all that was done is drawn up anew, with pandas, after every event.
    """
    for folder in (settings.outputs, settings.models, settings.checkpoints, settings.loras, settings.state):
        folder.mkdir(parents=True, exist_ok=True)
    for private in (settings.state, settings.uploads):  # those of an earlier version were open to all
        private.mkdir(exist_ok=True)
        private.chmod(0o700)
    settings.cache.mkdir(mode=0o700, exist_ok=True)
    os.environ.update(
        GRADIO_TEMP_DIR=str(settings.cache),
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_ANALYTICS_CACHE_FREQUENCY=str(NEVER),
        HF_HUB_OFFLINE="1",
    )


def _certificates(settings: Settings) -> Certificates:
    """Return those with which https is served under this machine's names and addresses. OSError."""
    from webui import certificates, network  # here: the first imports cryptography, which others need not wait for

    return certificates.prepare(
        settings.state, host_names(settings), network.own_addresses(), datetime.now(UTC).replace(microsecond=0)
    )


def _say_repaired(aside: Path, rows: int) -> None:
    print(
        f"任务记录已损坏,原文件保存为 {aside},已恢复 {rows} 行。"
        f" The jobs' database was damaged: it lies in {aside} now, and {rows} rows of it were taken over.",
        file=sys.stderr,
    )


def _say_lost() -> None:
    print(
        "任务记录的日志已损坏,最近的任务可能丢失,但图片仍在作品文件夹里。"
        " The log of the jobs' database was damaged: the latest jobs may be lost, but their pictures are still there.",
        file=sys.stderr,
    )


def _open(settings: Settings) -> socket.socket:
    """The port, taken before anything is loaded. SettingsError: it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as exc:
        raise SettingsError(
            f"STUDIO_HOST={settings.host} STUDIO_PORT={settings.port}: {exc.strerror}\n"
            "请换一个端口,或关闭占用它的程序。 Choose another port, or stop the program that uses it."
        ) from exc


def _watch(
    systemd: notify.Systemd | None,
    queue: SqliteQueue,
    worker: Supervisor,
    stopping: threading.Event,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Tell systemd, if it listens, that the server serves, and from now on that it lives."""
    if systemd is not None:
        checks = notify.checks(loop, queue.busy, lambda: worker.lives or stopping.is_set())
        arguments = systemd, checks, queue.status, stopping
        threading.Thread(target=notify.attend, args=arguments, name="systemd", daemon=True).start()


def _serve(
    settings: Settings,
    queue: SqliteQueue,
    dispatcher: Dispatcher,
    door: socket.socket,
    tls: Certificates | None,
    stopping: threading.Event,
    opened: Opened,
) -> None:
    import uvicorn

    # These import Gradio, which takes a second and reads the environment set above; gradio_patches does so fastest.
    from webui import connections, gradio_patches, server  # noqa: F401 (in this order)

    app = server.build(queue, settings, host_names(settings), dispatcher)
    gc.freeze()  # the page's 200,000 objects stay: whoever is asking need not wait 0.2 s while they are looked through
    config = uvicorn.Config(
        connections.Forwarded(app, settings.proxies),
        http=connections.DeadlineProtocol,
        ssl_certfile=tls.server if tls else None,
        ssl_keyfile=tls.key if tls else None,
        proxy_headers=False,  # it would believe whoever asks from this machine
        log_config=None,  # its complaints go where ours go
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(STOP_S + LEAVE_S),  # the worker stops meanwhile, and its clients are told
    )
    if not stopping.is_set():
        _announce(settings, door.getsockname()[1])
        server.Server(config, stopping, opened).run(sockets=[door])


def host_names(settings: Settings) -> tuple[str, ...]:
    """The names by which this machine is called: in houses each of these ends is one that its router or mDNS gives."""
    own = socket.gethostname().lower()
    return ("localhost", own, *(own.partition(".")[0] + end for end in OWN_NAMES), *settings.host_names)


def _announce(settings: Settings, port: int) -> None:
    from webui.banner import say_addresses

    say_addresses(settings, port, settings.https)
    print("  停止 Stop:    Ctrl+C\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
