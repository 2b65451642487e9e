"""Somebody who says that he is the studio, and wants to learn a machine's token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen


@contextmanager
def false_studio(
    answer: bytes = b"", status: int = 200, asks: str = "", host: str = "127.0.0.1"
) -> Iterator[tuple[str, list[str]]]:
    """Yield its address, and all that it is sent. `asks`: the studio to which it passes questions on."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(f"{self.path} {self.headers}")
            body = answer
            if asks:
                headers = {"Host": self.headers["Host"]}  # as if the machine itself had asked
                body = urlopen(Request(asks + self.path, b"", headers)).read()
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()
