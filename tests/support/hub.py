"""
A hub on a loopback port, which speaks as much of Hugging Face's API and of ModelScope's as their libraries ask for:
what a repository holds, with hashes, and files with redirects, HEAD and ranges. It can be told to behave badly.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".pth", ".onnx")
COMMIT = "c0ffee" * 6 + "c0ff"
API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
MODELSCOPE = re.compile(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?")


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]  # names in small letters

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class Hub:
    """
    `repositories`: by name, then file. By a file's name: `served` are other bytes than the hub's own list tells of,
    `cuts` how many bytes of each coming answer to send before the line breaks, `stalls` before it falls silent and
    stays open, `answers` the states of coming ones.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    failing: list[int] = field(default_factory=list)  # the states of coming answers, whatever is asked
    ranges: bool = True
    page: bytes = b""  # what every address answers with, if anything
    pace_s: float = 0.0  # between pieces of a file
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def files(self) -> list[Asked]:
        """The requests for bytes, without those that were sent on elsewhere."""
        return [one for one in self.asked if one.method == "GET" and not one.path.startswith("/api/models/")]

    def listed(self, repository: str) -> bytes:
        """As ModelScope tells it."""
        files = [
            {"Type": "blob", "Path": name, "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
            for name, content in self.repositories[repository].items()
        ]
        return json.dumps(
            {"Code": 200, "Success": True, "Data": {"Files": [{"Type": "tree", "Path": "vae"}, *files]}}
        ).encode()

    def told(self, repository: str) -> bytes:
        siblings = [_sibling(name, content) for name, content in self.repositories[repository].items()]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()


def _sibling(name: str, content: bytes) -> dict[str, object]:
    told: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_digest(content)}
    if name.endswith(LFS):
        told["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
    return told


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append(Asked(self.command, path, headers))
        api, resolve, modelscope = API.fullmatch(path), RESOLVE.fullmatch(path), MODELSCOPE.fullmatch(path)
        if self.hub.failing:
            self._send(self.hub.failing.pop(0), b"")
        elif self.hub.page:
            self._send(200, self.hub.page)
        elif api and api[1] in self.hub.repositories:
            self._send(200, self.hub.told(api[1]))
        elif resolve and resolve[3] in self.hub.repositories.get(resolve[1], {}):
            self._resolve(resolve[1], resolve[3])
        elif modelscope and modelscope[1] in self.hub.repositories:
            self._modelscope(modelscope[1], bool(modelscope[2]))
        elif path.startswith("/cdn/"):
            _, _, owner, name, file = path.split("/", 4)
            self._file(file, self.hub.repositories[f"{owner}/{name}"][file])
        else:
            self._send(404, b"")

    def _modelscope(self, repository: str, listing: bool) -> None:
        if listing:
            return self._send(200, self.hub.listed(repository))
        (file,) = parse_qs(urlsplit(self.path).query)["FilePath"]
        self._file(file, self.hub.repositories[repository][file])

    def _resolve(self, repository: str, file: str) -> None:
        """Large files lie elsewhere."""
        content = self.hub.repositories[repository][file]
        if not file.endswith(LFS):
            return self._file(file, content)
        self.send_response(302)
        self.send_header("Location", f"{self.hub.url}/cdn/{repository}/{file}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, file: str, content: bytes) -> None:
        if self.hub.answers.get(file):
            return self._send(self.hub.answers[file].pop(0), b"")
        content = self.hub.served.get(file, content)
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.hub.ranges else None
        begin = int(start[1]) if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{git_digest(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "GET":
            self._body(file, content[begin:])

    def _body(self, file: str, content: bytes) -> None:
        cuts, stalls = self.hub.cuts.get(file, []), self.hub.stalls.get(file, [])
        silent = bool(stalls)
        cut = stalls.pop(0) if stalls else cuts.pop(0) if cuts else len(content)
        step = 1 << 14
        for at in range(0, cut, step):
            self.wfile.write(content[at : min(at + step, cut)])
            time.sleep(self.hub.pace_s)
        if cut < len(content):
            self.wfile.flush()
            if silent:
                self.connection.recv(1)  # until who asked hangs up
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _send(self, state: int, content: bytes) -> None:
        self.send_response(state)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who hangs up is no error of ours."""


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
