"""The page's half of the handshake in headless Chromium, against a server that says nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.support.browser_window import BROWSER, REPO
from webui.gradio_patches.handshake import STREAM

pytestmark = BROWSER
TURN = """async (url) => {
  const line = new AbortController(), next = new AbortController();
  const reader = (await fetch(url, { signal: line.signal })).body.getReader();
  await reader.read();
  const asked = fetch(url, { signal: next.signal });  // the next one while the first still stands, then hang up
  line.abort();
  const { value } = await (await asked).body.getReader().read();
  await new Promise((done) => setTimeout(done, 500));
  next.abort();
  return new TextDecoder().decode(value);
}"""


class Streams(BaseHTTPRequestHandler):
    """An empty page, and streams of one event each, which says how many were asked for. They end with the server."""

    server: Counting
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        stream = self.path.startswith(STREAM)
        self.server.asked += stream
        body = b"data: %d\n\n" % self.server.asked if stream else b""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if stream else "text/html")
        self.send_header("Content-Length", str(len(body) + stream))  # one byte is yet to come, and never does
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_about: object) -> None:
        pass


class Counting(ThreadingHTTPServer):
    daemon_threads = True
    asked = 0


@pytest.fixture
def server() -> Iterator[Counting]:
    with Counting(("127.0.0.1", 0), Streams) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_stream_that_takes_over_from_another_is_asked_for_once(browser, server: Counting) -> None:
    """Without the script Chromium's cache asks three times here, and the page never hears the second answer."""
    with browser.new_page() as page:
        page.add_init_script(path=REPO / "webui" / "assets" / "handshake.js")
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        assert page.evaluate(TURN, f"{STREAM}?session_hash=s") == "data: 2\n\n"
        assert server.asked == 2
