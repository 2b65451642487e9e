"""
What every request passes before anything else sees it, as plain ASGI: who may ask (Host, Origin), how much they may
send, which doors are open at all, and the headers of every answer.

Without it any web page could drive this server through the browser of somebody who visits it: Gradio answers to any
Host and runs cross-origin posts. Nothing here knows portraits.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from urllib.parse import quote

from markupsafe import Markup
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engines.messages import CREDIT
from engines.messages.photos import FORMATS
from webui.addresses import inside
from webui.plain_page import page

SMALL_BODY_BYTES = 2_000_000  # anything but an upload
# A body has this long to begin, and goes on at this pace at least: a photo of 30 MB may take 50 minutes.
BODY_S, BODY_BYTES_PER_S = 30.0, 10_000
CARRIER_GRADE = ip_network("100.64.0.0/10")  # RFC 6598: nobody's on the internet; Tailscale's in a house
UPLOAD_PATHS = (
    "/enhance", "/gradio_api/upload", "/v1/images/edits", "/sdapi/v1/img2img", "/mcp",
    "/frame/send/", "/frame/visit/draw", "/frame/visit/restore",
)  # fmt: skip
# What another machine of the house has made for it: the largest photo, restored, as PNG; how far it has come.
WORKER_PATHS, WORKER_BYTES = re.compile(r"/workers/jobs/\w+/\d+/(pictures/.*|snapshot)"), 300_000_000
FORM_PATHS = ("/generate",)  # where an upload may come as a form, and anything else is small
# What a browser needs of Gradio, seen by watching it; its other routes resize without limit, fetch foreign addresses,
# show what others did, or have no use here.
GRADIO_PATHS = (
    "/config",
    "/theme.css",
    "/static/",
    "/assets/",
    "/svelte/",
    "/gradio_api/info",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/file=",
    "/gradio_api/queue/",
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/theme.css",
)
SHUT_PATHS = ("/gradio_api/file=http",)
HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]@]*?)\.?)(?::[0-9]*)?")  # RFC 9110 section 7.2, IPv6 in brackets
LENGTH = re.compile(r"[0-9]{1,18}")
CSP = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio compiles its templates in the browser
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
# Of every answer. What is no page may do nothing by itself; a worker's script, which runs by its own policy, fetches
# from here.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CREDITED = {**HEADERS, "X-Credit": quote(CREDIT)}  # but for scripts and styles, most of which are other people's
PAGE_HEADERS = {
    **CREDITED,
    "Content-Security-Policy": CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
# Whatever else a browser may take for a page gets a page's headers. With each of the 100 files that the page asks for
# they were an eighth of what it loads.
HEADERS_BY_KIND = {
    **dict.fromkeys(("text/css", "text/javascript"), HEADERS),
    **dict.fromkeys(
        (
            "application/json",
            *FORMATS,
        ),
        CREDITED,
    ),
    "text/event-stream": {**CREDITED, "X-Accel-Buffering": "no"},  # nginx passes each event on at once
}
BAD_HOST = (
    "本机不以名称「{name}」提供服务:请用 IP 地址打开,或把名称加入 STUDIO_NAMES 后重新启动。"
    " This server does not answer to the name “{name}”: use its IP address, or add the name to STUDIO_NAMES and start"
    " it again."
)
CROSS_SITE = "拒绝来自其他网站的请求。 Requests from other sites are refused."
NOTHING_HERE = "没有这个地址。 There is nothing here."
TOO_SLOW = "内容没有及时到达。 What was being sent did not arrive in time."
TOO_LARGE = "内容太大,上限 {mb:g} MB。 Too large: the limit is {mb:g} MB."
SHOWN_LETTERS = 100  # of a name that somebody else chose


class Guard:
    """
    `names`: host names by which this server may be called, besides addresses of private networks and its own; "*"
    stands for any letters. `paths`: what the application itself serves, besides Gradio; a path that ends in "/" opens
    everything below it.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], paths: Iterable[str], upload_bytes: int) -> None:
        self.app, self.names, self.upload_bytes = app, tuple(names), upload_bytes
        self.paths = (*paths, *GRADIO_PATHS)
        self.below = tuple(path for path in self.paths if path.endswith(("/", "=")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nobody here speaks it, and a browser lets any page open one
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        gate = _Gate(receive, send, self._limit(scope), "text/html" in Headers(scope=scope).get("accept", ""))
        if refusal := self._refusal(scope):
            return await gate.refuse(*refusal)
        try:
            await self.app(scope, gate.receive, gate.send)
        except ClientDisconnect:
            if not gate.cut_off:
                raise
        if gate.late:
            await gate.refuse(408, "body_too_slow", TOO_SLOW)
        elif gate.overfull:
            await gate.refuse(413, "body_too_large", TOO_LARGE.format(mb=gate.limit / 1e6))

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        headers, path = Headers(scope=scope), inside(scope)
        host = headers.get("host", "")
        if not self._ours(_host_name(host), scope.get("server")):
            return 400, "bad_host", BAD_HOST.format(name=host[:SHOWN_LETTERS])
        if foreign(scope["method"], headers, host):
            return 403, "cross_site", CROSS_SITE
        if not self._open(path):
            return 404, "no_such_address", NOTHING_HERE
        declared = headers.get("content-length", "0")
        if not LENGTH.fullmatch(declared) or int(declared) > self._limit(scope):
            return 413, "body_too_large", TOO_LARGE.format(mb=self._limit(scope) / 1e6)
        return None

    def _ours(self, name: str, server: tuple[str, int | None] | None) -> bool:
        """`server`: this end of the connection, whose address nobody can have made a name of his resolve to."""
        try:
            address = ip_address(name)
        except ValueError:
            return any(fnmatchcase(name, pattern) for pattern in self.names)
        private = address.is_private or address.is_loopback or address.is_link_local or address in CARRIER_GRADE
        return private or (server is not None and name == server[0])

    def _open(self, path: str) -> bool:
        listed = path in self.paths or path == "/" or path.startswith(self.below)
        return listed and not path.lower().startswith(SHUT_PATHS)

    def _limit(self, scope: Scope) -> int:
        path = inside(scope)
        if WORKER_PATHS.fullmatch(path):
            return WORKER_BYTES
        form = path in FORM_PATHS and is_form(Headers(scope=scope))
        return self.upload_bytes if form or path.startswith(UPLOAD_PATHS) else SMALL_BODY_BYTES


class _Gate:
    """One request's way: counts what arrives, for bodies that do not say how long they are; dresses what leaves."""

    def __init__(self, receive: Receive, send: Send, limit: int, as_page: bool) -> None:
        self._receive, self._send, self.limit, self.as_page = receive, send, limit, as_page
        self.received_bytes, self.overfull, self.late, self.started = 0, False, False, False
        self._whole, self._due = False, asyncio.get_running_loop().time() + BODY_S

    @property
    def cut_off(self) -> bool:
        return self.overfull or self.late

    async def receive(self) -> Message:
        if self.cut_off:
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(None if self._whole else self._due + self.received_bytes / BODY_BYTES_PER_S):
                message = await self._receive()
        except TimeoutError:
            self.late = True
            return {"type": "http.disconnect"}
        self._whole = not message.get("more_body", False)
        self.received_bytes += len(message.get("body", b""))
        self.overfull = self.received_bytes > self.limit
        return {"type": "http.disconnect"} if self.overfull else message

    async def send(self, message: Message) -> None:
        if self.cut_off and not self.started:
            return  # whatever the application says to a body cut short, the answer is ours
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            kind = headers.get("content-type", "").partition(";")[0]
            for name, value in HEADERS_BY_KIND.get(kind, PAGE_HEADERS).items():
                headers[name] = value
        await self._send(message)

    async def refuse(self, status: int, code: str, sentence: str) -> None:
        if self.started:
            return
        self.overfull = self.late = False
        body = json.dumps({"status": "error", "code": code, "message": sentence}, ensure_ascii=False).encode()
        kind = b"application/json"
        if self.as_page:
            body, kind = page(Markup("<p>{}</p>").format(sentence)).encode(), b"text/html; charset=utf-8"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("multipart/form-data")


def foreign(method: str, headers: Headers, host: str) -> bool:
    """
    Does another site's page send this? Following a link to us is fine; acting, or reading pictures, from elsewhere is
    not. Browsers say Sec-Fetch-Site only to secure origins, so an Origin that is not ours counts as well, unless they
    do: there are proxies that leave the port out of Host.
    """
    site = headers.get("sec-fetch-site", "")
    elsewhere = site in ("cross-site", "same-site")
    if method in ("GET", "HEAD"):
        link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return elsewhere and not link
    origin = headers.get("origin")
    ours = (None, f"http://{host.lower()}", f"https://{host.lower()}")
    return elsewhere or (site != "same-origin" and (origin and origin.lower()) not in ours)


def _host_name(host: str) -> str:
    """`[::1]:7860`, `192.168.1.5:7860`, `Studio.local.` -> the name alone, lower case"""
    match = HOST.fullmatch(host.lower())
    return (match[1] or match[2]) if match else ""
