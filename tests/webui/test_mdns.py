"""The studio in the local network: what is announced, what is found, and that strangers announce nothing that works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from webui import mdns, network
from webui.mdns import TYPE, Studio, urls_of

OWN = IPv4Address("10.0.0.8")
outside = pytest.mark.skipif(not mdns.addresses_at("0.0.0.0"), reason="this machine is in no network")


def info(path: bytes = b"", https: bytes = b"0", addresses: tuple[str, ...] = ("10.0.0.7",), port: int = 7860) -> Any:
    packed = [IPv4Address(address).packed for address in addresses]
    return ServiceInfo(TYPE, f"a.{TYPE}", port=port, properties={"path": path, "https": https}, addresses=packed)


@contextmanager
def running(act: Callable[[threading.Event], object]) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=act, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()


def test_where_a_studio_says_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "own_addresses", lambda: [OWN])
    assert urls_of(info()) == ["http://10.0.0.7:7860"]
    assert urls_of(info(b"/studio", b"1")) == ["https://10.0.0.7:7860/studio"]
    assert urls_of(info(addresses=("10.0.0.7", str(OWN)))) == ["http://10.0.0.8:7860", "http://10.0.0.7:7860"]
    assert len(urls_of(info(addresses=tuple(f"10.0.1.{k}" for k in range(100))))) == mdns.MOST_ADDRESSES


@pytest.mark.parametrize(
    "path", [b"@evil.example", b"/a@evil.example", b"?x=", b"/a b", b"\xff", b"/x\r\nHost: y", b"//evil?", b"/"]
)
def test_a_stranger_leads_nobody_elsewhere(path: bytes) -> None:
    """What begins as the address of a host may end as that of another."""
    assert urls_of(info(path)) == []
    assert urls_of(info(port=0)) == []


def test_it_is_announced_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [IPv4Address("127.0.0.1"), OWN, IPv4Address("192.168.1.5")]
    monkeypatch.setattr(network, "own_addresses", lambda: here)
    assert mdns.addresses_at("0.0.0.0") == mdns.addresses_at("::") == here[1:]
    assert mdns.addresses_at("192.168.1.5") == here[2:]
    assert mdns.addresses_at("10.9.9.9") == []


@outside
@pytest.mark.timeout(120)
def test_what_is_announced_is_found_and_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(54321, "/studio")
    asked: list[str] = []

    def refusal(url: str) -> str:
        asked.append(url)
        return "" if ":54321/studio" in url else "not ours"

    with Zeroconf(ip_version=IPVersion.V4Only) as stranger:
        stranger.register_service(
            ServiceInfo(TYPE, f"stranger.{TYPE}", port=9, properties={}, addresses=[IPv4Address("10.0.0.9").packed])
        )
        with running(lambda stopping: mdns.announce(studio, "0.0.0.0", stopping)):
            url = mdns.find(refusal, threading.Event())
    own = [f"http://{address}:54321/studio" for address in mdns.addresses_at("0.0.0.0")]
    assert url in own and asked[-1] == url
    assert set(asked) <= {"http://10.0.0.9:9", *own}


@outside
@pytest.mark.timeout(120)
def test_one_that_was_not_ours_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been starting, or its owner has made the token since; what is said of it is said once."""
    monkeypatch.setattr(mdns, "AGAIN_S", 0.0)
    asked: list[str] = []

    def refusal(url: str) -> str:
        asked.append(url)
        return "" if len(asked) > 20 else "not ours"

    with running(lambda stopping: mdns.announce(Studio(54322), "0.0.0.0", stopping)):
        with caplog.at_level(logging.WARNING, logger="webui.mdns"):
            assert mdns.find(refusal, threading.Event()) in asked
    said = [record.getMessage() for record in caplog.records if ":54322" in record.getMessage()]
    assert len(said) == len(set(said)) <= len(mdns.addresses_at("0.0.0.0"))


@outside
def test_whoever_looks_can_be_stopped() -> None:
    stopping = threading.Event()
    threading.Timer(1.0, stopping.set).start()
    assert mdns.find(lambda url: "never", stopping) == ""


def test_without_a_network_it_is_said_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    tries: list[object] = []
    stopping = threading.Event()

    def none(**_: object) -> None:
        tries.append(None)
        if len(tries) == 3:
            stopping.set()
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(mdns, "Zeroconf", none)
    monkeypatch.setattr(mdns, "AGAIN_S", 0.0)
    monkeypatch.setattr(mdns, "LOOK_S", 0.0)
    with caplog.at_level(logging.WARNING, logger="webui.mdns"):
        assert mdns.find(lambda url: "", stopping) == ""
        stopping.clear()
        tries.clear()
        mdns.announce(Studio(7860), "0.0.0.0", stopping)
    assert len(caplog.records) == 2
