"""Puts the doors together: the guard around everything, REST first, the page for the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import gradio as gr
from anyio import to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from gradio import processing_utils, route_utils
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp

import presets
from engines.jobs import JobQueue
from engines.settings import Settings
from webui import api, page
from webui.gradio_patches import Handshake
from webui.guard import Guard

UPLOAD_OVERHEAD_BYTES = 100_000  # what multipart adds to a file
FIELD_BYTES = 10_000


class Parser(route_utils.GradioMultiPartParser):  # type: ignore[misc]
    """Gradio limits files, but holds a text field of any length in memory."""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        super().on_part_data(data, start, end)
        if self._current_part.file is None and len(self._current_part.data) > FIELD_BYTES:
            raise MultiPartException("a field is too long")


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    """Gradio fetches any address that a client sends where a file could be, whatever the input is."""
    raise ValueError("addresses are not fetched")


@asynccontextmanager
async def _more_threads(count: int, app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens += count
    yield


def followers(blocks: gr.Blocks) -> int:
    """How many pages may follow jobs at one time. Each holds a thread, which nobody else must miss."""
    return sum(int(fn.concurrency_limit) for fn in blocks.fns.values() if fn.types_generator)


def build(queue: JobQueue, settings: Settings, host_names: tuple[str, ...]) -> ASGIApp:
    blocks = page.build(queue, settings)
    blocks.queue(max_size=64, default_concurrency_limit=8)
    more_threads = partial(_more_threads, followers(blocks))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=more_threads)
    app.add_middleware(CORSMiddleware, allow_origins=[])  # makes Gradio leave out its own, which lets anybody in
    app.add_middleware(Handshake)
    api.install_errors(app)
    app.include_router(api.router(queue, settings))
    app.mount("/thumbnails", StaticFiles(directory=Path(presets.FOLDER) / "thumbnails"))
    processing_utils.async_ssrf_protected_download = _fetch_nothing
    route_utils.GradioMultiPartParser = Parser
    blocks.has_launched = True  # arms Gradio's check of file paths, which mounting alone leaves off
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        show_error=False,
        allowed_paths=[],
        blocked_paths=[str(folder) for folder in (settings.models, settings.state, settings.uploads)],
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
    return Guard(app, host_names, (*api.PATHS, "/thumbnails/"), limit)
