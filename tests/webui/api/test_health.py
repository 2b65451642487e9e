"""Whether the program lives, and whether it can work: two addresses, whose answers differ exactly where they should."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from engines.errors import DatabaseDamaged
from engines.messages import CREDIT
from engines.messages.status import Status
from tests.support.http import CJK
from webui.api import health

if TYPE_CHECKING:
    from tests.support.server import Rig


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def worker(rig: Rig) -> Iterator[Rig]:
    """Doors whose worker may announce anything; in the end it is as it was."""
    before = rig.queue.status()
    yield rig
    rig.queue.announce(before)


def test_health_says_what_it_works_with(rig: Rig) -> None:
    answer = rig.client.get("/healthz")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert set(body) == {"status", "credit", "engines", "bundles"}
    assert (body["status"], body["credit"]) == ("ready", CREDIT)
    assert body["engines"]["ort"].startswith("CPU, ")
    assert set(body["bundles"]) == {"portrait", "restorer", "detector", "sketch"}
    assert body["bundles"]["portrait"].startswith("ort on CPU")
    assert rig.client.get("/readyz").json() == {**body, "reasons": []}


@pytest.mark.parametrize(
    ("state", "detail", "reasons"),
    [("loading", "", ["worker_loading"]), ("failed", "no model", ["worker_failed"]), ("ready", "", [])],
)
def test_it_lives_whatever_the_worker_does_and_is_ready_when_that_is(
    worker: Rig, state: Any, detail: str, reasons: list[str]
) -> None:
    worker.queue.announce(replace(worker.queue.status(), state=state, detail=detail))
    alive, ready = worker.client.get("/healthz"), worker.client.get("/readyz")
    assert alive.status_code == 200
    assert ready.status_code == (503 if reasons else 200)
    assert [reason["code"] for reason in ready.json()["reasons"]] == reasons
    for body in (alive.json(), ready.json()):
        assert (body["status"], body.get("detail", "")) == (state, detail)


def test_a_rest_is_told_and_is_no_fault(worker: Rig) -> None:
    """What is ordered now is worked off when it is over."""
    worker.queue.announce(replace(worker.queue.status(), resting="too hot", temperature_c=85.5))
    for address in ("/healthz", "/readyz"):
        answer = worker.client.get(address)
        assert answer.status_code == 200
        assert (answer.json()["resting"], answer.json()["temperature_c"]) == ("too hot", 85.5)
    assert worker.client.get("/readyz").json()["reasons"] == []


def test_a_worker_that_has_said_nothing_yet_is_no_fault_of_these_answers(worker: Rig) -> None:
    worker.queue.announce(Status("loading"))
    nothing = {"status": "loading", "credit": CREDIT, "engines": {}, "bundles": {}}
    assert worker.client.get("/healthz").json() == nothing


def test_the_reason_is_said_in_the_callers_language_and_names_the_cause(worker: Rig) -> None:
    worker.queue.announce(replace(worker.queue.status(), state="failed", detail="portrait: wrong checksum"))
    for language, chinese in (("en", False), ("zh", True)):
        (reason,) = worker.client.get("/readyz", headers={"accept-language": language}).json()["reasons"]
        assert bool(CJK.search(reason["message"])) is chinese
        assert ("wrong checksum" in reason["message"]) or chinese


def disk_reason(rig: Rig) -> str:
    answer = rig.client.get("/readyz", headers={"accept-language": "en"})
    assert answer.status_code == 503
    assert rig.client.get("/healthz").status_code == 200, "who restarts it makes no room on the disk"
    (reason,) = answer.json()["reasons"]
    assert reason["code"] == "storage_failed"
    return str(reason["message"])


def test_a_disk_that_is_nearly_full_is_a_reason(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    free = health.ENOUGH_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - free, free))
    assert rig.client.get("/readyz").status_code == 200
    free -= 1
    assert os.strerror(errno.ENOSPC) in disk_reason(rig)


def test_a_folder_that_takes_nothing_is_a_reason(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert os.strerror(errno.EACCES) in disk_reason(rig)


def test_a_folder_that_has_gone_is_a_reason(rig: Rig) -> None:
    away = rig.settings.outputs.with_name("away")
    rig.settings.outputs.rename(away)
    try:
        assert os.strerror(errno.ENOENT) in disk_reason(rig)
    finally:
        away.rename(rig.settings.outputs)


def test_a_damaged_database_is_a_reason_and_says_what_to_do(idle: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> bool:
        raise DatabaseDamaged("the queue cannot be read: malformed", why="malformed")

    monkeypatch.setattr(idle.queue, "is_paused", damaged)
    answer = idle.client.get("/readyz", headers={"accept-language": "en"})
    reasons = {reason["code"]: reason["message"] for reason in answer.json()["reasons"]}
    assert answer.status_code == 503 and "Restart the program" in reasons["database_damaged"]


def test_being_alive_needs_no_disk(idle: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise AssertionError("the disk was asked")

    for name in ("_rows", "_transaction"):
        monkeypatch.setattr(idle.queue, name, broken)
    monkeypatch.setattr(shutil, "disk_usage", broken)
    assert idle.client.get("/healthz").status_code == 200
