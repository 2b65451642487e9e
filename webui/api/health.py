"""
Is the program alive, and can it work? Two questions: who restarts what hangs asks the first, who sends work asks the
second. Both answers name the engines and the models, with why they were chosen.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from engines.errors import Fact, StorageError
from engines.jobs import JobQueue
from engines.messages import CREDIT
from engines.messages.status import Status, WorkerState
from webui.api.errors import sentence
from webui.i18n import preferred

# The largest order, eight pictures of 2048 x 2048, is 100 MB where PNG finds nothing to compress. As much again is for
# its previews, the photo it begins with, and the queue's database.
ENOUGH_BYTES = 200_000_000


class Health(TypedDict, total=False):
    status: WorkerState
    credit: str
    detail: str
    resting: str
    temperature_c: float
    paused: bool
    engines: dict[str, str]
    bundles: dict[str, str]
    workers: dict[str, WorkerState]
    hurdle: str


class Reason(TypedDict):
    code: str
    message: str


class Readiness(Health):
    reasons: list[Reason]


def add(routes: APIRouter, queue: JobQueue, outputs: Path) -> None:
    """`outputs`: the folder that pictures must fit into."""

    @routes.get("/healthz", responses={200: {"model": Health}})
    async def healthz() -> JSONResponse:
        """Always 200 while the process answers. Looks at memory only: a slow disk kills nobody."""
        return JSONResponse(_health(queue))

    @routes.get("/readyz", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
    def readyz(request: Request) -> JSONResponse:
        """200: an order would be worked off. 503: `reasons` say why not."""
        status, language = queue.status(), preferred(request.headers)
        paused, faults = False, [*_worker_faults(status), *_disk_faults(outputs)]
        try:
            paused = queue.is_paused()
        except StorageError as exc:
            faults.append((exc.code, exc.facts))
        reasons: list[Reason] = [{"code": code, "message": sentence(language, code, facts)} for code, facts in faults]
        body: Readiness = {**_health(queue), "reasons": reasons}
        if paused:  # no fault: the owner wants it so
            body["paused"] = True
        return JSONResponse(body, 503 if reasons else 200)


def _health(queue: JobQueue) -> Health:
    status = queue.status()
    body: Health = {"status": status.state, "credit": CREDIT}
    if status.detail:
        body["detail"] = status.detail
    if status.resting:  # no fault: what is ordered now is worked off when it is over
        body["resting"] = status.resting
    if status.temperature_c is not None:
        body["temperature_c"] = status.temperature_c
    body["engines"] = {e.name: f"{e.device}, {e.reason}" if e.ok else f"— {e.reason}" for e in status.engines}
    body["bundles"] = {b.name: b.reason for b in status.bundles}
    if workers := queue.workers():
        body["workers"] = {name: worker.state for name, worker in workers.items()}
    if status.hurdle:  # no fault: home does what it can
        body["hurdle"] = status.hurdle
    return body


Fault = tuple[str, dict[str, Fact]]  # a code of the locales, and the facts of its sentence


def _worker_faults(status: Status) -> Iterator[Fault]:
    if status.state == "failed":
        yield "worker_failed", {"why": status.detail or "?"}
    elif status.state != "ready":
        yield "worker_loading", {}


def _disk_faults(folder: Path) -> Iterator[Fault]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        yield StorageError.code, {"why": exc.strerror or "?"}
        return
    if not os.access(folder, os.W_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        yield StorageError.code, {"why": os.strerror(errno.EROFS if read_only else errno.EACCES)}
    elif free < ENOUGH_BYTES:
        yield StorageError.code, {"why": os.strerror(errno.ENOSPC)}
