"""How page and server agree that Gradio's stream of events has ended. Knows ASGI, and two of Gradio's addresses."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engines import files
from webui import addresses

STREAM, JOIN = "/gradio_api/queue/data", "/gradio_api/queue/join"
FAREWELL = b'data: {"msg":"close_stream"'
HANG_UP_S = 2.0  # how long a page may take: programs may read on, and a page that sleeps would never be answered


class Handshake:
    """
    The end of Gradio's event stream, agreed on by both sides: plain ASGI around Gradio, one for each application, as it
    remembers whose streams are ending. The page's half is assets/handshake.js.

    A page hears about all its events through one stream, which Gradio ends when none of them is left, and opens again
    with the next. Between the server's farewell and the page hearing it lies a moment: an event that joins then is
    answered while the page still believes in its stream, so it opens no other and waits for ever for what nobody will
    tell it. Here the farewell is over when the page has hung up, and what joins meanwhile is answered after that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.ending: dict[str, asyncio.Event] = {}  # by session: its last stream to say farewell, set when that is over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = addresses.inside(scope)
        serve = self._stream if path == STREAM else self._join if path == JOIN else self.app
        await serve(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        over = asyncio.Event()

        async def until_hung_up(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"  # handshake.js says why
            elif message.get("body", b"").startswith(FAREWELL):
                self.ending[session] = over
            elif self.ending.get(session) is over:  # what follows a farewell ends the answer
                await _hung_up(receive)
            await send(message)

        try:
            await self.app(scope, receive, until_hung_up)
        finally:
            over.set()
            if self.ending.get(session) is over:
                del self.ending[session]

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()

        async def overheard() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def in_turn(message: Message) -> None:
            if self.ending and message["type"] == "http.response.start":
                await self._over(_session(body))
            await send(message)

        await self.app(scope, overheard, in_turn)

    async def _over(self, session: str) -> None:
        if over := self.ending.get(session):
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), HANG_UP_S)


async def _hung_up(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            while (await receive())["type"] != "http.disconnect":
                pass


def _session(body: bytes | bytearray) -> str:
    """Return the session that asks to join; empty, where the body names none."""
    try:
        return str(files.parse_json(body)["session_hash"])
    except (ValueError, TypeError, KeyError):
        return ""
