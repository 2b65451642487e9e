"""Puts the doors together: the guard around everything, REST first, the page for the rest."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

import presets
from engines.jobs import JobQueue
from engines.jobs.dispatch import Dispatcher
from engines.settings import Settings
from webui import albums, api, app_shell, connections, frame, gradio_patches, page, trust
from webui.api import gradio_api, workers
from webui.compression import Compression
from webui.gradio_patches import frontend
from webui.gradio_patches.handshake import Handshake
from webui.guard import Guard
from webui.own_jobs import HouseJobs
from webui.people import routes
from webui.people.admission import Admission, People

if TYPE_CHECKING:
    from webui.api.mcp import Door

LEAVE_S = 5.0  # for a client that is hung up on, by TLS
UPLOAD_OVERHEAD_BYTES = 100_000  # what multipart adds to a file


class Server(uvicorn.Server):
    """
    Says that it is `stopping` before it closes the doors: clients wait for what runs behind, and are to be told. Calls
    `opened` with its event loop as soon as the doors are open.
    """

    def __init__(
        self, config: uvicorn.Config, stopping: threading.Event, opened: Callable[[asyncio.AbstractEventLoop], object]
    ) -> None:
        super().__init__(config)
        self.stopping, self.opened = stopping, opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self.servers += [await self._listen(door) for door in sockets or ()]
        self.opened(asyncio.get_running_loop())

    async def _listen(self, door: socket.socket) -> asyncio.Server:
        """As uvicorn, which gives a client 60 s to agree on keys, and 30 s to take leave."""

        def protocol() -> connections.DeadlineProtocol:
            return connections.DeadlineProtocol(self.config, self.server_state, self.lifespan.state)

        return await asyncio.get_running_loop().create_server(
            protocol,
            sock=door,
            ssl=self.config.ssl,
            ssl_handshake_timeout=connections.HEAD_S,
            ssl_shutdown_timeout=LEAVE_S,
            backlog=self.config.backlog,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stopping.set()
        await super().shutdown(sockets)


def build(
    queue: JobQueue, settings: Settings, host_names: tuple[str, ...], dispatcher: Dispatcher | None = None
) -> ASGIApp:
    """`dispatcher`: for machines that work for this house; None: none may."""
    people = People.of(settings)
    jobs = HouseJobs(queue, people.keys)
    folders = albums.folders_of(settings.album_folders, people.keys.secret, settings.upload_mb * 1_000_000)
    blocks = page.build(jobs, settings, folders, partial(gradio_api.add, jobs, settings))
    blocks.queue(max_size=None, default_concurrency_limit=8)
    mcp = _mcp(jobs, settings)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=mcp.serving if mcp else None)
    app.add_middleware(CORSMiddleware, allow_origins=[])  # makes Gradio leave out its own, which lets anybody in
    app.add_middleware(Handshake)
    app.add_middleware(Compression)
    api.install_errors(app)
    app.include_router(api.router(jobs, settings, dispatcher))
    door = routes.router(people)
    app_shell.add(door)
    trust.add(door, settings)
    albums.add(door, folders, settings)
    frame.add(door, jobs, settings, folders, people.begin_visit)
    api.end_here(door, (*routes.PATHS, *app_shell.PATHS, *trust.PATHS, *albums.PATHS, *frame.PATHS))
    frontend.add(door)
    app.include_router(door)
    if mcp:
        app.router.routes.append(mcp.route)
    app.mount("/thumbnails", StaticFiles(directory=Path(presets.FOLDER) / "thumbnails"))
    gradio_patches.install(blocks)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=settings.path or None,
        show_error=False,
        allowed_paths=[],
        blocked_paths=[str(folder) for folder in (settings.models, settings.state, settings.uploads, settings.presets)],
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        app_kwargs={"openapi_url": None, "docs_url": None, "redoc_url": None},
        **page.looks(),
    )
    # Gradio is given no limit of its own: it would refuse, in the browser, photos that are about to be made smaller.
    limit = settings.upload_mb * 1_000_000 + UPLOAD_OVERHEAD_BYTES
    paths = (
        *api.PATHS,
        *workers.PATHS,
        *routes.PATHS,
        *app_shell.PATHS,
        *trust.PATHS,
        *albums.PATHS,
        *frame.PATHS,
        "/thumbnails/",
        *([mcp.route.path] if mcp else []),
    )
    guard = Guard(Admission(app, people), host_names, paths, limit)
    return connections.Subpath(guard, settings.path) if settings.path else guard


def _mcp(jobs: HouseJobs, settings: Settings) -> Door | None:
    """Return the door for assistants, if there shall be one: whoever has none need not have its package."""
    if not settings.mcp:
        return None
    from webui.api.mcp import Door

    return Door(jobs, settings)
