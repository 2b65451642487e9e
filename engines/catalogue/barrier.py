"""
Keeps a process from connecting to its own machine: a page has named the address that it asks, and what a name means,
or where an answer leads to, is a stranger's to say. The interpreter tells of every connection before it is made.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from engines.messages.mirrors import forbidden


def raise_barrier() -> None:
    """From now on, for as long as this process lives, such a connection is refused with PermissionError."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):  # a name: a Unix socket
        return
    host, port = str(arguments[1][0]).partition("%")[0], arguments[1][1]
    if forbidden(ip_address(host)) and (host, port) not in _proxies():
        raise PermissionError(f"no connection to {host} for a page")


def _proxies() -> set[tuple[str, int]]:
    """Where the proxies of the environment listen, often on this machine: its owner has set them."""
    listening: set[tuple[str, int]] = set()
    for address in getproxies().values():
        proxy = urlsplit(address)
        if proxy.hostname and proxy.port:
            addresses = socket.getaddrinfo(proxy.hostname, proxy.port, type=socket.SOCK_STREAM)
            listening |= {(str(info[4][0]), int(info[4][1])) for info in addresses}
    return listening
