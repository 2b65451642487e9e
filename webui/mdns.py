"""
The studio in the local network by multicast DNS (RFC 6762, with services as RFC 6763 has them): how it is announced
there, and how another machine finds it. Whether what is announced is what it says, webui/people/proof.py looks.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

import zeroconf
from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from webui import network

log = logging.getLogger(__name__)
TYPE = "_awportrait._tcp.local."
PATH = re.compile(r"(/[\w.~-]+)*", re.ASCII)
LOOK_S = 30.0  # between two looks whether this machine has other addresses
RESOLVE_MS = 3000  # what an announced studio has to say where it is
TICK_S, AGAIN_S = 0.5, 10.0  # between two looks who is announced, and until one that was not ours is asked again
MOST_ADDRESSES = 8  # of one studio: each that is silent takes seconds


@dataclass(frozen=True)
class Studio:
    """Where a studio answers: the port, the path below which it lies, and whether by https."""

    port: int
    path: str = ""
    https: bool = False


def announce(studio: Studio, host: str, stopping: threading.Event) -> None:
    """Announce it at all addresses at which a server that listens on `host` answers, until it is `stopping`."""
    why = ""
    while not stopping.is_set():
        here = addresses_at(host)
        try:
            with Zeroconf(ip_version=IPVersion.V4Only) as network_:
                network_.register_service(_info(studio, here))
                log.info("announced in the local network at %s", ", ".join(map(str, here)) or "no address")
                while not stopping.wait(LOOK_S) and addresses_at(host) == here:
                    pass
            why = ""
        except (OSError, zeroconf.Error) as exc:
            if why != (why := str(exc) or type(exc).__name__):
                log.warning("the studio cannot be announced in the local network: %s", why)
            stopping.wait(LOOK_S)


def find(refusal: Callable[[str], str], stopping: threading.Event) -> str:
    """
    Return the address of the first studio that is announced and does not refuse, like http://192.168.1.5:7860; empty:
    it is `stopping`. `refusal` says why one at an address is not meant; empty: it is.
    """
    said: set[str] = set()
    while not stopping.is_set():
        try:
            with Zeroconf(ip_version=IPVersion.V4Only) as network_:
                return _first(network_, refusal, stopping, said)
        except OSError as exc:  # no network yet
            if str(exc) not in said:
                log.warning("this machine cannot look into the local network: %s", exc)
            said.add(str(exc))
            stopping.wait(AGAIN_S)
    return ""


def _first(network_: Zeroconf, refusal: Callable[[str], str], stopping: threading.Event, said: set[str]) -> str:
    heard, due = _Heard(), dict[str, float]()
    ServiceBrowser(network_, TYPE, heard)
    while not stopping.wait(TICK_S):
        for name in sorted(heard.names):
            if due.get(name, 0.0) > time.monotonic():
                continue
            info = network_.get_service_info(TYPE, name, RESOLVE_MS)
            for url in urls_of(info) if info else ():
                if not (why := refusal(url)):
                    return url
                if f"{url}: {why}" not in said:
                    log.warning("a studio is announced at %s: %s", url, why)
                said.add(f"{url}: {why}")
            due[name] = time.monotonic() + AGAIN_S
    return ""


class _Heard(ServiceListener):
    """The names of the studios that are announced."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names |= {name}

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """It is asked again in a while."""

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names -= {name}


def addresses_at(host: str) -> list[IPv4Address]:
    """Return those of this machine at which others reach a server that listens on `host`."""
    mine = sorted({each for each in network.own_addresses() if isinstance(each, IPv4Address) and not each.is_loopback})
    return mine if host in ("", "0.0.0.0", "::") else [each for each in mine if str(each) == host]


def _info(studio: Studio, addresses: list[IPv4Address]) -> ServiceInfo:
    name = socket.gethostname().partition(".")[0] or "studio"
    return ServiceInfo(
        TYPE,
        f"{name}-{studio.port}.{TYPE}",
        port=studio.port,
        properties={"path": studio.path, "https": str(int(studio.https))},
        server=f"{name}-{studio.port}-awportrait.local.",  # the machine's own name, others may announce
        addresses=[address.packed for address in addresses],
    )


def urls_of(info: ServiceInfo) -> list[str]:
    """Return where a studio says that it is, which may be anybody's; an address of this machine's first."""
    properties = {name: value or b"" for name, value in info.properties.items()}
    scheme, path = "https" if properties.get(b"https") == b"1" else "http", properties.get(b"path", b"")
    if not info.port or not PATH.fullmatch(path.decode("latin-1")):
        return []
    own = set(network.own_addresses())
    there = [address for text in info.parsed_addresses(IPVersion.V4Only) if (address := ip_address(text))]
    there.sort(key=lambda address: address not in own)
    return [f"{scheme}://{address}:{info.port}{path.decode()}" for address in there[:MOST_ADDRESSES]]
