"""
What lies between a socket and the guard: how long a connection may take to say what it wants, which proxies are
believed when they say for whom they ask, and below which path the house lies. Nothing here knows portraits.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from webui.guard import CREDITED

HEAD_S = 20.0  # for the head of a request: uvicorn waits for ever, and each such connection is a file that stays open
FORWARDED = (b"forwarded", b"x-real-ip")
LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")
USUAL_PORTS = (b"80", b"443")  # which addresses do without; and a proxy behind another says its own
PORT = re.compile(rb":[0-9]+$")
HEALTH = ("/healthz", "/readyz")  # which those who look after a process ask for, whatever lies before it
COOKIE_PATH = re.compile(rb"; *Path=(?=/)", re.IGNORECASE)
RELAYED = "studio.relayed"  # of a scope: who asks does so for somebody else, or says so
BELIEVED = "studio.believed"  # and is a proxy that the owner has named


class DeadlineProtocol(H11Protocol):
    """
    HTTP/1.1, on connections that are closed when the head of a request has not come in time, and on which the body of
    an answer does not wait until the client has acknowledged its head.
    """

    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does so by itself, but not to sockets that it has not made: each small answer would be 40 ms late.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # what came is not yet a whole head
            self._wait_for_head()
        else:
            self._have_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head_due is None:
            self._head_due = self.loop.call_later(HEAD_S, self.transport.close)

    def _have_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


class Forwarded:
    """
    Takes what a proxy says of the client, of its scheme and of the name that was asked (X-Forwarded-For, -Proto,
    -Host, -Port) from those that the owner has named, and takes it away from all others. `proxies`: addresses and
    networks.
    """

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self.app = app
        self.believing = ProxyHeadersMiddleware(app, list(proxies))  # type: ignore[arg-type]  # of its own types of ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        client = scope.get("client")
        if client and client[0] in self.believing.trusted_hosts:
            believed = {**scope, "headers": _as_asked(scope["headers"]), RELAYED: True, BELIEVED: True}
            return await self.believing(believed, receive, send)  # type: ignore[arg-type]
        headers = [(name, value) for name, value in scope["headers"] if not _is_forwarded(name)]
        relayed = len(headers) < len(scope["headers"])
        return await self.app({**scope, "headers": headers, RELAYED: relayed}, receive, send)


class Subpath:
    """
    Lets a house lie below a path, like /studio. Whatever the application is asked for begins with it, which some
    proxies have cut off; and what the application sends browsers to (Location), or lets them send cookies to, within
    the house, begins with it too.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app, self.path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        asked = scope["path"]
        if asked == self.path or (asked == "/" and not scope.get(RELAYED)):
            query = scope["query_string"].decode("latin-1")
            answer = RedirectResponse(f"{self.path}/?{query}".rstrip("?"), 307, CREDITED)
            return await answer(scope, receive, send)
        if not asked.startswith(f"{self.path}/") and (scope.get(RELAYED) or asked in HEALTH):
            scope = {**scope, "path": self.path + asked, "raw_path": self.path.encode() + scope["raw_path"]}

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [self._outside(*header) for header in message["headers"]]}
            await send(message)

        await self.app({**scope, "root_path": self.path}, receive, sent)

    def _outside(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        match name.lower():
            case b"location" if value.startswith(b"/"):
                value = self.path.encode() + value
            case b"set-cookie":
                value = COOKIE_PATH.sub(rb"\g<0>" + self.path.encode(), value)
        return name, value


def is_this_machine(scope: Scope) -> bool:
    """
    Return whether somebody asks who sits at this machine: not through a proxy on it, which asks for anybody. One that
    nobody has named, and that says nothing of whom it asks for, cannot be told from a person.
    """
    client, server = scope.get("client"), scope.get("server")
    if client is None or scope.get(RELAYED):
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None  # how a socket for both writes IPv4
    return (mapped or address).is_loopback or (server is not None and client[0] == server[0])


def lan_address() -> str:
    """The address this machine has on its default route; empty without a network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: routed, never reached (RFC 5737)
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def base_url(request: Request) -> str:
    """Return the address of this house, by which others reach it too: from this machine it has another name."""
    address = lan_address() if request.url.hostname in LOCAL else ""
    return str(request.base_url.replace(hostname=address) if address else request.base_url)


def _is_forwarded(name: bytes) -> bool:
    return name in FORWARDED or name.startswith(b"x-forwarded-")


def _as_asked(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers with the name that the client asked for in the place of the one that the proxy asks for."""
    said = {name: value.split(b",")[0].strip() for name, value in headers}
    host, port = said.get(b"x-forwarded-host", said.get(b"host", b"")), said.get(b"x-forwarded-port", b"")
    if port.isdigit() and port not in USUAL_PORTS and not PORT.search(host):
        host += b":" + port
    return [(b"host", host), *((name, value) for name, value in headers if name != b"host")]
