"""Is the program ready? With which engines and models, and why these."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from engines.jobs import JobQueue
from engines.messages import CREDIT
from engines.messages.status import Status, WorkerState


class Health(TypedDict, total=False):
    status: WorkerState
    credit: str
    detail: str
    engines: dict[str, str]
    bundles: dict[str, str]


def add(routes: APIRouter, queue: JobQueue) -> None:
    @routes.get("/healthz")
    def healthz() -> JSONResponse:
        status = queue.status()
        return JSONResponse(_health(status), 200 if status.state == "ready" else 503)


def _health(status: Status) -> Health:
    body: Health = {"status": status.state, "credit": CREDIT}
    if status.detail:
        body["detail"] = status.detail
    body["engines"] = {e.name: f"{e.device}, {e.reason}" if e.ok else f"— {e.reason}" for e in status.engines}
    body["bundles"] = {b.name: b.reason for b in status.bundles}
    return body
