"""
MCP, the Model Context Protocol, for assistants: four tools over streamable HTTP, each request by itself, for programs
with a token. Imported where STUDIO_MCP is on: the package is optional, and takes most of a second.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from anyio import CapacityLimiter, to_thread
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    TextContent,
    Tool,
)
from PIL import Image
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engines.errors import OptionError, StudioError, TokenNeeded
from engines.messages import Enhance, Final, Generate, parse
from engines.settings import Settings
from webui.api import choices
from webui.api.bodies import Values, keep_base64
from webui.api.errors import JobFailed, sentence
from webui.api.outcome import attended
from webui.api.schemas import POINTS, Schema, schema
from webui.i18n import preferred
from webui.own_jobs import HouseJobs, OwnJobs
from webui.people import person_of
from webui.pictures import address

PATH = "/mcp"
NAME = "awportrait-edge"
PREVIEW_PX = 1024  # the longer side of what is shown; the whole picture is at its address
PREVIEW_QUALITY = 85
AT_ONCE = 1  # pictures that are made smaller: a restored photo of 50 megapixels takes 150 MB meanwhile
LISTED = 20  # pictures
# The only arguments there are. Generate.start is a path on this machine, which nobody names.
DRAW = ("prompt", "negative", "width", "height", "steps", "guidance", "seed", "variety", "count", "bundle", "backend")
RESTORE = (
    "image", "auto", "strength", "mode", "more_detail", "denoise", "sharpen", "contrast", "brightness", "fading",
    "scratches", "protect_skin", "only_center_face", "faces", "whole_picture", "min_face_px", "format", "quality",
    "keep_date", "turn", "bundle", "backend",
)  # fmt: skip
BASE64: Schema = {"type": "string", "contentEncoding": "base64", "description": "the photo's file, in base64"}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": LISTED, "default": 5}
Content: TypeAlias = TextContent | ImageContent
Do = Callable[[OwnJobs, Values, Request], Awaitable[Sequence[Content]]]


@dataclass(frozen=True)
class _Tool:
    about: str
    takes: Schema
    do: Do


def _fields(kind: type[Any], names: Sequence[str], **more: Schema) -> Schema:
    """Return those fields of a request as JSON Schema, and no others."""
    described = schema(kind, **more)
    return {
        "type": "object",
        "properties": {name: described["properties"][name] for name in names},
        "required": described["required"],
        "additionalProperties": False,
    }


class Door:
    """The door as ASGI, with its tools. `serving` has to go on around it."""

    def __init__(self, house: HouseJobs, settings: Settings) -> None:
        self.house, self.settings = house, settings
        self.turn = CapacityLimiter(AT_ONCE)
        nothing: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
        listed: Schema = {**nothing, "properties": {"limit": LIMIT}}
        restored = _fields(Enhance, RESTORE, image=BASE64, faces=POINTS)
        self.tools = {
            "draw": _Tool("Draw portraits from words, in Chinese or English.", _fields(Generate, DRAW), self._draw),
            "restore": _Tool("Restore the faces in a photo.", restored, self._restore),
            "status": _Tool("How the studio is, and which models it has.", nothing, self._status),
            "pictures": _Tool("Your latest pictures, newest first.", listed, self._pictures),
        }
        server = Server[Any](NAME, on_list_tools=self._list, on_call_tool=self._call)
        limit = settings.upload_mb * 1_000_000
        self.manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=limit)
        AppStatus.disable_automatic_graceful_drain()  # who waits is told when the worker stops, and not cut off before

    @property
    def route(self) -> Route:
        return Route(PATH, self)

    @asynccontextmanager
    async def serving(self, app: object) -> AsyncIterator[None]:
        async with self.manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """TokenNeeded: who asks has none, in an open house too."""
        if not person_of(Request(scope)).is_program:
            raise TokenNeeded("MCP is for programs")
        if scope["method"] != "POST":  # there is no session to listen to, or to end
            return await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
        await self.manager.handle_request(scope, receive, send)

    async def _list(self, context: Any, asked: Any) -> ListToolsResult:
        tools = [Tool(name=name, description=t.about, input_schema=t.takes) for name, t in self.tools.items()]
        return ListToolsResult(tools=tools)

    async def _call(self, context: Any, asked: CallToolRequestParams) -> CallToolResult:
        request, values = context.request, dict(asked.arguments or {})
        try:
            if asked.name not in self.tools:
                raise OptionError("tool", asked.name, ", ".join(self.tools))
            tool = self.tools[asked.name]
            if unknown := sorted(set(values) - set(tool.takes["properties"])):
                raise OptionError(unknown[0], "", "no such field")
            return CallToolResult(content=list(await tool.do(self.house.of(request), values, request)))
        except (StudioError, JobFailed) as exc:
            error = exc.failed if isinstance(exc, JobFailed) else exc
            text = sentence(preferred(request.headers), error.code, error.facts)
            return CallToolResult(content=[TextContent(text=text)], is_error=True)

    async def _draw(self, own: OwnJobs, values: Values, request: Request) -> Sequence[Content]:
        order = parse(Generate, {**self._said(values), "preview": "off"})
        return await self._shown(await attended(own, order), request)

    async def _restore(self, own: OwnJobs, values: Values, request: Request) -> Sequence[Content]:
        photo = values.get("image")
        if not isinstance(photo, str) or not photo:
            raise OptionError("image", "", "a file")
        image = await to_thread.run_sync(keep_base64, photo, self.settings.uploads, limiter=self.turn)
        order = parse(Enhance, {**self._said(values), "image": image})
        return await self._shown(await attended(own, order), request)

    def _said(self, values: Values) -> Values:
        """Return what was said, null being nothing, and the server's own backend, if none was named."""
        said = {name: value for name, value in values.items() if value is not None}
        if "backend" in said:
            choices.check_backend(self.house.status, str(said["backend"]))
        return {"backend": self.settings.backend, **said}

    async def _shown(self, final: Final, request: Request) -> Sequence[Content]:
        images = [await to_thread.run_sync(_preview, self.house.file(name), limiter=self.turn) for name in final.images]
        faces = {"faces": [face.state for face in final.faces]} if final.faces else {}
        about = {
            "images": [_url(name, request) for name in final.images],
            "seed": final.seed,
            "seconds": final.seconds,
            "engine": final.engine,
            **faces,
        }
        return [*images, _text(about)]

    async def _status(self, own: OwnJobs, values: Values, request: Request) -> Sequence[Content]:
        status = self.house.status
        models = {b.name: {"kind": b.kind, "sizes": [f"{w}x{h}" for w, h in b.sizes]} for b in status.bundles}
        waiting = [job.id for job in await to_thread.run_sync(own.latest_jobs, LISTED) if job.state == "queued"]
        return [_text({"state": status.state, "detail": status.detail, "models": models, "waiting": len(waiting)})]

    async def _pictures(self, own: OwnJobs, values: Values, request: Request) -> Sequence[Content]:
        limit = values.get("limit", LIMIT["default"])
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LISTED:
            raise OptionError("limit", limit, f"1 … {LISTED}")
        finished = await to_thread.run_sync(own.finished, limit)
        return [
            _text(
                {
                    "images": [_url(name, request) for name in done.final.images],
                    "seed": done.final.seed,
                    "prompt": done.job.request.prompt if isinstance(done.job.request, Generate) else "",
                }
            )
            for done in finished
        ] or [_text({"images": []})]


def _url(picture: str, request: Request) -> str:
    return str(request.base_url) + address(picture)


def _text(about: Mapping[str, object]) -> TextContent:
    return TextContent(text=json.dumps(about, ensure_ascii=False))


def _preview(path: Path) -> ImageContent:
    """Return a picture of ours as an assistant is shown it: WEBP, its longer side PREVIEW_PX at most. In a thread."""
    with Image.open(path) as picture:
        picture.thumbnail((PREVIEW_PX, PREVIEW_PX))
        picture.convert("RGB").save(data := io.BytesIO(), "WEBP", quality=PREVIEW_QUALITY)
    return ImageContent(data=base64.b64encode(data.getvalue()).decode(), mime_type="image/webp")
