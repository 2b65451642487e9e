"""This machine in its network: its addresses, and how it wakes another (Wake-on-LAN), and may be woken by one."""

from __future__ import annotations

import socket
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address

import psutil

WAKE_PORT = 9  # "discard": no program heeds it, the network card does
EVERYBODY = "255.255.255.255"


def own_addresses() -> list[IPv4Address | IPv6Address]:
    """Return the addresses of this machine, of all its interfaces."""
    addresses = []
    for entry in (entry for entries in psutil.net_if_addrs().values() for entry in entries):
        try:
            addresses.append(ip_address(entry.address.partition("%")[0]))  # fe80::1%eth0
        except ValueError:
            continue  # it is of the hardware
    return addresses


def hardware_address(towards: str, port: int) -> str:
    """
    Return that of the network card by which this machine reaches a host, like 02:00:5e:10:00:0f; empty: it has none, as
    that host is this machine, or nobody knows. Sends nothing.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(towards, port, type=socket.SOCK_DGRAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.connect(where)
            own = probe.getsockname()[0]
    except OSError:
        return ""
    for entries in psutil.net_if_addrs().values():
        if own in (entry.address.partition("%")[0] for entry in entries):
            cards = [entry.address.lower() for entry in entries if entry.family == psutil.AF_LINK]
            return next((card for card in cards if card.strip("0:")), "")
    return ""


def wake(address: str, port: int = WAKE_PORT) -> None:
    """
    Send the packet for which a sleeping machine's card waits, if its settings let it, to all networks of this one: six
    bytes of ones, and sixteen times its hardware address. OSError: none of them takes it.
    """
    packet = b"\xff" * 6 + bytes.fromhex(address.replace(":", "")) * 16
    entries = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    refusals, targets = [], {entry.broadcast for entry in entries if entry.broadcast and ":" not in entry.broadcast}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for target in sorted({EVERYBODY, *targets}):
            try:
                sender.sendto(packet, (target, port))
            except OSError as exc:
                refusals.append(exc)
    if len(refusals) == len({EVERYBODY, *targets}):
        raise refusals[0]
