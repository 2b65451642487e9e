"""What the doctor sees, what it says to do, and that it leaves everything as it was."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from engines import backends
from engines.jobs.sqlite_queue import SqliteQueue
from engines.machine import preflight
from engines.messages import Generate
from tests.conftest import REPOSITORY
from tests.support.http import CJK
from tests.support.tree import tree
from webui.api import health
from webui.doctor import GB, Line, broker, engines, folders, home, machine, server
from webui.doctor.server import Holder

HERE = socket.gethostname()
NOWHERE = Path("nowhere")  # of the authority of a server that serves no https


def says(line: Line, level: str, part: str) -> None:
    """In both languages, where there is more to say than a name."""
    assert (line.level, part in line.en) == (level, True), line
    assert line.zh == line.en or (CJK.search(line.zh) and re.search("[A-Za-z]+", line.en))


# ---- the machine


@pytest.mark.parametrize(("version", "level"), [((3, 11, 0), "ok"), ((3, 14, 1), "ok"), ((3, 10, 9), "error")])
def test_python_is_new_enough(version: tuple[int, ...], level: str) -> None:
    says(machine.python(version), level, f"Python {version[0]}.{version[1]}")


@pytest.mark.parametrize(
    ("name", "flags", "level", "part"),
    [
        ("x86_64", {"sse2", "avx2", "avx512_vnni"}, "ok", "avx2, avx512_vnni"),
        ("x86_64", {"sse2"}, "warning", "without avx2"),
        ("aarch64", {"fp", "asimd", "i8mm"}, "ok", "asimd, i8mm"),
        ("armv7l", {"vfpv3"}, "warning", "without asimd"),
        ("x86_64", set(), "ok", "it has -"),
    ],
)
def test_a_slow_processor_is_named(name: str, flags: set[str], level: str, part: str) -> None:
    line = machine.processor(name, flags, 4)
    says(line, level, part)
    assert "4 cores" in line.en


def test_little_memory_is_named() -> None:
    says(machine.memory(4 * GB, 8 * GB, 0), "ok", "4.0 GB of memory free, of 8.0 GB")
    says(machine.memory(GB // 2, 8 * GB, 2 * GB), "warning", "2.0 GB of swap")


@pytest.mark.parametrize(
    ("now_s", "level"),
    [(1.8e9, "ok"), (1.8e9 - 1000, "ok"), (1.8e9 - 90_000, "error"), (0.0, "error"), (4.2e9, "error")],
)
def test_a_clock_is_not_before_the_program_nor_after_all(now_s: float, level: str) -> None:
    says(machine.clock(now_s, newest_s=1.8e9), level, "the clock says")


def test_temporary_files_have_room(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path)}
    says(machine.temporary(env, 1), "ok", str(tmp_path))
    says(machine.temporary(env, 10**18), "warning", "uploads may fail")
    assert str(tmp_path / "none") not in machine.temporary({"TMPDIR": str(tmp_path / "none")}, 1).en


def test_without_a_folder_for_temporary_files_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TEMPORARY", ())
    says(machine.temporary({}, 1), "error", "TMPDIR")


# ---- the home


def test_a_home_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    says(home.folder(tmp_path / "a" / "b"), "ok", "the first start makes it")
    says(home.folder(tmp_path), "ok", "can be written")


def test_a_home_that_cannot_be_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    says(home.folder(tmp_path / "file" / "home"), "error", "file is no folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    says(home.folder(tmp_path / "link"), "error", "link is no folder")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    says(home.folder(tmp_path), "error", "chown")


def test_what_others_may_read_is_named(tmp_path: Path) -> None:
    state, uploads = tmp_path / "state", tmp_path / "uploads"
    state.mkdir(mode=0o700)
    says(home.private((state, uploads)), "ok", "this user's alone")
    uploads.mkdir(mode=0o755)
    uploads.chmod(0o755)
    says(home.private((state, uploads)), "warning", f"chmod 700 {uploads}")


@pytest.mark.parametrize(
    ("free", "level"), [(home.ENOUGH_BYTES - 1, "error"), (home.ENOUGH_BYTES, "warning"), (9 * GB, "ok")]
)
def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))  # type: ignore[attr-defined]
    says(home.disk(tmp_path / "home"), level, "GB of the disk free")


def test_it_has_the_servers_idea_of_a_full_disk() -> None:
    """Which it cannot import: it looks at machines without FastAPI too."""
    assert home.ENOUGH_BYTES == health.ENOUGH_BYTES


Home = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Home:
    """written(killed): a database with a job, of a server that was stopped, or killed."""

    def write(killed: bool = False) -> Path:
        folder = tmp_path / "state"
        with closing(SqliteQueue(tmp_path / "other" / "jobs.db", tmp_path)) as queue:
            queue.submit_all([Generate("p" * 100)] * 200)
            if killed:
                shutil.copytree(tmp_path / "other", folder)
                (folder / "jobs.db-shm").unlink()
        if not killed:
            shutil.copytree(tmp_path / "other", folder)
        assert (folder / "jobs.db-wal").exists() is killed
        return folder / "jobs.db"

    return write


@pytest.mark.parametrize("killed", [False, True])
def test_a_whole_database_is_read_and_left_alone(written: Home, killed: bool) -> None:
    path = written(killed)
    before = tree(path.parent)
    says(home.database(path, served=False), "ok", "whole")
    assert tree(path.parent) == before


@pytest.mark.parametrize("killed", [False, True])
def test_damage_is_an_error_and_left_to_the_server(written: Home, killed: bool) -> None:
    path = written(killed)
    for file in (path, path.with_name("jobs.db-wal")):
        if file.exists():
            data = bytearray(file.read_bytes())
            data[5000:] = b"\xee" * (len(data) - 5000)
            file.write_bytes(data)
    path.write_bytes(b"\xee" * 9000 if killed else path.read_bytes())
    before = tree(path.parent)
    says(home.database(path, served=False), "error", "the next start sets it aside")
    assert tree(path.parent) == before


def test_a_database_is_read_beside_its_server(tmp_path: Path) -> None:
    with closing(SqliteQueue(tmp_path / "jobs.db", tmp_path)) as queue:
        queue.submit(Generate("p"))
        before = set(tree(tmp_path))
        says(home.database(tmp_path / "jobs.db", served=True), "ok", "whole")
        assert set(tree(tmp_path)) == before
        assert queue.claim() is not None


def test_a_check_that_takes_too_long_is_broken_off(written: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written()
    monkeypatch.setattr(home, "CHECK_S", -1.0)
    monkeypatch.setattr(home, "OFTEN", 1)
    says(home.database(path, served=False), "warning", "interrupted")


def test_no_database_is_fine(tmp_path: Path) -> None:
    says(home.database(tmp_path / "jobs.db", served=False), "ok", "no database")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "level", "part"),
    [
        (
            '{"when": "2026-01-02T03:04:05Z", "kind": "generate", "cause": "it crashed"}\n',
            "warning",
            "generate, it crashed",
        ),
        ('{"when": "2020-01-02T03:04:05Z", "kind": "generate", "cause": "it crashed"}\n', "ok", "lately"),
        ("", "ok", "lately"),
        ("half a line", "warning", "cannot be read"),
        ("7", "warning", "cannot be read"),
        (None, "ok", "yet"),
    ],
)
def test_a_crash_of_this_week_is_named(tmp_path: Path, text: str | None, level: str, part: str) -> None:
    if text is not None:
        (tmp_path / "crashes.jsonl").write_text(text)
    now_s = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    says(home.crashes(tmp_path / "crashes.jsonl", now_s), level, part)


# ---- the server


def test_who_has_the_home_is_read_in_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert server.holder(lock) is None and not lock.exists()
    lock.write_text(f"process 77 on {HERE}, port 7860\n")
    assert server.holder(lock) is None, "it was another's, who is gone"
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert server.holder(lock) == Holder(77, HERE, 7860)
        lock.write_text(f"process 77 on {HERE}, port 7860, https\n")
        assert server.holder(lock) == Holder(77, HERE, 7860, https=True)
        lock.write_text(f"process 77 on {HERE}, watch\n")
        assert server.holder(lock) == Holder(77, HERE, 0), "it watches a folder, and serves nothing"
        lock.write_text("")
        assert server.holder(lock) == Holder(0, "", 0), "it has just begun"
    assert lock.read_text() == ""


def test_a_port_is_free_or_ours_or_anothers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        says(server.port("127.0.0.1", number, None), "error", "STUDIO_PORT")
        says(server.port("127.0.0.1", number, Holder(7, HERE, number)), "ok", "this program's own")
    says(server.port("127.0.0.1", number, None), "ok", "free")


@contextmanager
def answering(status: int, body: bytes) -> Iterator[Holder]:
    """A server that answers every question so, and notes the languages of those who ask."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.replace(b"LANGUAGE", self.headers["Accept-Language"].encode()))

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.01,))
        thread.start()
        yield Holder(77, HERE, door.server_port)
        door.shutdown()
        thread.join()


def reasons(*codes: str) -> bytes:
    return json.dumps({"reasons": [{"code": code, "message": f"{code} in LANGUAGE"} for code in codes]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "level", "part"),
    [
        (200, b"{}", "ok", "ready (process 77)"),
        (503, reasons("worker_loading"), "warning", "worker_loading in en"),
        (503, reasons("worker_loading", "storage_failed"), "error", "storage_failed in en"),
        (403, b"{}", "error", "403"),
        (500, b"<html>", "error", "does not answer"),
    ],
)
def test_a_server_is_asked_how_it_is(status: int, body: bytes, level: str, part: str) -> None:
    with answering(status, body) as held:
        line = server.serving("0.0.0.0", held, NOWHERE)
    says(line, level, part)
    assert "in en" not in line.zh


def test_a_server_that_does_not_answer_or_is_elsewhere_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        number = door.getsockname()[1]
    says(server.serving("127.0.0.1", Holder(77, HERE, number), NOWHERE), "error", "process 77 does not answer")
    says(server.serving("127.0.0.1", Holder(77, "elsewhere", 1), NOWHERE), "warning", "process 77 on elsewhere")
    says(server.serving("127.0.0.1", Holder(0, "", 0), NOWHERE), "warning", "in use")
    says(server.serving("127.0.0.1", None, NOWHERE), "ok", "no server")


# ---- engines


def test_every_engine_is_asked() -> None:
    assert engines.names() == sorted(backends.names())


@pytest.mark.parametrize(
    ("script", "level", "part"),
    [
        (
            'echo \'{"ok": true, "device": "CPU", "reason": "2 threads", "runtime": "x 1"}\'',
            "ok",
            "CPU, 2 threads, x 1",
        ),
        ('echo \'{"ok": false, "device": "", "reason": "not here", "runtime": ""}\'', "warning", "fake: not here"),
        ("echo Traceback >&2; echo 'ImportError: no numpy' >&2; exit 1", "error", "ImportError: no numpy"),
        ("kill -SEGV $$", "error", "it crashed (SIGSEGV); install it anew"),
        ("kill -ILL $$", "error", "needs instructions that this processor lacks (SIGILL)"),
        ("sleep 60", "error", "no answer"),
    ],
)
def test_an_engine_that_ends_its_process_does_not_take_the_doctor_along(
    script: str, level: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script.startswith("sleep"):
        monkeypatch.setattr(engines, "ANSWER_S", 0.1)
    lines = list(engines.engines(("bash", "-c", script), ("fake",)))
    says(lines[0], level, part)
    assert len(lines) == (1 if level == "ok" else 2), "one more, where no engine can work"


def test_what_cannot_be_imported_here_is_an_error() -> None:
    says(machine.wheels(None), "ok", "can be imported on this processor")
    why = preflight.sentence(preflight.Outcome("numpy", f"{preflight.LACKS} (SIGILL)"))
    says(machine.wheels(why), "error", "numpy needs instructions that this processor lacks (SIGILL): use a newer")


# ---- all of it


def doctor(folder: Path, *arguments: str, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, "-B", "-m", "webui.doctor", *arguments]
    ours = {"PATH": "/usr/bin:/bin", "STUDIO_HOME": str(folder), "STUDIO_PORT": "0", **env}
    return subprocess.run(command, cwd=REPOSITORY, env=ours, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_it_changes_nothing(written: Home) -> None:
    folder = written(killed=True).parents[1]
    before = tree(folder)
    done = doctor(folder, "--json")
    said = json.loads(done.stdout)
    assert tree(folder) == before and done.stderr == ""
    assert (done.returncode, said["ok"]) == (0, True), said
    assert {tuple(line) for line in said["lines"]} == {("level", "zh", "en")}


def test_without_a_home_and_without_what_must_be_installed_it_still_speaks(tmp_path: Path) -> None:
    """The standard library alone (-S, which its children do not inherit): as before ./run.sh setup."""
    (tmp_path / "numpy.py").write_text("raise ImportError('No module named numpy')")
    done = doctor(tmp_path / "home", python=("-S",), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and done.stderr == ""
    assert "✗ 没有可用的引擎" in done.stdout and "No module named" in done.stdout
    assert all(line[:2] in ("✓ ", "! ", "✗ ") for line in done.stdout.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["numpy.py"]


def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    done = doctor(tmp_path, python=("-S",), STUDIO_PROT="7860")
    assert done.returncode == 1 and "✗ 设置不可用:STUDIO_PROT" in done.stdout


# ---- folders of other people's photos


def test_folders_that_are_watched_are_there_and_can_be_used(tmp_path: Path) -> None:
    inbox, outbox = tmp_path / "inbox", tmp_path / "restored"
    away, parent = folders.watched(inbox, outbox)
    says(away, "warning", "STUDIO_INBOX")
    says(parent, "ok", "can be written to")  # it will be made there
    inbox.mkdir()
    says(next(folders.watched(inbox, outbox)), "ok", "can be read")
    says(list(folders.watched(inbox, tmp_path / "no" / "share"))[1], "warning", "results wait")


def test_folders_that_nobody_may_use_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.os, "access", lambda path, how: False)  # root may do anything
    for line, setting in zip(folders.watched(tmp_path, tmp_path), ("STUDIO_INBOX", "STUDIO_OUTBOX"), strict=True):
        says(line, "error", setting)


def test_folders_of_frames_are_there(tmp_path: Path) -> None:
    (here := tmp_path / "holidays").mkdir()
    there, away = folders.albums({"holidays": here, "wedding": tmp_path / "wedding"})
    says(there, "ok", "folder:holidays")
    says(away, "warning", "folder:wedding is empty")


def test_the_doctor_looks_at_the_folders_of_the_settings(tmp_path: Path) -> None:
    env = {"STUDIO_INBOX": str(tmp_path / "inbox"), "STUDIO_ALBUMS": str(tmp_path / "holidays")}
    said = doctor(tmp_path / "home", **env).stdout
    assert "the inbox" in said and "folder:holidays is empty" in said


# ---- the broker of Home Assistant


def test_a_broker_answers_or_does_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        says(broker.reachable(f"mqtts://me@127.0.0.1:{port}/"), "ok", f"127.0.0.1:{port} can be reached")
    away = broker.reachable(f"mqtt://me@127.0.0.1:{port}")
    says(away, "warning", "cannot be reached (Connection refused)")
    assert "me@" not in str(away)
    env = {"STUDIO_MQTT": f"mqtt://127.0.0.1:{port}", "STUDIO_MQTT_PASSWORD": "abracadabra"}
    said = doctor(tmp_path / "home", **env).stdout
    assert "the MQTT broker" in said and "abracadabra" not in said


def test_a_broker_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "find_spec", lambda name: None)
    says(broker.reachable("mqtt://127.0.0.1"), "error", "paho-mqtt")
