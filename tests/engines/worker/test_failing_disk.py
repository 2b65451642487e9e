"""A disk that refuses a write, whichever it is: the job ends in order, nothing stays half done, the next is done."""

from __future__ import annotations

import errno
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.files import HALF_WRITTEN
from tests.conftest import REPOSITORY
from tests.support.failing_disk import FailingDisk, can_fail

SETTLE_S = 1.0
KINDS = {"draw": 90, "sketch": 100, "restore": 40}  # of jobs; how many writes of one may fail, at least
EVENTS = "SELECT body FROM event WHERE job=(SELECT id FROM job ORDER BY number DESC LIMIT 1)"
WHILE_S = 0.05  # several times as long as a worker here waits until it tries again

pytestmark = pytest.mark.skipif(bool(can_fail()), reason=can_fail())


@dataclass
class Rented:
    """A studio in another process, on a disk of ours."""

    home: Path
    disk: FailingDisk
    process: subprocess.Popen[str]

    def ask(self, words: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None  # they were asked for
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def settle(self) -> list[Path]:
        """Wait until nothing is being written: a worker goes on for a moment after a job's end. Return what remains."""
        deadline = time.monotonic() + SETTLE_S
        while (left := list(self.home.rglob(HALF_WRITTEN))) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def take_pictures(self) -> list[str]:
        """Look at every picture, and clear the table. Return the names of those that the latest job does not name."""
        with closing(sqlite3.connect(self.home / "state" / "jobs.db")) as db:
            events = "".join(body for (body,) in db.execute(EVENTS))
        pictures = list((self.home / "outputs").glob("outputs_*"))
        for path in pictures:
            if path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
            path.unlink()
        return [path.name for path in pictures if f'"{path.name.partition(".")[0]}.' not in events]


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[Rented]:
    disk = FailingDisk(tmp_path)
    process = subprocess.Popen(
        [*disk.command, "tests.support.small_studio", str(tmp_path)],
        cwd=REPOSITORY,
        pass_fds=disk.descriptors,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    disk.serve()
    with process:
        yield Rented(tmp_path, disk, process)
        process.kill()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("why", "seconds", "every"),
    [(errno.ENOSPC, 0.0, 1), (errno.ENOSPC, WHILE_S, 7), (errno.EROFS, WHILE_S, 7), (errno.EIO, 0.0, 7)],
    ids=["full for a moment", "full for a while", "read-only for a while", "one write broken"],
)
def test_whichever_write_fails_the_job_ends_and_the_next_one_is_done(
    rented: Rented, kind: str, why: int, seconds: float, every: int
) -> None:
    rented.ask(f"{kind} first")
    time.sleep(SETTLE_S)  # what a worker remembers of it is written after its end
    rented.take_pictures()
    at, ends = 1, []
    while True:
        rented.disk.watch(at, seconds, why)
        answer = rented.ask(f"{kind} {at}a")
        if not rented.disk.refused:  # there are not so many
            break
        where = f"write {at} of {kind}: {rented.disk.refused[0]}"
        ends.append(answer.get("code", "final"))
        time.sleep(seconds)
        stuck = {point.path.name for point in rented.disk.refused if point.act == "unlink"}  # could not be deleted
        rented.disk.watch()
        assert ends[-1] in ("final", "storage_failed"), where
        for path in rented.settle():
            assert path.name in stuck, f"{path} after {where}"
            path.unlink()  # as the hourly sweep does
        assert set(rented.take_pictures()) <= stuck, f"after {where}"
        assert rented.ask(f"{kind} {at}b")["kind"] == "final", f"after {where}"
        assert rented.take_pictures() == [], f"of the one after {where}"
        at += every
    assert at > KINDS[kind] and {"final", "storage_failed"} == set(ends), "most write points cost nothing"
