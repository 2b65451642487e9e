"""
Releases of a program that only pretends: it takes the lock of its home, brings its database to its schema, and answers
/readyz, in a tenth of a second. What an update does with them, it would do with the true ones.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.conftest import REPOSITORY
from webui.doctor import server
from webui.doctor.server import Holder

PYPROJECT = '[project]\nname = "awportrait-edge"\nversion = "{version}"\n'
RUN = """\
#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [ -e current/run.sh ]; then exec bash current/run.sh "$@"; fi
case "$1" in
  setup) [ ! -e cannot-be-installed ] || { echo "no such package" >&2; exit 7; }
         venv=.venv; [ "${2:-}" != edge ] || venv=.venv-edge
         mkdir -p "$venv/bin"; ln -sfn "@PYTHON@" "$venv/bin/python"; echo "${STUDIO_WHEELHOUSE:-}" > installed-from ;;
  update|rollback) root=$(cd -P . && pwd); [ ! -e .release ] || root=${root%/*/*}
         cd "@REPOSITORY@"; exec "@PYTHON@" -m webui.update --root "$root" "$@" ;;
  *) exit 9 ;;
esac
"""
MAIN = """\
import fcntl, json, os, runpy, signal, socket, sqlite3, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

here = Path.cwd()
told = json.loads((here / "pretends.json").read_text())
state = Path(os.environ["STUDIO_HOME"]) / "state"
state.mkdir(parents=True, exist_ok=True)
lock = open(state / "lock", "a+")
for attempt in range(300):  # who looks whether somebody has it holds it for a moment
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        time.sleep(0.01)
else:
    sys.exit("somebody has this home")
if told["how"] == "dies":
    sys.exit("it cannot be: this version is broken")
columns = runpy.run_path(str(here / "engines/jobs/schema.py"))["COLUMNS"]["job"]
db = sqlite3.connect(state / "jobs.db")
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS job(number INTEGER PRIMARY KEY, id TEXT NOT NULL)")
there = {row[1]: row for row in db.execute("PRAGMA table_info(job)")}
if any(row[3] and row[4] is None for name, row in there.items() if name not in columns):
    sys.exit("the database is of a newer version")
if "colour" in columns and "colour" not in there:
    db.execute("ALTER TABLE job ADD COLUMN colour TEXT")
if "size" in columns and "size" not in there:
    with db:
        db.execute("BEGIN")
        db.execute("CREATE TABLE fresh(number INTEGER PRIMARY KEY, id TEXT NOT NULL, size TEXT NOT NULL)")
        db.execute("INSERT INTO fresh SELECT number, id, 'any' FROM job")
        db.execute("DROP TABLE job")
        db.execute("ALTER TABLE fresh RENAME TO job")
db.commit()

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        code = told["how"] if told["how"] != "works" else ""
        body = json.dumps({"version": told["version"], "reasons": [{"code": code, "message": code}] if code else []})
        self.send_response(503 if code else 200)
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args):
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
with HTTPServer(("127.0.0.1", int(os.environ.get("STUDIO_PORT", "0"))), Handler) as server:
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}, port {server.server_address[1]}\\n")
    lock.flush()
    server.serve_forever(0.05)
"""
OLD = ("number", "id")


def write(folder: Path, version: str, how: str = "works", columns: tuple[str, ...] = OLD) -> Path:
    """
    Write a release. `how`: "works", "dies", or the reason for which it says that it cannot work. `columns`: "colour" is
    one that older programs need not fill in, "size" one that they cannot.
    """
    pretends = json.dumps({"version": version, "how": how})
    run = RUN.replace("@PYTHON@", sys.executable).replace("@REPOSITORY@", str(REPOSITORY))
    for name, text in {
        "run.sh": run,
        "pyproject.toml": PYPROJECT.format(version=version),
        "constraints.txt": "",
        "pretends.json": pretends,
        "engines/jobs/schema.py": f"COLUMNS = {{'job': {columns!r}}}\n",
        "webui/__init__.py": "",
        "webui/__main__.py": MAIN,
        "webui/server.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "run.sh").chmod(0o755)
    return folder


def packed(folder: Path, extra: Mapping[str, tarfile.TarInfo] | None = None) -> Path:
    """Return a release as a file beside its folder; `extra`: what else is in it."""
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
        for name, member in (extra or {}).items():
            member.name = name
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def _read(url: str) -> bytes:
    """Return what is answered, whatever the status. OSError, HTTPException."""
    try:
        with urlopen(url, timeout=10) as answer:
            return bytes(answer.read())
    except HTTPError as exc:
        with exc:
            return exc.read()


@dataclass(frozen=True)
class House:
    """An installation, `root`, as somebody has it who has cloned it, with the data beside the program."""

    root: Path
    begun: list[subprocess.Popen[bytes]] = field(default_factory=list)  # by hand

    @property
    def state(self) -> Path:
        return self.root / "data" / "state"

    @property
    def holder(self) -> Holder | None:
        return server.holder(self.state / "lock")

    @property
    def env(self) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "PYTHONPATH"))}
        return {**outside, "STUDIO_PORT": "0", "STUDIO_HOST": "127.0.0.1"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "webui.update", "--root", str(self.root), *words]

    def do(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Update, or go back, to the end."""
        return subprocess.run(
            self.command(*words),
            cwd=REPOSITORY,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )

    @property
    def program(self) -> Path:
        link = self.root / "current"
        return link.resolve() if link.is_symlink() else self.root

    def start(self) -> None:
        """Start what is meant, as run.sh does, and wait until it answers."""
        env = {**self.env, "STUDIO_HOME": str(self.root / "data")}
        python = next(path for path in self.program.glob(".venv*/bin/python"))
        log = self.root / "by-hand.log"
        with log.open("wb") as out:
            begun = subprocess.Popen([str(python), "-m", "webui"], cwd=self.program, env=env, stdout=out, stderr=out)
        self.begun.append(begun)
        deadline = time.monotonic() + 60
        while self.version() is None:
            assert begun.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.01)

    def version(self) -> str | None:
        """Return what answers in its home; None: nobody."""
        held = self.holder
        if held is None or not held.port:
            return None
        try:
            return str(json.loads(_read(f"http://127.0.0.1:{held.port}/readyz"))["version"])
        except (OSError, HTTPException, ValueError):  # nobody is there, or it ends in the middle of its answer
            return None

    def stop(self) -> None:
        held = self.holder
        deadline = time.monotonic() + 60
        while held and held.process and (now := self.holder) and now.process == held.process:
            assert time.monotonic() < deadline
            try:
                os.kill(held.process, 15)
            except ProcessLookupError:
                break
            time.sleep(0.01)
        for begun in self.begun:
            begun.wait(60)

    def jobs(self) -> list[str]:
        with closing(sqlite3.connect(self.state / "jobs.db")) as db:
            return [row[0] for row in db.execute("SELECT id FROM job ORDER BY number")]

    def columns(self) -> list[str]:
        with closing(sqlite3.connect(self.state / "jobs.db")) as db:
            return [row[1] for row in db.execute("PRAGMA table_info(job)")]

    def add(self, job: str) -> None:
        names = "id, size" if "size" in self.columns() else "id"
        values = (job, "large") if "size" in names else (job,)
        with closing(sqlite3.connect(self.state / "jobs.db")) as db, db:
            db.execute(f"INSERT INTO job({names}) VALUES({', '.join('?' * len(values))})", values)


def cloned(root: Path, version: str = "1.0") -> House:
    """An installation of before there were updates: a clone, installed without PyTorch, that has one job."""
    write(root, version)
    subprocess.run(["bash", "run.sh", "setup", "edge"], cwd=root, check=True, timeout=60)
    house = House(root)
    house.start()
    house.add("first")
    house.stop()
    return house
