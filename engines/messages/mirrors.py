"""
Addresses of hubs that a page may name for the worker to ask: on the internet by https, on one's own network by http
too. Never this machine itself, nor what only its own wire knows, where clouds keep their secrets.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from engines.errors import OptionError

IpAddress = IPv4Address | IPv6Address
WANTED = "an address that begins with https://, or with http:// on a private network"
ELSEWHERE = "an address that is not this machine itself"
# Where the machines of clouds are told their secrets, and which are not link-local: Alibaba, AWS, Azure, Oracle.
METADATA = {ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "168.63.129.16", "192.0.0.192")}
PRIVATE_NAMES = re.compile(r"[a-z0-9_-]+|.+\.(local|lan|home|internal|home\.arpa)", re.I)


def check_mirror(field: str, text: str) -> None:
    """OptionError: this is no address that the worker may be made to ask. Empty is none, and fine."""
    if not text:
        return
    try:
        address = urlsplit(text)
        plain = bool(address.hostname) and address.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        plain = False
    if not plain or not _is_plain(text, address):
        raise OptionError(field, text, WANTED)
    host = str(address.hostname)
    ip = _ip(host)
    if ip is None and re.search(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$", host):  # an IPv4 address in another writing
        raise OptionError(field, text, WANTED)
    if forbidden(ip) if ip else re.fullmatch(r"(.+\.)?localhost\.?", host):
        raise OptionError(field, text, ELSEWHERE)
    if address.scheme == "http" and (ip.is_global if ip else not PRIVATE_NAMES.fullmatch(host)):
        raise OptionError(field, text, WANTED)


def _is_plain(text: str, address: SplitResult) -> bool:
    """Tell whether there is nothing in it but scheme, host, port and path: a password would be shown to everybody."""
    rest = "@" in address.netloc or "?" in text or "#" in text or "\\" in text or ".." in address.path
    return address.scheme in ("http", "https") and not rest and bool(re.fullmatch(r"[!-~]+", text))


def forbidden(ip: IpAddress) -> bool:
    """Tell whether the worker must not connect there for a page."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    ip = mapped or ip
    own = ip.is_loopback or ip.is_link_local or ip.is_unspecified
    return own or ip.is_multicast or ip.is_reserved or ip in METADATA


def _ip(host: str) -> IpAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
