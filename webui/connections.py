"""
What lies between a socket and the guard: how long a connection may take to say what it wants, and which proxies are
believed when they say for whom they ask. Nothing here knows portraits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0  # for the head of a request: uvicorn waits for ever, and each such connection is a file that stays open
FORWARDED = (b"forwarded", b"x-real-ip")
LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")
RELAYED = "studio.relayed"  # of a scope: who asks does so for somebody else, or says so


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1, on connections that are closed when the head of a request has not come in time."""

    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
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
    -Host) from those that the owner has named, and takes it away from all others. `proxies`: addresses and networks.
    """

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self.app = app
        self.believing = ProxyHeadersMiddleware(app, list(proxies))  # type: ignore[arg-type]  # of its own types of ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        client = scope.get("client")
        if client and client[0] in self.believing.trusted_hosts:
            believed = {**scope, "headers": _as_asked(scope["headers"]), RELAYED: True}
            return await self.believing(believed, receive, send)  # type: ignore[arg-type]
        headers = [(name, value) for name, value in scope["headers"] if not _is_forwarded(name)]
        relayed = len(headers) < len(scope["headers"])
        return await self.app({**scope, "headers": headers, RELAYED: relayed}, receive, send)


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
    asked = [value.split(b",")[0].strip() for name, value in headers if name == b"x-forwarded-host"]
    if not asked:
        return headers
    return [(b"host", asked[0]), *((name, value) for name, value in headers if name != b"host")]
