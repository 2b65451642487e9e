"""
How a studio shows that it is the one which a machine's token is of, before the machine sends that token: whoever
announces a studio in the local network may be anybody.

Both know the token's checksum: it is the key of an HMAC over a number drawn by lot and over the address at which the
question has arrived, which only the studio's own operating system knows. Somebody in the middle who passes the question
on gets an answer for the studio's address, which is not his. It says nothing about who listens on the way: for that
there is https.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

PATH = "/proof"
NONCE = re.compile(r"[0-9a-f]{32}")
ANSWER_S = 3.0
MOST_BYTES = 1000  # of an answer


def checksum(token: str) -> str:
    """Return what a house stores of a token: its SHA-256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def mark(checksum: str) -> str:
    """Return by what a token is named to strangers; nothing else follows from it."""
    return hashlib.sha256(f"mark of {checksum}".encode()).hexdigest()[:32]


def make(checksum: str, nonce: str, host: str, port: int) -> str:
    """Return the proof, for whoever has asked at this address, IPv4 or IPv6. ValueError: it is none."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:  # where one socket serves both
        address = address.ipv4_mapped
    return hmac.digest(checksum.encode(), f"{nonce} {address} {port}".encode(), "sha256").hex()


def refusal(url: str, token: str) -> str:
    """
    Ask the studio at an address, which has an IP address for a host, whether the token is of its making. Return why it
    is not shown to be; empty: it is.
    """
    import httpx2  # here: 0.1 s, which nobody else need wait for

    where, nonce = urlsplit(url), secrets.token_hex(16)
    wanted = make(checksum(token), nonce, where.hostname or "", where.port or 0)
    asked = {"mark": mark(checksum(token)), "nonce": nonce}
    try:
        with httpx2.Client(timeout=ANSWER_S) as http, http.stream("POST", f"{url}{PATH}", params=asked) as answer:
            body = next(answer.iter_bytes(MOST_BYTES), b"") if answer.status_code == 200 else b""
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as exc:
        return f"it cannot be asked: {exc or type(exc).__name__}"
    shown = re.fullmatch(rb'\{"proof":\s*"([0-9a-f]{64})"\}', body)
    if shown is None or not hmac.compare_digest(shown[1].decode(), wanted):
        return "it has not made this machine's token"
    return ""
