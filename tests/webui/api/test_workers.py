"""The door of machines that work for the house: who may come in, and that a job is one machine's at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.jobs.plan import HOME
from engines.messages import Enhance, Final, Generate, Preview, Progress, pack, unpack
from engines.messages.status import Status
from tests.support.server import Rig
from webui.people import WORKER
from webui.people.tokens import Tokens

NAME = "outputs_20260102030405.png"


@contextmanager
def machine(rig: Rig, name: str = "desk") -> Iterator[httpx.Client]:
    """A machine that may come in. Whatever it has is taken back in the end."""
    token = Tokens(rig.settings.state / "tokens.json").add(WORKER + name)
    with httpx.Client(base_url=rig.url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        yield client
        client.post("/workers/leave")
    rig.queue.be_joined({}, {})  # no other test's jobs wait for it
    for job_id, state in rig.jobs().items():
        if state in ("queued", "running"):
            rig.queue.cancel(job_id)
            rig.queue.give({job_id: HOME})


def ordered(rig: Rig, client: httpx.Client, request: Generate | Enhance, name: str = "desk") -> dict[str, Any]:
    """Submit a job and let the machine take it."""
    client.post("/workers/status", content=pack(Status("ready"))).raise_for_status()
    job_id = rig.queue.submit(request)
    rig.queue.give({job_id: name})
    order: dict[str, Any] = client.post("/workers/claim", params={"wait_s": 10}).raise_for_status().json()
    assert order["id"] == job_id
    return order


def at(order: dict[str, Any], what: str) -> str:
    return f"/workers/jobs/{order['id']}/{order['attempt']}/{what}"


def send(client: httpx.Client, order: dict[str, Any], data: bytes, name: str, digest: str = "") -> httpx.Response:
    headers = {"X-SHA256": digest or hashlib.sha256(data).hexdigest()}
    return client.put(at(order, f"pictures/{name}"), content=data, headers=headers)


def say(client: httpx.Client, order: dict[str, Any], *events: Any) -> httpx.Response:
    return client.post(at(order, "events"), json=[pack(event) for event in events])


def test_nobody_comes_in_but_who_has_a_worker_s_token(rig: Rig) -> None:
    program = Tokens(rig.settings.state / "tokens.json").add("desk")
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Bearer {program}"}):
        for path in ("/workers/claim", "/workers/status", "/workers/leave"):
            assert rig.client.post(path, headers=headers).status_code == 401, (path, headers)
    with machine(rig) as client:
        assert client.post("/workers/claim").status_code == 204


def test_a_worker_s_token_opens_nothing_else(rig: Rig) -> None:
    """Not what is open to a guest, nor to a program."""
    with machine(rig) as client:
        assert {client.get(path).status_code for path in ("/jobs", "/v1/models", "/metrics", "/")} == {401}
        assert client.post("/generate", json={"prompt": "p"}).status_code == 401
        assert client.get("/healthz").status_code == 200


def test_an_ended_token_ends_it(rig: Rig) -> None:
    with machine(rig) as client:
        assert Tokens(rig.settings.state / "tokens.json").revoke(WORKER + "desk")
        assert client.post("/workers/claim").status_code == 401


def test_a_job_from_its_taking_to_its_picture(rig: Rig, tmp_path: Path) -> None:
    (photo := tmp_path / "secret place" / "a.jpg").parent.mkdir()
    photo.write_bytes(b"a photo")
    with machine(rig) as client:
        order = ordered(rig, client, Enhance(str(photo)))
        assert unpack(order["request"]) == Enhance("photo"), "no path of this machine leaves it"
        assert "secret place" not in json.dumps(order) and order["photo_name"] == "a.jpg"
        assert client.get(at(order, "photo")).content == b"a photo"
        assert (order["photo_bytes"], order["photo_sha256"]) == (7, hashlib.sha256(b"a photo").hexdigest())
        preview = f"preview_{'a' * 32}.webp"
        assert send(client, order, b"small", preview).json() == {"name": preview}
        assert say(client, order, Progress("denoise", 1, 2), Preview(1, preview)).json() == {"goes_on": True}
        name = send(client, order, b"large", NAME).json()["name"]
        final = Final((name,), 7, 1.5, "ort", "why")
        say(client, order, final)
    assert rig.queue.job(order["id"]).state == "done" and rig.queue.latest(order["id"]) == final
    assert (rig.queue.folder / name).read_bytes() == b"large"
    assert not rig.queue.arriving


def test_a_picture_that_is_called_as_another_gets_a_name_of_its_own(rig: Rig) -> None:
    (rig.queue.folder / NAME).write_bytes(b"mine")
    with machine(rig) as client:
        order = ordered(rig, client, Generate("p"))
        names = [send(client, order, data, NAME).json()["name"] for data in (b"1", b"2")]
        assert names == ["outputs_20260102030405_001.png", "outputs_20260102030405_002.png"]
        latents = "outputs_20260102030405_001.negative.npz"
        assert send(client, order, b"latents", latents).json()["name"] == latents
    assert (rig.queue.folder / NAME).read_bytes() == b"mine"
    assert not (rig.queue.folder / names[0]).exists(), "of a job that was taken back"


@pytest.mark.parametrize(
    "name",
    ["a.png", "..%2F..%2Fjobs.db", ".hidden.png", "outputs_1.png", "preview_x.webp", "outputs_20260102030405.exe"],
)
def test_nothing_is_stored_under_another_name(rig: Rig, name: str) -> None:
    before = sorted(rig.queue.folder.iterdir())
    with machine(rig) as client:
        order = ordered(rig, client, Generate("p"))
        assert send(client, order, b"data", name).status_code in (400, 404)
    assert sorted(rig.queue.folder.iterdir()) == before


def test_what_was_changed_on_the_way_is_not_taken(rig: Rig) -> None:
    before = sorted(rig.queue.folder.iterdir())
    with machine(rig) as client:
        order = ordered(rig, client, Generate("p"))
        assert send(client, order, b"data", NAME, digest=hashlib.sha256(b"other").hexdigest()).status_code == 400
        assert client.put(at(order, f"pictures/{NAME}"), content=b"data").status_code == 400
    assert sorted(rig.queue.folder.iterdir()) == before


def test_no_message_says_nothing(rig: Rig) -> None:
    """Its answer would be that the job shall end."""
    with machine(rig) as client:
        assert say(client, ordered(rig, client, Generate("p"))).status_code == 400


def test_a_job_is_one_machine_s_at_a_time(rig: Rig, tmp_path: Path) -> None:
    (photo := tmp_path / "a.jpg").write_bytes(b"a photo")
    with machine(rig) as first, machine(rig, "other") as second:
        order = ordered(rig, first, Enhance(str(photo)))
        for what in ("photo", "snapshot"):
            assert second.get(at(order, what)).status_code == 409
        assert say(second, order, Progress("denoise", 1, 2)).status_code == 409
        assert send(second, order, b"x", NAME).status_code == 409
        assert second.get(at({**order, "id": "0" * 32}, "photo")).status_code == 404
        first.post("/workers/leave")
        rig.queue.give({order["id"]: "other"})
        again = second.post("/workers/claim").raise_for_status().json()
        assert (again["id"], again["attempt"]) == (order["id"], order["attempt"] + 1)
        for answer in (say(first, order, Progress("denoise", 2, 2)), send(first, order, b"x", NAME)):
            assert answer.status_code == 409 and answer.json()["code"] == "job_moved"
        assert first.get(at(order, "photo")).status_code == 409, "the photo is no longer its business"
        assert second.get(at(again, "photo")).status_code == 200


def test_another_goes_on_from_the_snapshot(rig: Rig) -> None:
    with machine(rig) as first, machine(rig, "other") as second:
        order = ordered(rig, first, Generate("p", count=2))
        assert not order["has_snapshot"] and order["pictures"] == []
        name = send(first, order, b"the first", NAME).json()["name"]
        say(first, order, Preview(8, name, kind="result"))
        assert first.put(at(order, "snapshot"), params={"picture": [name]}, content=b"latents").status_code == 200
        first.post("/workers/leave")
        rig.queue.give({order["id"]: "other"})
        again = second.post("/workers/claim").raise_for_status().json()
        assert again["has_snapshot"] and again["pictures"] == [name]
        assert second.get(at(again, "snapshot")).content == b"latents"
        assert second.get(at(again, f"pictures/{name}")).content == b"the first"
        assert second.get(at(again, "pictures/outputs_20200101000000.png")).status_code == 404
        assert second.get(at(again, "pictures/..%2F..%2Fstate%2Fsecret")).status_code == 404


def test_the_heartbeat_says_what_shall_end(rig: Rig) -> None:
    with machine(rig) as client:
        order = ordered(rig, client, Generate("p"))
        rig.queue.cancel(order["id"])
        beat = client.post("/workers/status", content=pack(Status("ready"))).json()
        assert beat == {"name": "desk", "calls": False, "cancelled": [order["id"]]}
        assert say(client, order, Progress("denoise", 1, 2)).json() == {"goes_on": False}


def test_a_job_whose_photo_is_gone_ends(rig: Rig, tmp_path: Path) -> None:
    with machine(rig) as client:
        client.post("/workers/status", content=pack(Status("ready")))
        job_id = rig.queue.submit(Enhance(str(tmp_path / "gone.jpg")))
        rig.queue.give({job_id: "desk"})
        assert client.post("/workers/claim").status_code == 204
    assert rig.queue.job(job_id).state == "failed"


@pytest.mark.parametrize("body", [b"", b"{}", b"no JSON", b"\xff", pack(Generate("p")).encode()])
def test_what_is_no_status_is_refused(rig: Rig, body: bytes) -> None:
    with machine(rig) as client:
        assert client.post("/workers/status", content=body).status_code == 400


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'["x"]', json.dumps([pack(Generate("p"))]).encode()])
def test_what_are_no_events_is_refused(rig: Rig, body: bytes) -> None:
    with machine(rig) as client:
        order = ordered(rig, client, Generate("p"))
        assert client.post(at(order, "events"), content=body).status_code == 400
        assert rig.queue.job(order["id"]).state == "running"


def test_a_machine_shows_no_pictures_of_others(rig: Rig) -> None:
    theirs = "outputs_20250102030405.png"
    (rig.queue.folder / theirs).write_bytes(b"somebody's")
    with machine(rig) as client:
        order = ordered(rig, client, Generate("p"))
        for event in (Preview(1, theirs), Final((theirs,), 1, 1.0, "ort")):
            assert say(client, order, event).status_code == 400
        assert rig.queue.job(order["id"]).state == "running"


def test_nobody_waits_longer_than_a_proxy_does(rig: Rig) -> None:
    with machine(rig) as client:
        status = replace(Status("ready"), detail="here")
        client.post("/workers/status", content=pack(status))
        assert client.post("/workers/claim", params={"wait_s": -5}).status_code == 204
        assert client.post("/workers/claim", params={"wait_s": "x"}).status_code in (400, 422)
