"""
The doors for programs, one file a dialect. Each submits to the queue and waits, or hands out an address; errors leave
as JSON with a code and a sentence, never a trace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from engines.jobs.dispatch import Dispatcher
from engines.settings import Settings
from webui.api import a1111, docs, errors, health, jobs, metrics, openai, presets, studio, workers
from webui.api.studio import MEDIA, PICTURE_NAME
from webui.own_jobs import HouseJobs

__all__ = ["MEDIA", "PATHS", "PICTURE_NAME", "end_here", "install_errors", "router"]

PATHS = (  # what Guard lets through
    "/healthz", "/readyz", "/metrics", "/generate", "/enhance", "/outputs/", "/batch.zip", "/jobs",
    "/jobs/", "/own-presets/", "/queue/pause", "/queue/resume", "/v1/", "/sdapi/v1/", "/openapi.json", "/docs",
)  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def router(house: HouseJobs, settings: Settings, dispatcher: Dispatcher | None = None) -> APIRouter:
    """`dispatcher`: for machines that work for this house; None: none may."""
    routes, checkpoints = APIRouter(), a1111.Checkpoints()
    studio.add_jobs(routes, house, settings)
    studio.add_files(routes, house, settings)
    jobs.add(routes, house)
    jobs.add_queue(routes, house)
    presets.add(routes, settings)
    health.add(routes, house.queue, settings.outputs)
    metrics.add(routes, house.queue, settings)
    openai.add(routes, house, settings)
    a1111.add_pictures(routes, house, settings, checkpoints)
    a1111.add_options(routes, house, checkpoints)
    docs.add(routes)
    if dispatcher is not None:
        workers.add(routes, dispatcher)
    end_here(routes, (*PATHS, *workers.PATHS))
    return routes


def install_errors(app: FastAPI) -> None:
    """Every error leaves as its dialect writes it; the house's own is {"status": "error", "code", "message"}."""
    errors.install(app, {"/v1/": openai.error_form, "/sdapi/": a1111.error_form})


def end_here(routes: APIRouter, paths: Sequence[str]) -> None:
    """Refuse whatever else is asked of these addresses: Gradio, mounted at the root, would answer in its own way."""
    served: dict[str, set[str]] = {}
    for route in routes.routes:
        if isinstance(route, APIRoute):
            served.setdefault(route.path, set()).update(route.methods or ())
    for path, methods in served.items():
        _refuse(routes, path, _raise(405, ", ".join(sorted(methods))))
    for path in paths:
        if path.endswith("/"):
            _refuse(routes, path + "{rest:path}", _raise(404))


def _refuse(routes: APIRouter, path: str, refuse: Callable[[], Awaitable[Response]]) -> None:
    routes.add_api_route(path, refuse, methods=METHODS, include_in_schema=False)


def _raise(status: int, allow: str = "") -> Callable[[], Awaitable[Response]]:
    async def refuse() -> Response:
        raise HTTPException(status, headers={"Allow": allow} if allow else None)

    return refuse
