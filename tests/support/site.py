"""
A web site on a loopback port that answers as it is told: bytes, redirects, refusals, too much, too slowly or not at
all. `Server` and `served_by` carry other stand-ins too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who hangs up is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 without a log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served_by(handler: type[Handler], port: int = 0) -> Iterator[str]:
    """Yield the address at which a server with this handler listens."""
    server = Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Page:
    """`gate`: until it opens, nothing is said. `chunks`: sent one after the other, without a length, for ever."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    chunk: bytes = b""


@dataclass
class Site:
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path and headers, names in small letters
    url: str = ""

    def put(self, path: str, body: object, **more: object) -> str:
        """Return the address under which it lies now. What are no bytes becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.pages[path] = Page(data, **more)  # type: ignore[arg-type]
        return self.url + path

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class SiteHandler(Handler):
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        page = self.site.pages.get(self.path, Page(status=404))
        if page.gate is not None:
            page.gate.wait(60)
        if not page.chunk:
            return self.answer(page.status, page.body, page.headers)
        self.send_response(page.status)
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(page.chunk)


@contextmanager
def served(site: Site, port: int = 0) -> Iterator[Site]:
    with served_by(type("Bound", (SiteHandler,), {"site": site}), port) as site.url:
        yield site
