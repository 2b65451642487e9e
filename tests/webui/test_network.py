"""This machine in its network: its addresses, the packet that wakes another, and the card by which it may be woken."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address
from typing import NamedTuple

import psutil
import pytest

from webui import network

ADDRESS = "02:00:5e:10:00:0f"


class Entry(NamedTuple):
    """Of psutil.net_if_addrs."""

    family: int
    address: str
    broadcast: str | None = None


def outward() -> str:
    """The name of an interface that leads out of this machine, with an address; empty: there is none."""
    for name, entries in psutil.net_if_addrs().items():
        own = [entry.address for entry in entries if entry.family == socket.AF_INET]
        if own and not ip_address(own[0]).is_loopback and psutil.net_if_stats()[name].isup:
            return name
    return ""


def test_this_machine_has_addresses() -> None:
    assert IPv4Address("127.0.0.1") in network.own_addresses()


def test_the_packet_for_which_a_card_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six bytes of ones and sixteen times its address, as AMD's "Magic Packet Technology" has it, in one datagram."""
    monkeypatch.setattr(network, "EVERYBODY", "127.0.0.1")
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.bind(("127.0.0.1", 0))
        card.settimeout(10)
        network.wake(ADDRESS, card.getsockname()[1])
        packet = card.recv(2000)
    assert packet == bytes.fromhex("ffffffffffff" + "02005e10000f" * 16)


@pytest.mark.skipif(not outward(), reason="this machine is in no network")
def test_it_goes_to_everybody_in_the_network() -> None:
    """Whoever listens there hears it: a broadcast comes back to this machine too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.bind(("", 0))
        card.settimeout(10)
        network.wake(ADDRESS, card.getsockname()[1])
        packet, (sender, _) = card.recvfrom(2000)
    assert len(packet) == 102 and ip_address(sender) in network.own_addresses()


def test_one_network_that_refuses_keeps_none_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "EVERYBODY", "127.0.0.1")
    entry = Entry(socket.AF_INET, "10.0.0.8", "no address")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [entry]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.bind(("127.0.0.1", 0))
        card.settimeout(10)
        network.wake(ADDRESS, card.getsockname()[1])
        assert card.recv(2000)
    monkeypatch.setattr(network, "EVERYBODY", "nor this")
    with pytest.raises(OSError):
        network.wake(ADDRESS)


def test_this_machine_itself_needs_nobody_to_wake_it() -> None:
    assert network.hardware_address("127.0.0.1", 7860) == ""
    assert network.hardware_address("no such host.invalid", 7860) == ""


def test_the_card_by_which_it_reaches_the_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    def card(address: str, hardware: str) -> list[Entry]:
        return [Entry(socket.AF_INET, address), Entry(psutil.AF_LINK, hardware)]

    cards = {"eth1": card("10.0.0.9", "02:00:00:00:00:01"), "eth0": card("127.0.0.1", ADDRESS.upper())}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: cards)
    assert network.hardware_address("127.0.0.1", 7860) == ADDRESS
