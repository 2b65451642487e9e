"""Requests to other machines: where they may go, and what they make of servers that are slow, broken or hostile."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.site import Site, served
from webui import certificates, outgoing
from webui.outgoing import Resource, Unanswered, is_public

PLENTY, SOON_S = 1_000_000, 20.0


@pytest.fixture
def site() -> Iterator[Site]:
    with served(Site()) as opened:
        yield opened


@pytest.fixture
def other() -> Iterator[Site]:
    with served(Site()) as opened:
        yield opened


def fetched(url: str, own: str, folder: Path, most_bytes: int = PLENTY, within_s: float = SOON_S) -> bytes:
    outgoing.download(Resource(url, own, {"x-api-key": "secret"}), folder / "file", most_bytes, within_s)
    return (folder / "file").read_bytes()


def test_what_lies_on_the_owners_server_is_fetched(site: Site, tmp_path: Path) -> None:
    assert fetched(site.put("/a.jpg?x=1&y=%20", b"picture"), site.url, tmp_path) == b"picture"
    (path, headers), = site.asked  # fmt: skip
    assert path == "/a.jpg?x=1&y=%20" and headers["host"] == site.url.removeprefix("http://")
    assert headers["x-api-key"] == "secret" and headers["accept-encoding"] == "identity"


def test_an_address_in_plain_text_is_quoted(site: Site, tmp_path: Path) -> None:
    site.put("/%E7%85%A7%20%E7%89%87.jpg", b"picture")
    assert fetched(site.url + "/照 片.jpg", site.url, tmp_path) == b"picture"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_it_is_led_on_by_its_own_server_alone(site: Site, other: Site, tmp_path: Path, status: int) -> None:
    site.put("/b.jpg", b"picture")
    first = site.put("/a.jpg", b"", status=status, headers={"Location": "b.jpg"})
    assert fetched(first, site.url, tmp_path) == b"picture"
    away = site.put("/away.jpg", b"", status=status, headers={"Location": other.put("/c.jpg", b"other")})
    with pytest.raises(Unanswered, match="leads to another server"):
        fetched(away, site.url, tmp_path)
    round_and_round = site.put("/x", b"", status=status, headers={"Location": "/x"})
    with pytest.raises(Unanswered, match="from one address to the next"):
        fetched(round_and_round, site.url, tmp_path)
    assert other.asked == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", "//user@x/", "ftp://x/"])
def test_it_is_led_nowhere_strange(site: Site, tmp_path: Path, location: str) -> None:
    with pytest.raises(Unanswered, match="leads to another server"):
        fetched(site.put("/a", b"", status=302, headers={"Location": location}), site.url, tmp_path)


def test_another_server_is_asked_by_https_alone(site: Site, other: Site, tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="not by https"):
        fetched(other.put("/a.jpg", b"other"), site.url, tmp_path)
    with pytest.raises(Unanswered, match="not a public address"):
        fetched(other.url.replace("http:", "https:") + "/a.jpg", site.url, tmp_path)
    assert other.asked == []


def test_a_name_is_looked_up_as_the_connection_is_made(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: what was public a moment ago is this machine now."""
    port = int(site.url.rpartition(":")[2])
    real, looked_up = socket.getaddrinfo, []

    def rebound(host: str, *arguments: object, **more: object) -> object:
        looked_up.append(host)
        return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    connections: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: connections.append(address))
    with pytest.raises(Unanswered, match="not a public address"):
        fetched("https://pictures.example/a.jpg", "https://feeds.example/list", tmp_path)
    assert looked_up == ["pictures.example"] and connections == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.5", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "100.100.100.200", "168.63.129.16", "::1", "::", "fe80::1", "fd00:ec2::254", "fc00::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
     "ff02::1", "2001:db8::1"],
)  # fmt: skip
def test_what_is_no_public_address(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101"])
def test_what_is_a_public_address(address: str) -> None:
    assert is_public(ip_address(address))


def test_what_is_too_large_is_not_fetched(site: Site, tmp_path: Path) -> None:
    assert fetched(site.put("/just", bytes(1000)), site.url, tmp_path, 1000) == bytes(1000)
    with pytest.raises(Unanswered, match="too large"):
        fetched(site.put("/more", bytes(1001)), site.url, tmp_path, 1000)
    with pytest.raises(Unanswered, match="too large"):  # it does not say how much is to come
        fetched(site.put("/endless", b"", chunk=bytes(4096)), site.url, tmp_path, 100_000)
    assert (tmp_path / "file").stat().st_size <= 100_000


def test_what_breaks_off_is_not_taken_for_whole(site: Site, tmp_path: Path) -> None:
    cut = site.put("/cut", b"half", headers={"Content-Length": "8", "Connection": "close"})
    with pytest.raises(Unanswered, match="breaks off"):
        fetched(cut, site.url, tmp_path)


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(site: Site, tmp_path: Path) -> None:
    gate = threading.Event()
    slow = site.put("/slow", b"", gate=gate)
    with pytest.raises(Unanswered):
        fetched(slow, site.url, tmp_path, within_s=0.3)
    gate.set()


def test_one_that_drips_is_hung_up_on(tmp_path: Path) -> None:
    """Each byte comes in time, the whole never."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            peer, _ = listening.accept()
            with peer:
                try:
                    while not over.wait(0.02):
                        peer.sendall(b"H")
                except OSError:
                    over.set()

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(Unanswered):
            fetched(url, url, tmp_path, within_s=0.3)
        assert over.wait(20)


def test_nobody_is_there(tmp_path: Path) -> None:
    with served(Site()) as gone:
        url = gone.url
    with pytest.raises(Unanswered) as refusal:
        fetched(url + "/a?token=abc", url, tmp_path)
    assert refusal.value.status == 0 and "abc" not in str(refusal.value)


def test_a_refusal_has_its_status(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Unanswered) as refusal:
        fetched(site.put("/a", b"no", status=403), site.url, tmp_path)
    assert refusal.value.status == 403


@pytest.mark.parametrize("body", [b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_none(site: Site, body: bytes) -> None:
    with pytest.raises(Unanswered, match="no JSON"):
        outgoing.asked(Resource(site.put("/a", body), site.url))


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signed = certificates.prepare(tmp_path, [], [ip_address("127.0.0.1")], datetime.now(UTC))
    context.load_cert_chain(signed.server, signed.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, pytest.raises(OSError):
                context.wrap_socket(peer, server_side=True)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(Unanswered, match="no secure connection"):
            fetched(url, url, tmp_path)
        serving.join(20)


def test_who_hangs_up_at_once_does_not_answer(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(*_: object) -> socket.socket:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(outgoing, "_dialled", reset)
    with pytest.raises(Unanswered, match="reset"):
        fetched(site.put("/a", b"a"), site.url, tmp_path)
