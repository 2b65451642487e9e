"""What is written down of a process that ended in the middle of a job, and what never is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Build, Develop, Enhance, Generate, Inspect, Progress, Request
from engines.worker import crashes
from tests.support.full_disk import full_disk

SECRET = "my wife on the beach"
WHY = "it crashed (SIGSEGV)"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "crashes.jsonl"


def begin(queue: SqliteQueue, request: Request, *events: Progress) -> str:
    job_id = queue.submit(request)
    job = queue.claim() or queue.claim(lane="builds")
    assert job is not None and job.id == job_id
    for event in events:
        queue.publish(job, event)
    return job_id


def test_it_says_what_ran_and_how_far_it_was(queue: SqliteQueue, path: Path) -> None:
    request = Generate(SECRET, negative=SECRET, start=f"/{SECRET}.jpg", bundle="mine", backend="edge")
    job_id = begin(queue, request, Progress("load", 0, 1), Progress("denoise", 3, 8, 1.0))
    crashes.record(path, queue, WHY)
    (line,) = path.read_text(encoding="utf-8").splitlines()
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said.pop("when"))
    assert {"program", "python"} <= set(said.pop("versions"))
    assert said.pop("platform") and isinstance(said.pop("processor"), list)
    assert said == {
        "cause": WHY, "job": job_id[:8], "kind": "generate", "attempt": 1, "stage": "denoise", "step": 3, "total": 8,
        "bundle": "mine", "backend": "edge",
    }  # fmt: skip
    assert SECRET not in line


@pytest.mark.parametrize(
    ("request_", "kind", "bundle", "backend"),
    [
        (Enhance(f"/{SECRET}.jpg", name=SECRET), "enhance", "restorer", "auto"),
        (Develop(f"{SECRET}.png", backend="ort"), "develop", "", "ort"),
        (Inspect(f"/{SECRET}.jpg"), "inspect", "", ""),
        (Build("portrait", SECRET, "edge-bf16", "mine"), "build", "", ""),
        (Generate("p", bundle=SECRET, backend=SECRET), "generate", "?", "?"),
    ],
)
def test_it_holds_nothing_of_the_person(
    queue: SqliteQueue, path: Path, request_: Request, kind: str, bundle: str, backend: str
) -> None:
    begin(queue, request_)
    crashes.record(path, queue, WHY)
    said = json.loads(path.read_text(encoding="utf-8"))
    assert (said["kind"], said["bundle"], said["backend"]) == (kind, bundle, backend)
    assert SECRET not in path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/\w", path.read_text(encoding="utf-8")), "a path"


def test_nothing_is_written_where_nothing_ran(queue: SqliteQueue, path: Path) -> None:
    queue.submit(Generate("p"))
    crashes.record(path, queue, WHY)
    assert not path.exists()


def test_the_oldest_go(queue: SqliteQueue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "MOST", 3)
    begin(queue, Generate("p"))
    path.parent.mkdir()
    path.write_bytes(b"\xff half a line")
    for k in range(5):
        crashes.record(path, queue, f"cause {k}")
    said = [json.loads(line)["cause"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert said == ["cause 2", "cause 3", "cause 4"]


def test_a_full_disk_disturbs_nobody(queue: SqliteQueue, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin(queue, Generate("p"))
    crashes.record(path, queue, "the first")
    with full_disk():
        crashes.record(path, queue, "the second")
    assert "the crash is not written down" in caplog.text
    assert [path.name for path in path.parent.iterdir()] == ["crashes.jsonl"]
    assert json.loads(path.read_text(encoding="utf-8"))["cause"] == "the first"
