"""
The scripts and styles of Gradio's page, as files of this house's: compressed as far as can be, once, and to be kept by
browsers for a year, as their names change with what is in them. Gradio compresses them lightly, for every visitor anew,
and says nothing of keeping them. Without the encryption of what the browser remembers (`without_ciphers`).
"""

from __future__ import annotations

import gzip
import mimetypes
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import brotli
from fastapi import APIRouter, Request
from fastapi.responses import Response
from gradio.routes import BUILD_PATH_LIB

from webui.compression import takes_brotli

NAME = re.compile(r"[\w.-]+")
TEXTS = {".js": "text/javascript", ".css": "text/css"}
A_YEAR = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"  # of what is changed here: its name says nothing of how
QUICKLY, FULLY = 5, 11  # brotli's levels: 0.02 s for all that a first visit needs, and 0.9 s for 8 % less
# Between the imports and the component's own code lies CryptoJS. The two functions that call it encode and decode a
# text with a secret.
CIPHERS = re.compile(
    r"(?<=;)var [^;]{1,20}=\w+\(\(\(e,t\)=>\{\(function\(n,r\)\{typeof e==`object`\?.*CryptoJS.*"
    r"function (?P<encode>\w)\(e,t\)\{.*?\}function (?P<decode>\w)\(e,t\)\{.*?catch\{return``\}\}"
    r"(?=var \w+=new Set\(\[`\$\$slots`)",
    re.DOTALL,
)
EXTERNAL = re.compile(r"import\{t as \w+\}from\"\./__vite-browser-external-\w+\.js\";")  # for CryptoJS alone


def without_ciphers(script: str) -> str:
    """
    Return the script of gr.BrowserState without CryptoJS, 24 KB of what a first visit loaded: what it encrypts lies
    beside its key. Another script comes back as it was.
    """
    leaner, count = CIPHERS.subn(r"function \g<encode>(e){return e}function \g<decode>(e){return e}", script)
    return EXTERNAL.sub("", leaner) if count else script


@dataclass
class Frontend:
    """`folder`: Gradio's assets, which do not change while the server runs."""

    folder: Path
    _bodies: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by name and encoding
    _changed: set[str] = field(default_factory=set)  # names
    _later: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "compress"))

    def answer(self, name: str, accepted: str) -> Response:
        """Return the file of this name, in the best encoding that is accepted; 404: there is none."""
        path = self.folder / name
        if not NAME.fullmatch(name) or not path.is_file():
            return Response(status_code=404)
        kind = TEXTS.get(path.suffix)
        if kind is None:
            headers = {"Cache-Control": A_YEAR}
            return Response(path.read_bytes(), headers=headers, media_type=mimetypes.guess_type(name)[0])
        encoding = "br" if takes_brotli(accepted) else "gzip" if "gzip" in accepted else ""
        body = self._body(path, encoding)
        headers = {"Cache-Control": ASK_AGAIN if name in self._changed else A_YEAR, "Vary": "Accept-Encoding"}
        headers |= {"Content-Encoding": encoding} if encoding else {}
        return Response(body, headers=headers, media_type=kind)

    def _body(self, path: Path, encoding: str) -> bytes:
        key = path.name, encoding
        if key not in self._bodies:
            body = self._read(path)
            match encoding:
                case "br":
                    self._bodies[key] = brotli.compress(body, quality=QUICKLY)
                    self._later.submit(self._compress_fully, key, body)
                case "gzip":
                    self._bodies[key] = gzip.compress(body, 9, mtime=0)
                case _:
                    return body
        return self._bodies[key]

    def _compress_fully(self, key: tuple[str, str], body: bytes) -> None:
        self._bodies[key] = brotli.compress(body, quality=FULLY)

    def _read(self, path: Path) -> bytes:
        body = path.read_bytes()
        if b"CryptoJS" not in body:
            return body
        self._changed.add(path.name)
        return without_ciphers(body.decode()).encode()


def add(routes: APIRouter) -> None:
    """Add the way to the files of Gradio's page, in the place of its own."""
    frontend = Frontend(Path(BUILD_PATH_LIB))

    @routes.get("/assets/{path:path}", include_in_schema=False)
    def asset(path: str, request: Request) -> Response:
        return frontend.answer(path, request.headers.get("accept-encoding", ""))
