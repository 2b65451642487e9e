"""
The doors for programs, one file a dialect. Each submits to the queue and waits, or hands out an address; errors leave
as JSON with a code and a sentence, never a trace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from engines.jobs import JobQueue
from engines.settings import Settings
from webui.api import a1111, docs, errors, health, jobs, metrics, openai, studio
from webui.api.studio import MEDIA, PICTURE_NAME

__all__ = ["MEDIA", "PATHS", "PICTURE_NAME", "install_errors", "router"]

PATHS = (  # what Guard lets through
    "/healthz", "/readyz", "/metrics", "/generate", "/enhance", "/outputs/", "/batch.zip", "/favicon.ico", "/jobs/",
    "/v1/", "/sdapi/v1/", "/openapi.json", "/docs",
)  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def router(queue: JobQueue, settings: Settings) -> APIRouter:
    routes, checkpoints = APIRouter(), a1111.Checkpoints()
    studio.add_jobs(routes, queue, settings)
    studio.add_files(routes, queue)
    jobs.add(routes, queue)
    health.add(routes, queue, settings.outputs)
    metrics.add(routes, queue)
    openai.add(routes, queue, settings)
    a1111.add_pictures(routes, queue, settings, checkpoints)
    a1111.add_options(routes, queue, checkpoints)
    docs.add(routes)
    _end_here(routes)
    return routes


def install_errors(app: FastAPI) -> None:
    """Every error leaves as its dialect writes it; the house's own is {"status": "error", "code", "message"}."""
    errors.install(app, {"/v1/": openai.error_form, "/sdapi/": a1111.error_form})


def _end_here(routes: APIRouter) -> None:
    """Whatever else is asked of these addresses: Gradio, mounted at the root, would answer in its own way."""
    served: dict[str, set[str]] = {}
    for route in routes.routes:
        if isinstance(route, APIRoute):
            served.setdefault(route.path, set()).update(route.methods or ())
    for path, methods in served.items():
        _refuse(routes, path, _raise(405, ", ".join(sorted(methods))))
    for path in PATHS:
        if path.endswith("/"):
            _refuse(routes, path + "{rest:path}", _raise(404))


def _refuse(routes: APIRouter, path: str, refuse: Callable[[], Awaitable[Response]]) -> None:
    routes.add_api_route(path, refuse, methods=METHODS, include_in_schema=False)


def _raise(status: int, allow: str = "") -> Callable[[], Awaitable[Response]]:
    async def refuse() -> Response:
        raise HTTPException(status, headers={"Allow": allow} if allow else None)

    return refuse
