"""What these doors take and answer, as OpenAPI, and a page that shows it. Nothing of it comes from elsewhere."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, JSONResponse

from engines.messages import CREDIT
from webui import addresses
from webui.api.schemas import Schema, shared
from webui.asset_files import FOLDER as ASSETS

VERSION = "1"  # of these doors: a field may be added, none is changed or taken away


def add(routes: APIRouter) -> None:
    @cache
    def description(root: str) -> Schema:
        """Describe the routes of this router, which Gradio's are not among."""
        title = "AWPortrait Edge · 人像工作室"
        spec: Schema = get_openapi(title=title, version=VERSION, description=CREDIT, routes=routes.routes)
        spec["components"]["schemas"].update(shared())
        return {**spec, "servers": [{"url": root}]} if root else spec

    @routes.get("/openapi.json", include_in_schema=False)
    def openapi(request: Request) -> JSONResponse:
        return JSONResponse(description(addresses.root(request.scope)))

    @routes.get("/docs", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(ASSETS / "api.html")
