"""Before a machine sends its token to a studio that says that it is there, that shows that it has made it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.false_studio import false_studio
from webui.people import WORKER, proof
from webui.people.tokens import Tokens

if TYPE_CHECKING:
    from tests.support.server import Rig

NONCE = "0f" * 16


@pytest.fixture
def token(rig: Rig) -> Iterator[str]:
    tokens = Tokens(rig.settings.state / "tokens.json")
    yield tokens.add(WORKER + "desk")
    tokens.revoke(WORKER + "desk")


def test_the_studio_of_the_token_shows_it(rig: Rig, token: str) -> None:
    assert proof.refusal(rig.url, token) == ""
    assert proof.refusal(rig.url, "awp_another") == "it has not made this machine's token"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 200),
        (b'{"proof":"' + b"0" * 64 + b'"}', 200),
        (b'{"proof":""}', 200),
        (b"x" * 100_000, 200),
        (b"<html>", 404),
        (b"", 307),
        (b"\xff\xfe", 200),
    ],
)
def test_anybody_else_does_not_and_learns_no_token(answer: bytes, status: int, token: str) -> None:
    with false_studio(answer, status) as (url, sent):
        assert proof.refusal(url, token) == "it has not made this machine's token"
    assert len(sent) == 1 and token not in sent[0] and proof.checksum(token) not in sent[0]
    assert "authorization" not in sent[0].lower() and "cookie" not in sent[0].lower()


def test_who_passes_the_question_on_has_an_answer_for_another_address(rig: Rig, token: str) -> None:
    with false_studio(asks=rig.url) as (url, sent):
        assert proof.refusal(url, token) == "it has not made this machine's token"
    assert sent


def test_who_does_not_answer(token: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert proof.refusal(f"http://127.0.0.1:{port}", token).startswith("it cannot be asked: ")


def test_strangers_are_told_nothing(rig: Rig, token: str) -> None:
    mark = proof.mark(proof.checksum(token))
    for asked in (
        {"mark": "0" * 32, "nonce": NONCE},
        {"mark": mark, "nonce": "0f"},
        {"mark": mark, "nonce": "x" * 32},
        {"mark": mark, "nonce": NONCE + "\n"},
        {"mark": proof.checksum(token), "nonce": NONCE},
    ):
        assert httpx.post(rig.url + proof.PATH, params=asked).status_code == 404
    assert httpx.get(rig.url + proof.PATH, params={"mark": mark, "nonce": NONCE}).status_code == 405
    first, second = (
        httpx.post(rig.url + proof.PATH, params={"mark": mark, "nonce": nonce}).json()["proof"]
        for nonce in (NONCE, "f0" * 16)
    )
    assert first != second and mark not in (proof.checksum(token), token)


def test_one_socket_may_serve_both_kinds_of_addresses() -> None:
    assert proof.make("c", NONCE, "::ffff:10.0.0.8", 7860) == proof.make("c", NONCE, "10.0.0.8", 7860)
    others = [("10.0.0.8", 7861), ("10.0.0.9", 7860), ("fe80::1%eth0", 7860)]
    assert len({proof.make("c", NONCE, *other) for other in others} | {proof.make("c", NONCE, "10.0.0.8", 7860)}) == 4
