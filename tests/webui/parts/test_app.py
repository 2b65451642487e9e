"""The doors of a machine that lends parts: closed without the token, and open no wider than a part needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from starlette.types import Message

from engines import backends
from engines.backends import array_format
from engines.backends.arrangement import Arrangement
from engines.backends.lenders import Wanted
from engines.backends.verdicts import Verdicts
from engines.bundle import Shelf
from engines.errors import EngineError
from engines.worker.lender import Lender
from tests.support.lenders import TOKEN
from webui.parts import app

LATENTS = np.zeros((1, 16, 16, 16), np.float32)


@pytest.fixture
def lender(builtin: Path, tmp_path: Path) -> Lender:
    return Lender(Shelf((builtin,)), Verdicts(tmp_path), "desk")


@pytest.fixture
def client(lender: Lender) -> Iterator[TestClient]:
    with TestClient(app.build(lender, TOKEN), headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def opened(client: TestClient, builtin: Path) -> str:
    """Where a part runs that is open."""
    bundle, ort = Shelf((builtin,)).open("portrait"), backends.engine("ort")
    way = Arrangement(tuple((bundle.part(role, ort.formats), ort) for role in sorted(bundle.roles)))
    answer = client.post("/parts/open", json=asdict(Wanted.of(bundle, way, "preview_decoder")))
    assert answer.status_code == 200
    return f"/parts/{answer.json()['id']}/run"


def test_it_opens_and_runs(client: TestClient, opened: str, builtin: Path) -> None:
    answer = client.post(opened, content=array_format.pack({"latents": LATENTS}))
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    result = array_format.unpack_result("preview_decoder", Shelf((builtin,)).open("portrait"), answer.content)
    assert result["image"].shape == (1, 3, 256, 256)


@pytest.mark.parametrize("header", ["", "Bearer", f"bearer {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "é"])
def test_without_the_token_nothing_is_read(header: str, client: TestClient, opened: str) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        pytest.fail("nobody asked for more")

    headers = {"Authorization": header.encode()}
    for path in (opened, "/parts/open"):
        answer = client.post(path, content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_needed")
        assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/docs", 404), ("GET", "/openapi.json", 404), ("GET", "/parts/open", 405),
        ("POST", "/parts/x/run", 404), ("POST", "/parts/../open", 404), ("DELETE", "/parts/x/run", 405),
    ],
)  # fmt: skip
def test_there_are_no_other_doors(method: str, path: str, status: int, client: TestClient) -> None:
    assert client.request(method, path).status_code == status


def test_a_body_is_no_longer_than_the_part_can_be_fed(client: TestClient, opened: str, lender: Lender) -> None:
    limit = lender.limit(opened.split("/")[2])
    longest = client.post(opened, content=bytes(limit))
    assert (longest.status_code, longest.json()["code"]) == (400, "bad_request"), "it was read, and is no array"
    assert client.post(opened, content=bytes(limit + 1)).status_code == 413
    assert client.post("/parts/open", content=b" " * app.QUESTION_BYTES).status_code == 400
    assert client.post("/parts/open", content=b" " * (app.QUESTION_BYTES + 1)).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.05)

    async def receive() -> Message:
        if sent:
            await asyncio.Event().wait()
        sent.append(True)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent: list[bool] = []
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(app._body(Request({"type": "http", "headers": []}, receive), 1000))
    assert refusal.value.status_code == 408 and sent


def test_garbage_is_refused_and_the_next_one_is_served(client: TestClient, opened: str) -> None:
    good = array_format.pack({"latents": LATENTS})
    for garbage in (b"", b"{}", good[:-4], good + b"\x00", array_format.pack({"image": np.zeros((1, 3, 8, 8), "f4")})):
        answer = client.post(opened, content=garbage)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert client.post(opened, content=good).status_code == 200


def test_errors_say_nothing_of_this_machine(
    client: TestClient, opened: str, lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(part_id: str, body: bytes) -> bytes:
        raise EngineError("ort: /secret/place/model.onnx: line 42", engine="ort")

    monkeypatch.setattr(lender, "run", fail)
    answer = client.post(opened, content=b"x")
    assert (answer.status_code, answer.json()["code"], answer.json()["facts"]) == (
        500,
        "engine_failed",
        {"engine": "ort"},
    )
    assert "secret" not in answer.text and json.loads(answer.text)["status"] == "error"
