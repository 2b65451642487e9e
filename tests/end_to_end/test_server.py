"""The composition root, `python -m webui`, as a process: how it starts, how it stops, what it finds afterwards."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Generate, pack
from engines.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.http import CJK, QUICK, SKETCH
from tests.support.server import Process
from webui import __main__ as root
from webui.connections import lan_address
from webui.i18n import words

if TYPE_CHECKING:
    from tests.support.server import Start

LONG = {"prompt": "slow", "steps": 30, "preview": "off"}  # a few seconds
NIGHTLY = {**LONG, "steps": 50, "count": 8}  # outlasts every stop


def jobs(home: Path) -> dict[str, tuple[str, int]]:
    """State and attempts of every job, oldest first."""
    with closing(sqlite3.connect(home / "state" / "jobs.db")) as db:
        return {row[0]: (row[1], row[2]) for row in db.execute("SELECT id, state, attempts FROM job ORDER BY number")}


def until(home: Path, number: int, *states: str, seconds: float = 120) -> None:
    """The job with this number (from 0) is in one of these states."""
    deadline = time.monotonic() + seconds
    while len(jobs(home)) <= number or list(jobs(home).values())[number][0] not in states:
        assert time.monotonic() < deadline, jobs(home)
        time.sleep(0.02)


def post(url: str, asked: dict[str, Any]) -> int:
    """The status; 0 when the server went away meanwhile."""
    try:
        return httpx.post(f"{url}/generate", json=asked, timeout=60).status_code
    except httpx.TransportError:
        return 0


PATIENCE_S = root.STOP_S + 25


@dataclass(frozen=True)
class Life:
    """What happened to one STUDIO_HOME in two starts."""

    home: Path
    log: str  # of the first start
    health: dict[str, Any]
    content: bytes  # of a picture
    exit_code: int | None
    stopped_in_s: float
    after_stop: list[tuple[str, int]]
    answers: list[int]  # what the clients of that time got
    in_the_end: list[tuple[str, int]]
    pictures: list[str]  # by then
    interrupted: int | None  # the exit status of the second start after Ctrl+C
    last_words: str  # of the second start
    still_there: bytes  # of that picture after the second start


@pytest.fixture(scope="module")
def life(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A picture; three jobs and SIGTERM. A second start does what is left; three jobs and Ctrl+C."""
    home = tmp_path_factory.mktemp("life")
    with ThreadPoolExecutor(6) as clients:
        first = start(home)
        first.until_ready()
        health = httpx.get(f"{first.url}/healthz").json()
        picture = httpx.post(f"{first.url}/generate", json={"prompt": "kept", **QUICK}, timeout=60).json()["images"][0]
        content = httpx.get(first.url + picture).content
        waiting = three_wait(clients, first, home)
        begun = time.monotonic()
        exit_code = first.stop(signal.SIGTERM, PATIENCE_S)
        stopped_in_s, after_stop = time.monotonic() - begun, list(jobs(home).values())
        answers = [client.result() for client in waiting]
        shorten(home)
        second = start(home)
        second.until_ready()
        for k in range(4):
            until(home, k, "done", "failed", "cancelled")
        still_there, in_the_end = httpx.get(second.url + picture).content, list(jobs(home).values())
        pictures = [path.name for path in (home / "outputs").glob("outputs_*")]
        three_wait(clients, second, home)
        interrupted = second.stop(signal.SIGINT, PATIENCE_S)
    logs = [server.log.read_text(encoding="utf-8") for server in (first, second)]
    return Life(
        home,
        logs[0],
        health,
        content,
        exit_code,
        stopped_in_s,
        after_stop,
        answers,
        in_the_end,
        pictures,
        interrupted,
        logs[1],
        still_there,
    )


def three_wait(clients: ThreadPoolExecutor, server: Process, home: Path) -> list[Future[int]]:
    """One job is running, two are behind it, and their clients wait."""
    known, waiting = len(jobs(home)), []
    for k, (asked, state) in enumerate(((NIGHTLY, "running"), (LONG, "queued"), (LONG, "queued"))):
        waiting.append(clients.submit(post, server.url, asked))
        until(home, known + k, state)
    return waiting


def shorten(home: Path) -> None:
    """Make the long job one that is soon done: what matters is that it is."""
    with closing(sqlite3.connect(home / "state" / "jobs.db")) as db:
        db.execute("UPDATE job SET request=? WHERE number=2", (pack(Generate("shortened", **QUICK)),))
        db.commit()


def test_it_says_where_it_can_be_reached(life: Life) -> None:
    port = re.search(r"Local:\s+http://localhost:(\d+)", life.log)
    assert port, life.log
    if address := lan_address():
        assert re.search(rf"LAN:\s+http://{re.escape(address)}:{port[1]}\b", life.log)
    assert "AWPortrait Edge · 人像工作室" in life.log and "Ctrl+C" in life.log


def test_it_becomes_ready_with_the_engines_it_has(life: Life) -> None:
    assert life.health["status"] == "ready"
    assert life.health["bundles"].keys() >= {"portrait", "restorer"}


def test_it_stops_in_time_when_told_to(life: Life) -> None:
    """With a job running, others waiting and their clients still connected."""
    assert life.exit_code is not None, "it had to be killed"
    assert life.exit_code in (0, -signal.SIGTERM)
    assert life.stopped_in_s < root.STOP_S + 10


def test_a_stop_while_it_starts_is_a_stop(start: Start, tmp_path: Path) -> None:
    """Wherever it finds the imports, which made other errors of it, swallowed it, or waited for each other for ever."""
    server = start(tmp_path)
    while not (tmp_path / "state" / "lock").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    assert server.stop(signal.SIGTERM, PATIENCE_S) == 0
    assert "Local" not in (log := server.log.read_text(encoding="utf-8")) and "Traceback" not in log


def test_the_page_does_not_wait_for_the_engines(tmp_path: Path) -> None:
    """On a slow disk the worker says what is here long after the page was built."""
    go, site = tmp_path / "go", tmp_path / "site"
    site.mkdir()
    late = "import os, sys, time\nwhile 'engines.worker' in sys.orig_argv and not os.path.exists({!r}): time.sleep(0.1)"
    (site / "sitecustomize.py").write_text(late.format(str(go)), encoding="utf-8")
    server = Process(tmp_path, PYTHONPATH=str(site), STUDIO_BACKEND="auto")
    try:
        deadline = time.monotonic() + 60
        while lost(server):
            assert server.popen.poll() is None and time.monotonic() < deadline, server.log.read_text(encoding="utf-8")
            time.sleep(0.1)
        assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 503
        parts = httpx.get(f"{server.url}/config", timeout=30).json()["components"]
        shown = {part["props"].get("elem_id"): part["props"] for part in parts}
        assert shown["size"]["value"] == "512×512" and shown["bundle"]["value"] == "portrait"
        assert words("en").table["portrait_sketcher"] in shown["introduced"]["value"]
        groups = {value for _, value in shown["backend"]["choices"]}
        assert ("pytorch" in groups) == (find_spec("torch") is not None)
        go.touch()
        server.until_ready()
    finally:
        server.stop()


def lost(server: Process) -> bool:
    try:
        return httpx.get(server.url, timeout=30).status_code != 200
    except httpx.TransportError:
        return True


def test_ctrl_c_stops_it_too_without_a_story(life: Life) -> None:
    assert life.interrupted is not None, "it had to be killed"
    assert "KeyboardInterrupt" not in life.last_words


def test_a_stop_leaves_no_job_half_done(life: Life) -> None:
    """What could not be answered in time waits; what was begun too, and its client is told."""
    assert life.after_stop == [("done", 1), ("queued", 1), ("queued", 0), ("queued", 0)]
    assert life.answers == [503] * 3


def test_what_was_left_is_done_after_the_next_start(life: Life) -> None:
    assert [state for state, _ in life.in_the_end] == ["done"] * 4


def test_pictures_outlive_the_process(life: Life) -> None:
    assert life.still_there == life.content
    assert len(life.pictures) == len(life.in_the_end), "one of each job, none twice"
    assert not list((life.home / "outputs").glob(".*")), "no half-written file"


def test_what_it_keeps_is_private(life: Life) -> None:
    """Folders that a test has made for it among them."""
    kept = [life.home / name for name in ("state", "tmp", "uploads", "outputs")]
    kept += [*(life.home / "outputs").iterdir(), *(life.home / "state").glob("jobs.db*")]
    assert len(kept) > 6 and [str(path) for path in kept if path.stat().st_mode & 0o077] == []


def run(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")}
    environment = {**kept, "STUDIO_HOME": str(home), "STUDIO_PORT": "0", "STUDIO_HOST": "127.0.0.1", **settings}
    command = [sys.executable, "-m", "webui"]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)


def assert_refused_in_both_languages(done: subprocess.CompletedProcess[str], part: str) -> None:
    assert done.returncode == 2, done.stderr
    assert part in done.stderr
    assert CJK.search(done.stderr) and re.search(r"[A-Za-z]+ [a-z]+", done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, "a sentence, not a story"


def test_a_secret_that_cannot_be_stored_refuses_the_start_in_words(tmp_path: Path) -> None:
    (tmp_path / "state" / "secret" / "x").mkdir(parents=True)
    assert_refused_in_both_languages(run(tmp_path), "secret")


@pytest.mark.parametrize(
    "settings",
    [{"STUDIO_HOEM": "x"}, {"STUDIO_PORT": "web"}, {"STUDIO_LOG": "loud"}, {"STUDIO_UPLOAD_MB": "0"}],
    ids=str,
)
def test_a_wrong_setting_is_named_and_nothing_starts(tmp_path: Path, settings: dict[str, str]) -> None:
    assert_refused_in_both_languages(run(tmp_path / "home", **settings), next(iter(settings)))
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run(tmp_path / "file" / "home")
    assert_refused_in_both_languages(done, "file")
    assert "STUDIO_HOME" in done.stderr and "[Errno" not in done.stderr, "what to do, and no number of the system's"


def test_a_home_that_is_taken_is_left_to_who_has_it(process: Process) -> None:
    """A second worker would take the job that is running for one of a crash."""
    home = process.log.parent
    known = len(jobs(home))
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(post, process.url, LONG)
        until(home, known, "running")
        done = run(home)
        assert_refused_in_both_languages(done, f"process {process.popen.pid}")
        assert answer.result() == 200
    assert list(jobs(home).values())[known] == ("done", 1)


def test_a_port_that_is_taken_is_named(process: Process, tmp_path: Path) -> None:
    port = process.url.rpartition(":")[2]
    done = run(tmp_path, STUDIO_PORT=port)
    assert done.returncode not in (0, None)
    assert port in done.stderr and CJK.search(done.stderr), "in words that say what to do"
    assert "Traceback" not in done.stderr
    assert "Local:" not in done.stdout, "an address is announced that is somebody else's"


LEFT = {  # id -> request, state, attempts: what a crash, a newer version and a hole in a door can leave
    "interrupted": (pack(Generate("drawn again", **QUICK)), "running", 1),
    "of the future": ('{"kind": "of_the_future", "x": 1}', "running", 1),
    "half": ('{"kind": "generate", "prompt": "x", "count": 2.5}', "queued", 0),
    "torn": ('{"kind": "gener', "queued", 0),
    "waiting": (pack(Generate("drawn at last", **QUICK)), "queued", 0),
}


def test_a_job_that_cannot_be_read_stops_nobody(start: Start, tmp_path: Path) -> None:
    """
    It fails; what was running when the power went, what waited, and what comes new are done. The database is damaged as
    well, where no row is, and the server says so.
    """
    SqliteQueue(tmp_path / "state" / "jobs.db", tmp_path / "outputs").close()
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.db")) as db:
        rows = [(job_id, *values) for job_id, values in LEFT.items()]
        db.executemany("INSERT INTO job(id, request, state, attempts) VALUES(?, ?, ?, ?)", rows)
        db.commit()
        (index,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name='job_state'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with (tmp_path / "state" / "jobs.db").open("r+b") as file:
        file.seek((index - 1) * size)
        file.write(bytes(size))
    server = start(tmp_path)
    try:
        server.until_ready()
        assert post(server.url, {"prompt": "after them", **QUICK}) == 200
        states = {job_id: state for job_id, (state, _) in jobs(tmp_path).items() if job_id in LEFT}
    finally:
        server.stop()
    (aside,) = (tmp_path / "state").glob("jobs.damaged-*.db")
    assert aside.name in server.log.read_text(encoding="utf-8")
    failed = dict.fromkeys(("of the future", "half", "torn"), "failed")
    assert states == {"interrupted": "done", "waiting": "done", **failed}
    assert jobs(tmp_path)["interrupted"][1] == 2, "the second attempt"


def test_it_answers_to_its_own_name_and_to_those_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Studio-Box")
    names = root.host_names(Settings.load({"STUDIO_NAMES": "portraits.lan, Other"}))
    ends = ("local", "lan", "home", "home.arpa", "fritz.box", "*.ts.net")
    assert names == ("localhost", "studio-box", *(f"studio-box.{end}" for end in ends), "portraits.lan", "other")


def test_no_address_is_announced_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> Offline:
            return self

        def __exit__(self, *_: object) -> None: ...
        def connect(self, _: object) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr("socket.socket", Offline)
    assert lan_address() == ""


@pytest.mark.parametrize("in_a_terminal", [True, False])
def test_before_a_terminal_a_phone_can_scan_the_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_a_terminal: bool
) -> None:
    monkeypatch.setattr("webui.banner.lan_address", lambda: "192.168.1.5")
    monkeypatch.setattr("sys.stdout.isatty", lambda: in_a_terminal)
    root._announce(Settings(), 7861)
    printed = capsys.readouterr().out
    assert "http://192.168.1.5:7861" in printed
    assert ("手机扫码" in printed) == ("█" in printed) == in_a_terminal


def test_everything_it_needs_lies_in_its_home(life: Life) -> None:
    assert {path.name for path in life.home.iterdir() if not path.name.startswith("server-")} <= {
        "outputs", "uploads", "models", "checkpoints", "loras", "state", "tmp",
    }  # fmt: skip
    assert SKETCH["bundle"] not in life.health["bundles"], "a bundle of another home"
