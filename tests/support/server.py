"""
The real application, served on a loopback port: what the tests of the front doors stand on. A plugin, declared in
tests/conftest.py: one server lasts for the whole run.

The built-in bundles run on ONNX Runtime; beside them lies "sketch", a bundle whose networks are the fakes, for tests
that need a worker which is fast or stuck.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import uvicorn

from engines import backends
from engines.backends import Engine
from engines.bundle import Bundle, Shelf
from engines.jobs.dispatch import Dispatcher
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Final, Generate
from engines.settings import Settings
from engines.studio import Studio
from engines.worker.loop import Worker
from tests.conftest import REPOSITORY
from tests.support import fakes
from tests.support.failing_disk import FailingDisk
from tests.support.http import SKETCH, Session, encoded, people
from tests.support.proved import believe_engines
from webui.__main__ import _prepare
from webui.connections import Subpath
from webui.guard import Guard
from webui.own_jobs import HouseJobs, OwnJobs
from webui.people import Person, secret
from webui.people.secret import Keys

PASSWORD = "open sesame"
NAMES = ("localhost", "studio.local")
READ_BY_GRADIO = (
    "GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "GRADIO_ANALYTICS_CACHE_FREQUENCY", "HF_HUB_OFFLINE",
)  # fmt: skip


@dataclass(frozen=True)
class Rig:
    settings: Settings
    queue: SqliteQueue
    engine: fakes.FakeEngine  # of the bundle "sketch"
    app: Guard
    url: str
    client: httpx.Client  # speaks no language, as programs do

    @property
    def cache(self) -> Path:
        """Where Gradio keeps what was uploaded through the page."""
        return self.settings.cache

    @property
    def house(self) -> HouseJobs:
        """The jobs as its doors see them."""
        return HouseJobs(self.queue, Keys(secret.load(self.settings.state / "secret")))

    def signed(self, final: Final) -> str:
        """Its first picture, as doors call it."""
        return self.house.keys.sign(final.images[0])

    def owned(self, job_id: str) -> OwnJobs:
        """The jobs of whoever has that one."""
        return OwnJobs(self.queue, self.house.keys, Person(self.queue.job(job_id).owner))

    @property
    def routes(self) -> list[Any]:
        """What the application answers to, behind the guard and the admission."""
        return list(self.app.app.app.routes)  # type: ignore[attr-defined]

    def session(
        self, language: str = "zh-CN,zh;q=0.9", address: str | None = None, of: Session | None = None
    ) -> Session:
        """`address`: of the client, on this machine. `of`: another page in the same browser."""
        return Session(self.url, language, address, of)

    def jobs(self) -> dict[str, str]:
        """Every job's state, as the disk has it."""
        with closing(sqlite3.connect(self.settings.state / "jobs.db")) as db:
            return dict(db.execute("SELECT id, state FROM job ORDER BY number").fetchall())

    def settle(self) -> None:
        """Wait until the jobs that earlier tests have left behind are over."""
        for job_id, state in self.jobs().items():
            if state in ("queued", "running"):
                list(self.queue.follow(job_id))

    def clear(self) -> None:
        """Cancel what earlier tests have left waiting, where nobody works it off."""
        for job_id, state in self.jobs().items():
            if state == "queued":
                self.queue.cancel(job_id)

    def requests(self) -> list[str]:
        """Every job's request, as the disk has it."""
        with closing(sqlite3.connect(self.settings.state / "jobs.db")) as db:
            return [row[0] for row in db.execute("SELECT request FROM job ORDER BY number")]

    def cached(self) -> dict[Path, int]:
        """What lies in Gradio's cache, and how large it is."""
        return {path: path.stat().st_size for path in self.cache.rglob("*") if path.is_file()}

    @contextmanager
    def stuck(self) -> Iterator[None]:
        """Inside, the worker sits in the middle of a job and gets no further. On the way out every job is cancelled."""
        gate = threading.Event()
        self.engine.spoil["denoiser"] = lambda result: result if gate.wait(120) else result
        stuck = self.queue.submit(Generate("somebody", **{**SKETCH, "steps": 2}))
        try:
            while self.queue.job(stuck).state == "queued":
                time.sleep(0.01)
            yield
        finally:
            unfinished = [job_id for job_id, state in self.jobs().items() if state in ("queued", "running")]
            for job_id in unfinished:
                self.queue.cancel(job_id)
            del self.engine.spoil["denoiser"]
            gate.set()
            for job_id in unfinished:
                list(self.queue.follow(job_id))


class Process:
    """`python -m webui` in a process of its own, as ./run.sh starts it. `disk`: what decides on its writes."""

    def __init__(self, home: Path, disk: FailingDisk | None = None, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        believe_engines(home)
        self.url, self.log = f"http://127.0.0.1:{port}", home / f"server-{port}.log"
        ours = {"STUDIO_HOME": str(home), "STUDIO_PORT": str(port), "STUDIO_BACKEND": "edge", **settings}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "GRADIO_"))}
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [*(disk.command if disk else (sys.executable, "-m")), "webui"],
                cwd=REPOSITORY,
                env={**kept, **ours},
                pass_fds=disk.descriptors if disk else (),
                stdout=log,
                stderr=log,
            )
        if disk:
            disk.serve()

    def until_ready(self, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not self._ready():
            assert self.popen.poll() is None and time.monotonic() < deadline, self.log.read_text(encoding="utf-8")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, signal_: signal.Signals = signal.SIGTERM, seconds: float = 40) -> int | None:
        """The exit status; None: it had to be killed."""
        self.popen.send_signal(signal_)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return None

    def memory_mb(self, name: str) -> float:
        """VmRSS: now. VmHWM: the most since the last reset."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith(f"{name}:"))

    def cpu_s(self) -> float:
        """Processor time of all its threads so far, whatever else runs on this machine."""
        after_name = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")  # utime, stime

    def reset_peak(self) -> None:
        Path(f"/proc/{self.popen.pid}/clear_refs").write_text("5")


Start = Callable[[Path], Process]


@dataclass
class Listener:
    """What the process asks of the network and opens on disk, told by the interpreter itself."""

    active: bool = False
    connected: list[Any] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    opened: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)  # path, files of the callers

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "socket.connect":
            self.connected.append(arguments[1])
        elif event == "socket.getaddrinfo":
            self.resolved.append(str(arguments[0]))
        elif event == "open" and isinstance(arguments[0], str | os.PathLike):
            self.opened.append((os.fspath(arguments[0]), callers()))


def callers() -> tuple[str, ...]:
    frame: FrameType | None = sys._getframe(2)
    found = []
    while frame is not None:
        found.append(frame.f_code.co_filename)
        frame = frame.f_back
    return tuple(found)


@pytest.fixture(scope="session")
def listener() -> Listener:
    """Hooked in for the life of the process, as such hooks are; quiet unless a test listens."""
    hooked = Listener()
    sys.addaudithook(hooked.hear)
    return hooked


@pytest.fixture
def heard(listener: Listener) -> Iterator[Listener]:
    listener.connected, listener.resolved, listener.opened, listener.active = [], [], [], True
    yield listener
    listener.active = False


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """start(home): one more server. Whatever still runs in the end is stopped."""
    started: list[Process] = []

    def begin(home: Path) -> Process:
        started.append(Process(home))
        return started[-1]

    yield begin
    for server in started:
        if server.popen.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server that has drawn and restored: what it needs for that is in its memory."""
    started = Process(tmp_path_factory.mktemp("process"), STUDIO_HOST="127.0.0.1")
    try:
        started.until_ready()
        httpx.post(f"{started.url}/generate", json={"prompt": "x"}, timeout=300).raise_for_status()
        photo = encoded(people(), "PNG")
        httpx.post(f"{started.url}/enhance", files={"image": ("a", photo)}, timeout=300).raise_for_status()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def rig(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), backend="edge", upload_mb=5)
    engine = fakes.FakeEngine()
    with pytest.MonkeyPatch.context() as environment:
        for name in READ_BY_GRADIO:
            environment.setenv(name, "")  # so that what _prepare sets is undone at the end
        _prepare(settings)
        fakes.write_portrait(settings.models / "sketch")
        with _worked(settings, Shelf((settings.models, builtin)), engine) as queue, _served(settings, queue) as server:
            app, url = server
            with httpx.Client(base_url=url, timeout=300) as client:
                yield Rig(settings, queue, engine, app, url, client)


@pytest.fixture(scope="session")
def idle(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    The same doors before a queue that nobody works off: what comes through stays there to be looked at. Two folders lie
    beside, "holidays" and "wedding".
    """
    beside = tmp_path_factory.mktemp("beside")
    albums = ",".join(str(beside / name) for name in ("holidays", "wedding"))
    settings = Settings(home=tmp_path_factory.mktemp("idle"), backend="edge", albums=albums)
    for folder in settings.album_folders.values():
        folder.mkdir()
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    queue.announce(rig.queue.status())
    with _served(settings, queue) as (app, url), httpx.Client(base_url=url, timeout=10) as client:
        yield Rig(settings, queue, rig.engine, app, url, client)
    queue.close()


@pytest.fixture(scope="session")
def closed(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The same doors in a house with a password, before a queue that nobody works off."""
    settings = Settings(home=tmp_path_factory.mktemp("closed"), backend="edge", password=PASSWORD)
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    queue.announce(rig.queue.status())
    with _served(settings, queue) as (app, url), httpx.Client(base_url=url, timeout=10) as client:
        yield Rig(settings, queue, rig.engine, app, url, client)
    queue.close()


@pytest.fixture(scope="session")
def assisted(rig: Rig) -> Iterator[Rig]:
    """The same queue behind doors of which one is MCP's."""
    settings = replace(rig.settings, mcp=True)
    with _served(settings, rig.queue) as (app, url), httpx.Client(base_url=url, timeout=300) as client:
        yield Rig(settings, rig.queue, rig.engine, app, url, client)


@pytest.fixture(scope="session")
def below(rig: Rig) -> Iterator[Rig]:
    """The same queue behind doors below a path, MCP's among them. `url`, and what `client` asks for, are below it."""
    settings = replace(rig.settings, mcp=True, path="/studio")
    with _served(settings, rig.queue) as (app, url), httpx.Client(base_url=f"{url}/studio", timeout=300) as client:
        yield Rig(settings, rig.queue, rig.engine, app, f"{url}/studio", client)


@contextmanager
def _worked(settings: Settings, shelf: Shelf, engine: fakes.FakeEngine) -> Iterator[SqliteQueue]:
    def select(bundle: Bundle, wanted: str, *, passed_over: int = 0) -> tuple[Engine, str]:
        return engine.select(bundle, wanted) if bundle.name == "sketch" else backends.select(bundle, wanted)

    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    worker = Worker(queue, Studio(shelf, settings.state, select), shelf, settings.backend)
    worker.start()
    try:
        while queue.status().state == "loading":
            time.sleep(0.02)
        yield queue
    finally:
        worker.stop(30)
        queue.close()


@contextmanager
def _served(settings: Settings, queue: SqliteQueue) -> Iterator[tuple[Guard, str]]:
    started: Future[tuple[Guard, uvicorn.Server]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(settings, queue, started)), daemon=True)
    thread.start()
    app, server = started.result(300)
    try:
        yield app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


async def _serve(settings: Settings, queue: SqliteQueue, started: Future[tuple[Guard, uvicorn.Server]]) -> None:
    """Builds inside the loop: outside one, Gradio makes loops of its own and forgets to close them."""
    try:
        # These import Gradio, which reads the environment that the fixture has set.
        from webui import gradio_patches  # noqa: F401 (first: it does so fastest)
        from webui import server as doors

        dispatcher = Dispatcher(queue, threading.Event(), settings.state / "workers.json", may_come=tuple)
        app = doors.build(queue, settings, NAMES, dispatcher)
        guard = app.app if isinstance(app, Subpath) else app
        assert isinstance(guard, Guard)
        config = uvicorn.Config(
            app, host="127.0.0.1", port=0, log_level="critical", server_header=False, timeout_graceful_shutdown=1
        )
        serving = asyncio.create_task((server := uvicorn.Server(config)).serve())
        while not server.started:
            await asyncio.sleep(0.01)
    except BaseException as exc:
        started.set_exception(exc)
        raise
    started.set_result((guard, server))
    await serving
