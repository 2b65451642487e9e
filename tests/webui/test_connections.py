"""Between the socket and the guard: who says nothing is hung up on, and only proxies of the house are believed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from webui import connections
from webui.connections import BELIEVED, RELAYED, DeadlineProtocol, Forwarded

HEAD_S = 0.3
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that takes longer than anybody may take to ask."""
    if scope["type"] == "http":
        await asyncio.sleep(3 * HEAD_S)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})


@dataclass(frozen=True)
class Listening:
    address: tuple[str, int]
    server: uvicorn.Server


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    """A server that waits for HEAD_S."""
    monkeypatch.setattr(connections, "HEAD_S", HEAD_S)
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(slow, http=DeadlineProtocol, log_level="error", lifespan="off", timeout_keep_alive=60)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        yield Listening(door.getsockname(), server)
        server.should_exit = True
        thread.join()


@pytest.fixture
def address(listening: Listening) -> tuple[str, int]:
    return listening.address


def hung_up(client: socket.socket) -> bool:
    """Whether the server has hung up, soon."""
    client.settimeout(30)
    return client.recv(1000) == b""


def answer(client: socket.socket) -> bytes:
    client.settimeout(30)
    data = b""
    while not data.endswith(b"done"):
        piece = client.recv(1000)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("said", [b"", b"GET / HT", HEAD], ids=["nothing", "half a line", "half a head"])
def test_who_does_not_say_what_he_wants_is_hung_up_on(address: tuple[str, int], said: bytes) -> None:
    with socket.create_connection(address) as client:
        client.sendall(said)
        assert hung_up(client)


def test_who_says_it_slowly_is_hung_up_on_too(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client, pytest.raises(OSError):
        for letter in HEAD * 100:
            client.sendall(bytes([letter]))
            time.sleep(HEAD_S / 10)


def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(listening: Listening) -> None:
    """Which clients delay by 40 ms: pages, streams and machines at the workers' door were that much slower."""
    with socket.create_connection(listening.address) as client:
        client.sendall(HEAD + b"\r\n")
        assert answer(client)
        (protocol,) = listening.server.server_state.connections
        own = protocol.transport.get_extra_info("socket")
        assert own.getpeername() == client.getsockname()
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_answer_may_take_its_time_and_the_next_question_as_well(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        for _ in range(2):
            client.sendall(HEAD + b"\r\n")
            assert answer(client).startswith(b"HTTP/1.1 200")
            time.sleep(2 * HEAD_S)  # nobody who was answered has to ask again at once


def test_half_a_second_question_is_not_waited_for(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        client.sendall(HEAD + b"\r\n")
        answer(client)
        client.sendall(HEAD)
        assert hung_up(client)


CLAIMED = (
    (b"host", b"upstream"), (b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"studio.example, other"), (b"forwarded", b"for=1.2.3.4"), (b"x-real-ip", b"1.2.3.4"),
    (b"accept", b"*/*"),
)  # fmt: skip


def arrives(proxies: tuple[str, ...], peer: str, claimed: tuple[tuple[bytes, bytes], ...] = CLAIMED) -> dict[str, Any]:
    """What an application is told of a request from this address."""
    arrived: dict[str, Any] = {}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.update(scope)

    scope = {"type": "http", "scheme": "http", "client": (peer, 5000), "headers": list(claimed)}
    asyncio.run(Forwarded(application, proxies)(scope, None, None))  # type: ignore[arg-type]
    return arrived


OTHERS: tuple[tuple[tuple[str, ...], str], ...] = (((), "127.0.0.1"), (("10.0.0.1",), "10.0.0.2"))


@pytest.mark.parametrize(("proxies", "peer"), [*OTHERS, (("10.0.0.0/8",), "::1")])
def test_nobody_else_is_believed(proxies: tuple[str, ...], peer: str) -> None:
    scope = arrives(proxies, peer)
    assert (scope["client"], scope["scheme"]) == ((peer, 5000), "http")
    assert scope["headers"] == [(b"host", b"upstream"), (b"accept", b"*/*")]
    assert scope[RELAYED] and BELIEVED not in scope


@pytest.mark.parametrize(("proxies", "peer"), [(("127.0.0.1",), "127.0.0.1"), (("::1", "10.0.0.0/8"), "10.9.8.7")])
def test_a_proxy_of_the_house_is_believed(proxies: tuple[str, ...], peer: str) -> None:
    scope = arrives(proxies, peer)
    assert scope["client"][0] == "203.0.113.9" and scope["scheme"] == "https"
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"studio.example"]
    assert scope[RELAYED] and scope[BELIEVED]


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        (b"studio.lan", b"8443", b"studio.lan:8443"),
        (b"[fd00::1]", b"8443", b"[fd00::1]:8443"),
        (b"studio.lan:7000", b"8443", b"studio.lan:7000"),
        (b"studio.lan", b"443", b"studio.lan"),
        (b"studio.lan", b"80", b"studio.lan"),
        (b"studio.lan", b"", b"studio.lan"),
        (b"studio.lan", b"8443/x", b"studio.lan"),
    ],
)
def test_a_proxy_may_say_its_port_apart(host: bytes, port: bytes, name: bytes) -> None:
    scope = arrives(("127.0.0.1",), "127.0.0.1", ((b"host", host), (b"x-forwarded-port", port)))
    assert [value for key, value in scope["headers"] if key == b"host"] == [name]
    others = arrives((), "127.0.0.1", ((b"host", host), (b"x-forwarded-port", port)))
    assert others["headers"] == [(b"host", host)]
