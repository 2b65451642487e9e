"""
The doors of a machine that lends parts: one opens a part, the other runs it. Whoever asks has the token, or is told
nothing; nothing of a body is read before, nor more of it than the part can be fed. Knows HTTP; what is lent, and to
whom it is equal, engines/worker/lender.py knows.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response

from engines.errors import TokenNeeded
from engines.worker.lender import Lender
from webui.api import errors
from webui.api.errors import Refusal

QUESTION_BYTES = 16_000
BODY_S, BODY_BYTES_PER_S = 30.0, 100_000  # a body has this long to begin, and goes on at this pace at least
LOOK_S = 30.0  # between two looks at what nobody uses
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def build(lender: Lender, token: str) -> FastAPI:
    async def admit(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise TokenNeeded("it has not the token")

    @asynccontextmanager
    async def unloading(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_unload_idle(lender))
        yield
        task.cancel()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=unloading, dependencies=[Depends(admit)])
    errors.install(app, {"/": _form})
    thread = CapacityLimiter(1)  # engines keep threads of their own for each that calls them

    @app.post("/parts/open")
    async def open_part(request: Request) -> Response:
        question = await _body(request, QUESTION_BYTES)
        answer = await to_thread.run_sync(lender.answer, question, limiter=thread)
        return Response(answer, headers=HEADERS, media_type="application/json")

    @app.post("/parts/{part_id}/run")
    async def run_part(request: Request, part_id: str) -> Response:
        body = await _body(request, lender.limit(part_id))
        result = await to_thread.run_sync(lender.run, part_id, body, limiter=thread)
        return Response(result, headers=HEADERS, media_type="application/octet-stream")

    return app


def _form(refusal: Refusal) -> Mapping[str, object]:
    return {**errors.own_form(refusal), "facts": refusal.facts}


async def _unload_idle(lender: Lender) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        await to_thread.run_sync(lender.unload_idle)


async def _body(request: Request, limit: int) -> bytes:
    """Return what is sent. HTTPException: it is too much, or comes too slowly."""
    loop, received = asyncio.get_running_loop(), bytearray()
    begun, pieces = loop.time(), aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout_at(begun + BODY_S + len(received) / BODY_BYTES_PER_S):
                piece = await anext(pieces, None)
            if piece is None:
                return bytes(received)
            received += piece
            if len(received) > limit:
                raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
