"""
Requests that this process sends to other machines. They go where the owner's settings say, and from there on only to
the same server, or by https to a public one: never to what only this machine, or only its network, can reach. Which
address a name has is looked at as the connection is made, and not before. No proxies, no cookies, nothing compressed.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from engines import files
from engines.messages.mirrors import forbidden

CONNECT_S, SILENCE_S = 5.0, 10.0  # until somebody answers; between two pieces
JSON_S, JSON_BYTES = 20.0, 4_000_000  # what a listing may take
PORTS = {"http": 80, "https": 443}
LEADS_ON, MOST_LEADS = (301, 302, 303, 307, 308), 3
NAT64 = ip_network("64:ff9b::/96")  # its last 32 bits are an IPv4 address (RFC 6052)
PIECE_BYTES = 1 << 16
AGENT = "AWPortrait-Edge"
Body = bytes | Iterable[bytes] | None


class Unanswered(Exception):
    """What was asked for does not come. `status`: that of HTTP; 0: no answer. The text has no address's secrets."""

    def __init__(self, host: str, why: str, status: int = 0) -> None:
        super().__init__(f"{host}: {why}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Resource:
    """
    What lies at `url`. `own`: the address that the owner has set for where it was named; `headers` go nowhere else.
    """

    url: str = field(repr=False)  # there may be a token in it
    own: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def may_be_asked(self) -> bool:
        """Tell whether its address may be asked at all, as far as that can be seen in it."""
        try:
            return _origin(self.url) == _origin(self.own) or urlsplit(self.url).scheme == "https"
        except ValueError:
            return False


def download(what: Resource, target: Path, most_bytes: int, within_s: float) -> None:
    """Write it into a file. Unanswered. OSError: the file cannot be written."""
    with opened(what, within_s) as response, target.open("wb") as file:
        for piece in pieces(what.host, response, most_bytes):
            file.write(piece)


def asked(
    what: Resource,
    method: str = "GET",
    body: Body = None,
    headers: Mapping[str, str] | None = None,
    within_s: float = JSON_S,
) -> Any:
    """Return the JSON that it is answered with; None: an answer without any. Unanswered."""
    with opened(what, within_s, method, body, headers) as response:
        text = b"".join(pieces(what.host, response, JSON_BYTES))
    try:
        return files.parse_json(text) if text else None
    except ValueError as exc:
        raise Unanswered(what.host, "the answer is no JSON") from exc


@contextmanager
def opened(
    what: Resource, within_s: float, method: str = "GET", body: Body = None, headers: Mapping[str, str] | None = None
) -> Iterator[HTTPResponse]:
    """
    Ask, follow where the answer leads on the same server, and yield an answer of the 200s. All of it must be there
    `within_s` seconds. Unanswered.
    """
    until_s, url = time.monotonic() + within_s, what.url
    for _ in range(1 + MOST_LEADS):
        with _answer(url, what, method, body, headers or {}, until_s) as response:
            if method == "GET" and response.status in LEADS_ON:
                url = _led(url, response.getheader("location", ""), what.host)
                continue
            if not 200 <= response.status < 300:
                raise Unanswered(what.host, f"answers {response.status}", response.status)
            yield response
            return
    raise Unanswered(what.host, "leads from one address to the next")


def pieces(host: str, response: HTTPResponse, most_bytes: int) -> Iterator[bytes]:
    """Yield what comes. Unanswered: it breaks off, or is too large."""
    left = most_bytes
    while left >= 0 and (response.length or 0) <= left:  # what is still announced
        try:
            piece = response.read(PIECE_BYTES)
        except (OSError, HTTPException, ValueError) as exc:
            raise Unanswered(host, _why(exc)) from exc
        if not piece:
            if response.length:
                raise Unanswered(host, "the answer breaks off")
            return
        left -= len(piece)
        if left >= 0:
            yield piece
    raise Unanswered(host, "the answer is too large")


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is on the internet: no network's own, nor one of this machine in another writing."""
    inner: IPv4Address | None = None
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
    ip = inner or ip
    return ip.is_global and not ip.is_multicast and not forbidden(ip)


def _origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port. ValueError: it is no address of a server."""
    address = urlsplit(url)
    if address.scheme not in PORTS or not address.hostname or "@" in address.netloc:
        raise ValueError("no address of a server")
    return address.scheme, address.hostname, address.port or PORTS[address.scheme]


def _led(url: str, location: str, host: str) -> str:
    """Return the address that an answer leads to. Unanswered: that is another server's."""
    try:
        led = urljoin(url, location)
        if _origin(led) == _origin(url):
            return led
    except ValueError:
        pass
    raise Unanswered(host, "leads to another server")


class _Line(HTTPConnection):
    """A connection; to what is not the owner's `own` server, only if that is public."""

    def __init__(self, origin: tuple[str, str, int], is_own: bool) -> None:
        scheme, host, port = origin
        super().__init__(host, port)
        self.is_own, self.is_over = is_own, False
        self.context = ssl.create_default_context() if scheme == "https" else None

    def connect(self) -> None:
        self.sock = _dialled(self.host, self.port, self.is_own)
        if self.context is not None:
            self.sock = self.context.wrap_socket(self.sock, server_hostname=self.host)
        self.sock.settimeout(SILENCE_S)
        if self.is_over:
            raise TimeoutError

    def hang_up(self) -> None:
        """Its time is over, whoever waits for it."""
        self.is_over = True
        if self.sock is not None:
            with suppress(OSError):  # of the socket itself: one with TLS would let go of it under its reader
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _dialled(host: str, port: int, is_own: bool) -> socket.socket:
    """Connect to the first address that may be and answers. OSError."""
    error = OSError("no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not is_own and not is_public(ip_address(str(address[0]).partition("%")[0])):
            error = PermissionError("not a public address")
            continue
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.settimeout(CONNECT_S)
            dialled.connect(address)
            return dialled
        except OSError as exc:
            dialled.close()
            error = exc
    raise error


@contextmanager
def _answer(
    url: str, what: Resource, method: str, body: Body, headers: Mapping[str, str], until_s: float
) -> Iterator[HTTPResponse]:
    if not Resource(url, what.own).may_be_asked():
        raise Unanswered(what.host, "is not by https")
    address, is_own = urlsplit(url), _origin(url) == _origin(what.own)
    sent = {"Host": address.netloc, "Accept-Encoding": "identity", "User-Agent": AGENT, **headers}
    line = _Line(_origin(url), is_own)
    over = threading.Timer(max(0.0, until_s - time.monotonic()), line.hang_up)
    over.daemon = True
    over.start()
    try:
        try:
            line.connect()
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: it says why
                line.request(method, _target(address), body, {**sent, **(what.headers if is_own else {})})
            response = line.getresponse()
        except (OSError, HTTPException, ValueError) as exc:  # ValueError: a name that is none
            raise Unanswered(what.host, _why(exc)) from exc
        yield response
    finally:
        over.cancel()
        line.close()


def _target(address: SplitResult) -> str:
    path = quote(address.path or "/", safe="/%:@!$&'()*+,;=~")
    return f"{path}?{quote(address.query, safe='/%:@!$&()*+,;=~?')}" if address.query else path


def _why(exc: Exception) -> str:
    match exc:
        case ssl.SSLError():
            return f"no secure connection ({exc.reason})"
        case TimeoutError():
            return "does not answer in time"
        case OSError():
            return exc.strerror or str(exc) or "does not answer"
        case _:
            return "the answer cannot be read"
