"""
A disk that is full, or read-only, in the middle of jobs; a database that is damaged, and a clock that is put forward or
back, between two starts. Moments, places and lengths are drawn from a seed.

The disk is full in truth: the home is a small tmpfs, in a mount namespace of this command's own, which leaves nothing
behind. Where no namespace may be made, its writes are refused by seccomp with what a kernel would say (failing_disk),
and the table says so. Read-only is always made so: a kernel makes no file system read-only in which files are open for
writing, unless its device fails.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from engines.files import HALF_WRITTEN
from tests.chaos.crashes import NEXT
from tests.chaos.kills import ask, faults, pictures_of, query, states
from tests.support.failing_disk import FailingDisk, can_fail
from tests.support.http import encoded, people
from tests.support.server import Process
from webui.api.health import ENOUGH_BYTES

KINDS = ("full", "read-only", "damaged", "clock")
# A job whose request was damaged; one that was killed twice in its middle.
MAY_FAIL = ("storage_failed", "bad_request", "interrupted")
INSIDE = "CHAOS_INSIDE"  # its own mount namespace
SIZE_BYTES = ENOUGH_BYTES + 300_000_000  # of the small disk, compiled networks among it; what it holds is memory
ASYNC = {"Prefer": "respond-async"}
LATEST_S, LONGEST_S = 4.0, 5.0  # until trouble begins, and how long it lasts
LATEST_WRITE = 60  # of a job, that is the first to be refused
END_S, READY_S, LOOK_S = 180.0, 60.0, 0.05
SAID_S = 3.0  # after which a disk that refuses is no secret
CLOCK = Path(__file__).parent / "clock"
DAY_S = 86400


def run(count: int, seed: int) -> list[str]:
    """Do it `count` times. Return what went wrong."""
    if why := can_fail():
        return [f"no disk can fail here: {why}"]
    if INSIDE not in os.environ and _may_mount():
        command = [sys.executable, "-m", "tests.chaos", "disk", "--count", str(count), "--seed", str(seed)]
        os.execvpe("unshare", ["unshare", "-rm", *command], {**os.environ, INSIDE: "1"})
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as large:
        if mounted := INSIDE in os.environ:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", folder], check=True)
        print(f"a full disk is {'a tmpfs' if mounted else 'made by seccomp: nothing can be mounted here'}", flush=True)
        try:
            houses = House(Path(folder, "home"), mounted), House(Path(large, "home"), False, MAY_FAIL)
            return _rounds(*houses, count, seed)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def _may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder, suppress(OSError):
        tried = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", folder], capture_output=True)
        return tried.returncode == 0
    return False


def _rounds(troubled: House, damaged: House, count: int, seed: int) -> list[str]:
    """A damaged database loses names of pictures and jobs: its rounds have a home of their own."""
    lot = random.Random(seed)
    acts: dict[str, Callable[[House, random.Random], str]] = {
        "full": _fill, "read-only": _forbid, "damaged": _damage, "clock": _put_clock,
    }  # fmt: skip
    try:
        for k in range(count):
            kind = lot.choice(KINDS)
            house = damaged if kind == "damaged" else troubled
            before = len(house.wrong)
            try:
                result = acts[kind](house, lot)
                house.check(f"round {k + 1}, {kind}")
            except AssertionError as exc:
                log = str(exc)[-2000:]
                house.wrong.append(f"round {k + 1}, {kind}: the server does not come back: {house.answer()} {log}")
                break
            mark = "✗" if len(house.wrong) > before else "✓"
            print(f"{k + 1:3}/{count} {mark} {kind:9} {result}", flush=True)
    finally:
        for house in (troubled, damaged):
            house.stop()
    accepted = len(troubled.accepted) + len(damaged.accepted)
    print(f"\n{count} rounds, seed {seed}: {accepted} jobs were taken, {damaged.lost} of them were lost with a damaged")
    print(f"database. {dict(states(troubled.home))}, damaged: {dict(states(damaged.home))}")
    last = faults(troubled.home) if troubled.accepted else []
    return troubled.wrong + damaged.wrong + [fault for fault in last if not any(map(fault.count, troubled.stuck))]


@dataclass
class House:
    """A home, and the server in it, of which everything that it accepts is remembered."""

    home: Path
    mounted: bool
    may_fail: tuple[str, ...] = ("storage_failed",)
    clock_s: int = 0
    lost: int = 0
    reported: set[str] = field(default_factory=set)
    accepted: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    server: Process | None = None

    def start(self) -> Process:
        """The server; one that is there goes on."""
        if self.server is None:
            self.home.mkdir(exist_ok=True)
            self.disk = FailingDisk(self.home)
            clock = {"PYTHONPATH": str(CLOCK), "CHAOS_CLOCK_S": str(self.clock_s)}
            self.server = Process(self.home, self.disk, **clock)
            self.over = threading.Event()
            self.watch = threading.Thread(target=self._watch, args=(self.server.url, self.over))
            self.server.until_ready(READY_S)
            self.watch.start()
        return self.server

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.server is not None:
            self.over.set()
            if self.watch.ident is not None:  # it has been started
                self.watch.join()
            if self.server.stop(number) is None:
                self.wrong.append("a stop took too long")
            self.server = None

    def _watch(self, url: str, over: threading.Event) -> None:
        """/healthz answers, whatever the disk does."""
        with httpx.Client(timeout=5) as client:
            while not over.wait(LOOK_S):
                try:
                    status = client.get(f"{url}/healthz").status_code
                except httpx.TransportError as exc:
                    self.wrong.append(f"/healthz: {exc!r}")
                    continue
                if status != 200:
                    self.wrong.append(f"/healthz answers {status}")

    def submit(self, lot: random.Random) -> int:
        """Ask for something, without waiting for it. Return the status."""
        url = self.start().url
        if lot.random() < 0.3:
            (photo := people()).putpixel((0, 0), (len(self.accepted), lot.randrange(256), lot.randrange(256)))
            sent = {"image": ("a", encoded(photo, "PNG"))}  # no two are the same: those would have one picture
            answer = httpx.post(f"{url}/enhance", files=sent, headers=ASYNC, timeout=60)
        else:
            asked: dict[str, Any] = {"prompt": f"job {lot.randrange(5)}", "seed": 1, "steps": 4, "backend": "edge"}
            asked["count"] = lot.randint(1, 2)
            answer = httpx.post(f"{url}/generate", json=asked, headers=ASYNC, timeout=60)
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])
        elif answer.status_code != 507 or answer.json()["code"] != "storage_failed":
            self.wrong.append(f"a job was answered {answer.status_code}: {answer.text[:200]}")
        return answer.status_code

    def reasons(self) -> list[str]:
        """Why it is not ready; none: it is."""
        answer = httpx.get(f"{self.start().url}/readyz", timeout=10)
        return [] if answer.status_code == 200 else [reason["code"] for reason in answer.json()["reasons"]] or ["?"]

    def answer(self) -> str:
        """What /readyz says."""
        try:
            return httpx.get(f"{self.server.url}/readyz", timeout=10).text if self.server else ""
        except httpx.TransportError as exc:
            return repr(exc)

    def rows(self) -> dict[str, int]:
        """The jobs that are in the database, and whether they have ended."""
        sql = "SELECT id, state IN ('done', 'failed', 'cancelled') FROM job"
        return dict(query(self.home, sql))

    def unfinished(self) -> list[str]:
        rows = self.rows()
        return [job_id for job_id in self.accepted if not rows.get(job_id, 0)]

    def until_ended(self, where: str) -> float:
        """Wait for all that was accepted, and until it is ready. Return how long that took, in seconds."""
        begun = time.monotonic()
        while (left := self.unfinished()) and time.monotonic() - begun < END_S:
            time.sleep(LOOK_S)
        if left:
            self.wrong.append(f"{where}: {len(left)} jobs do not end")
        while (reasons := self.reasons()) and time.monotonic() - begun < END_S:
            time.sleep(LOOK_S)
        if reasons:
            self.wrong.append(f"{where}: it is not ready again: {reasons}")
        return time.monotonic() - begun

    def check(self, where: str) -> None:
        """All of it has ended as it may, nothing is half done, and the next job is done."""
        status = ask(self.start().url, NEXT)
        if status != 200:
            self.wrong.append(f"{where}: the next job was answered {status}")
        failures = self._failures()
        self.wrong += [f"{where}: a job failed: {body}" for body in failures - self.reported]
        self.reported |= failures
        deadline = time.monotonic() + SAID_S  # a worker goes on for a moment after a job's end
        while (left := self._left_over()) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        self.wrong += [f"{where}: {path} is left" for path in left]

    def _failures(self) -> set[str]:
        """Return what jobs have failed with that no disk explains."""
        sql = 'SELECT body, 0 FROM event WHERE body LIKE \'{"kind": "failed"%\''
        bodies = {body for body, _ in query(self.home, sql)}
        return {body for body in bodies if not any(f'"{code}"' in body for code in self.may_fail)}

    def _left_over(self) -> list[str]:
        """What is half written, but for what could not be deleted: the sweep does that."""
        self.stuck |= {point.path.name for point in self.disk.refused if point.act == "unlink"}
        paths = (path for path in self.home.rglob(HALF_WRITTEN) if path.name not in self.stuck)
        return [str(path.relative_to(self.home)) for path in paths]


def _fill(house: House, lot: random.Random) -> str:
    """Fill the disk to the last page, or nearly, while jobs run; then let it have room again."""
    house.start()
    statuses = [house.submit(lot) for _ in range(lot.randint(1, 3))]
    time.sleep(lot.uniform(0.0, LATEST_S))
    seconds, spare = lot.uniform(0.5, LONGEST_S), lot.choice((0, 0, 8192, 200_000))
    with _full(house, spare) if house.mounted else _refusing(house, 1, seconds, errno.ENOSPC):
        said = _look(house, lot, seconds, statuses)
        pending = bool(house.unfinished())
    says_so = "storage_failed" in said if house.mounted else said or not pending or seconds < SAID_S
    if not says_so:
        house.wrong.append(f"/readyz did not say that the disk is full, but {sorted(said)}")
    took = house.until_ended("after a full disk")
    return f"{seconds:.1f} s, {spare} bytes free: {_counted(statuses)}, said {_words(said)}, well after {took:.1f} s"


def _forbid(house: House, lot: random.Random) -> str:
    """Let nothing be written from some write of a job on, for a while."""
    house.start()
    first, seconds = lot.randint(1, LATEST_WRITE), lot.uniform(0.2, LONGEST_S)
    with _refusing(house, first, seconds, errno.EROFS):
        statuses = [house.submit(lot) for _ in range(lot.randint(1, 3))]
        deadline = time.monotonic() + END_S
        while not house.disk.refused and house.unfinished() and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        said = _look(house, lot, seconds, statuses)
        refused = len(house.disk.refused)
        silent = not said and refused and house.unfinished() and seconds > SAID_S
    if silent:
        house.wrong.append(f"/readyz did not say in {seconds:.1f} s that nothing can be written")
    took = house.until_ended("after a read-only disk")
    where = f"from write {first} on, {refused} refused"
    return f"{seconds:.1f} s {where}: {_counted(statuses)}, said {_words(said)}, well after {took:.1f} s"


def _look(house: House, lot: random.Random, seconds: float, statuses: list[int]) -> set[str]:
    """Ask for one thing more while it lasts. Return what /readyz said."""
    said, deadline = set[str](), time.monotonic() + seconds
    statuses.append(house.submit(lot))
    while time.monotonic() < deadline:
        said |= set(house.reasons())
        time.sleep(LOOK_S)
    return said


@contextmanager
def _full(house: House, spare: int) -> Iterator[None]:
    filler = house.home.parent / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # no space is left
        while (free := _free(house.home) - spare) > 0:
            os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, min(free, 1 << 24))
    try:
        yield
    finally:
        filler.unlink()


def _free(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


@contextmanager
def _refusing(house: House, first: int, seconds: float, why: int) -> Iterator[None]:
    house.disk.watch(first, seconds, why)
    yield
    house.disk.first = 0  # what has not come by now does not come later; what was refused is still to be looked at


def _put_clock(house: House, lot: random.Random) -> str:
    """Stop it in order with jobs that wait, and start it a day before or after."""
    house.start()
    statuses = [house.submit(lot) for _ in range(lot.randint(1, 3))]
    time.sleep(lot.uniform(0.0, LATEST_S))
    house.stop()
    waiting = len(house.unfinished())
    before, house.clock_s = house.clock_s, lot.choice([s for s in (-DAY_S, 0, DAY_S) if s != house.clock_s])
    house.start()
    statuses.append(house.submit(lot))
    took = house.until_ended("after another time")
    newest = query(house.home, "SELECT id, 0 FROM job WHERE state='done' ORDER BY ended DESC, number DESC LIMIT 1")
    last = query(house.home, "SELECT id, 0 FROM job WHERE state='done' ORDER BY number DESC LIMIT 1")
    if newest != last:
        house.wrong.append("the history is in another order than that of the jobs")
    days = f"{(house.clock_s - before) // DAY_S:+d} days"
    return f"{days}, {waiting} waited: {_counted(statuses)}, well after {took:.1f} s"


def _damage(house: House, lot: random.Random) -> str:
    """Stop it, or kill it, in the middle of jobs, spoil its database, and start it."""
    house.start()
    statuses = [house.submit(lot) for _ in range(lot.randint(1, 3))]
    time.sleep(lot.uniform(0.0, LATEST_S))
    number = lot.choice((signal.SIGTERM, signal.SIGKILL))
    house.stop(number)
    pictures = pictures_of(house.home)
    what = _spoil(house.home / "state" / "jobs.db", lot)
    house.start()
    rows = house.rows()
    lost = [job_id for job_id in house.accepted if job_id not in rows]
    house.lost += len(lost)
    house.accepted = [job_id for job_id in house.accepted if job_id in rows]
    took = house.until_ended("after damage")
    gone = {name: job for name, job in pictures.items() if not (house.home / "outputs" / name).is_file()}
    again = set(pictures_of(house.home).values())  # what a database has forgotten is done once more
    if never := {name for name, job in gone.items() if job not in again}:
        house.wrong.append(f"{what}: {len(never)} pictures are gone, and their jobs with them")
    return (
        f"{number.name}, {what}: {_counted(statuses)}, {len(lost)} lost, {len(gone)} pictures drawn again, "
        f"well after {took:.1f} s"
    )


def _spoil(path: Path, lot: random.Random) -> str:
    files = [file for file in (path, path.with_name("jobs.db-wal")) if file.exists() and file.stat().st_size]
    file = lot.choice(files)
    size = file.stat().st_size
    how = lot.choice(("flip", "blank", "truncate"))
    with closing(file.open("r+b", buffering=0)) as data:
        if how == "truncate":
            data.truncate(at := lot.randrange(size))
            return f"{file.name} cut at {at} of {size}"
        for _ in range(places := lot.choice((1, 3, 20))):
            length = 1 if how == "flip" else 1024
            data.seek(at := lot.randrange(size))
            bytes_ = data.read(length)
            data.seek(at)
            data.write(bytes(b ^ (1 << lot.randrange(8)) for b in bytes_) if how == "flip" else bytes(len(bytes_)))
    return f"{file.name} {how} x {places} of {size}"


def _counted(statuses: list[int]) -> str:
    return f"{statuses.count(202)} taken, {len(statuses) - statuses.count(202)} refused"


def _words(said: set[str]) -> str:
    return ", ".join(sorted(said)) or "nothing"
