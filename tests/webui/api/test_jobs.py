"""A job by its address: taken at once, looked at, followed, cancelled; and what nobody is told by it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.datastructures import Headers

from engines.messages import Enhance, Failed, Fetch, Final, Generate, Inspect, Progress
from tests.support.http import CJK, SKETCH, X_CREDIT, encoded, people, refused, scene
from webui import follow
from webui.api.outcome import goes_on_without
from webui.people.tokens import Tokens

if TYPE_CHECKING:
    from tests.support.server import Rig

ASYNC = {"prefer": "respond-async"}


def taken(rig: Rig, **asked: Any) -> str:
    """The address of a job that was asked for without waiting."""
    answer = rig.client.post("/generate", json={"prompt": "x", **SKETCH, **asked}, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def ended(rig: Rig, address: str, language: str = "en") -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while True:
        answer = rig.client.get(address, headers={"accept-language": language})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        if body["state"] in ("done", "failed", "cancelled"):
            return body
        assert time.monotonic() < deadline, body
        time.sleep(0.02)


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events as a browser reads them, and comments."""
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if not line:
            yield event
            event = {}
        elif not name:
            event["comment"] = value.strip()
        else:
            event[name] = json.loads(value) if name == "data" else value.strip()


def received(rig: Rig, address: str, last_event_id: str | None = None) -> list[dict[str, Any]]:
    headers = {"accept-language": "en"} | ({} if last_event_id is None else {"last-event-id": last_event_id})
    answer = rig.client.get(f"{address}/events", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-credit"] == X_CREDIT
    return list(events(iter(answer.text.splitlines())))


# ---- asking without waiting


def test_a_portrait_is_asked_for_and_fetched_later(rig: Rig) -> None:
    answer = rig.client.post("/generate", json={"prompt": "x", **SKETCH, "seed": 4, "count": 2}, headers=ASYNC)
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    taken = answer.json()
    assert set(taken) == {"id", "state"} and answer.headers["location"] == f"/jobs/{taken['id']}"
    body = ended(rig, answer.headers["location"])
    assert (body["id"], body["kind"], body["state"]) == (taken["id"], "generate", "done")
    now = rig.client.post("/generate", json={"prompt": "x", **SKETCH, "seed": 4, "count": 2}).json()
    assert set(body["result"]) == set(now) - {"image_base64"}
    assert body["result"]["seed"] == 4 and len(body["result"]["images"]) == 2
    contents = [[rig.client.get(path).content for path in result["images"]] for result in (body["result"], now)]
    assert contents[0] and all(content.startswith(b"\x89PNG") for content in contents[0] + contents[1])


def test_a_restoration_is_asked_for_and_fetched_later(rig: Rig) -> None:
    files = {"image": ("a.png", encoded(people(), "PNG"))}
    answer = rig.client.post("/enhance", files=files, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    body = ended(rig, answer.headers["location"])
    assert (body["kind"], body["state"]) == ("enhance", "done")
    assert len(body["result"]["faces"]) == 1
    assert rig.client.get(body["result"]["output_path"]).headers["content-type"] == "image/png"


PREFERENCES = (
    (["respond-async"], True), (["Respond-Async"], True), (["respond-async; x=1"], True),
    (["wait=5, respond-async"], True), (["handling=lenient", "respond-async"], True), ([" respond-async "], True),
    ([], False), ([""], False), (["respond-sync"], False), (["x-respond-async"], False), (["respond-async2"], False),
    (['note="a, respond-async, b"'], False), (["wait=respond-async"], False),
)  # fmt: skip


@pytest.mark.parametrize(("lines", "wanted"), PREFERENCES)
def test_a_preference_is_read_as_it_is_written(lines: list[str], wanted: bool) -> None:
    """RFC 7240, section 2."""
    headers = Headers(raw=[(b"prefer", line.encode()) for line in lines])
    assert goes_on_without(headers) is wanted


def test_what_is_refused_is_refused_at_once(rig: Rig) -> None:
    before = rig.jobs()
    answer = rig.client.post("/generate", json={"prompt": "x", "steps": 0}, headers=ASYNC)
    refused(answer, 400, "bad_option")
    assert rig.jobs().keys() == before.keys()


# ---- looking


def test_who_waits_knows_its_place_and_who_runs_how_far_it_is(rig: Rig) -> None:
    rig.settle()
    with rig.stuck():
        running = list(rig.jobs())[-1]
        first, second = taken(rig), taken(rig)
        looks = [rig.client.get(address).json() for address in (first, second)]
        assert [(look["state"], look["position"]) for look in looks] == [("queued", 1), ("queued", 2)]
        assert not any({"result", "error", "progress"} & set(look) for look in looks)
        deadline = time.monotonic() + 60
        while (look := rig.client.get(f"/jobs/{running}").json()).get("progress", {}).get("stage") != "encode":
            assert time.monotonic() < deadline, look
            time.sleep(0.02)
        assert look["state"] == "running" and "position" not in look
        assert set(look["progress"]) == {"stage", "step", "total", "eta_s", "picture", "pictures"}
        assert look["progress"]["total"] == 2


def test_a_job_that_waits_or_runs_says_when_it_will_be_done(idle: Rig) -> None:
    idle.clear()
    idle.queue.submit(Enhance("a.jpg"))
    job = idle.queue.claim()
    assert job is not None
    idle.queue.publish(job, Final((), 1, 3.25, "ort"))
    first, second = idle.queue.submit(Enhance("a.jpg")), idle.queue.submit(Enhance("b.jpg"))
    looks = [idle.client.get(f"/jobs/{job_id}").json() for job_id in (first, second, job.id)]
    usual = idle.queue.expected(Enhance("a.jpg"))  # by this one, and those of tests before
    assert usual is not None
    s = usual.finish_s
    assert [look.get("eta_s") for look in looks] == [pytest.approx(s, abs=0.1), pytest.approx(2 * s, abs=0.1), None]
    running = idle.queue.claim()
    assert running is not None and running.id == first
    idle.queue.publish(running, Progress("restore", 1, 2, 2.0))
    assert 0 < idle.client.get(f"/jobs/{first}").json()["eta_s"] <= 2.0
    assert s - 0.1 < idle.client.get(f"/jobs/{second}").json()["eta_s"] <= 2.1 + s
    idle.queue.cancel(second)
    idle.queue.publish(running, Failed("cancelled", ""))


def test_what_failed_is_asked_for_again_by_its_address(rig: Rig) -> None:
    address = taken(rig, width=100)
    body = ended(rig, address)
    answer = rig.client.post(f"{address}/retry")
    assert answer.status_code == 202 and set(answer.json()) == {"id", "state"}
    anew = answer.headers["location"]
    assert anew == f"/jobs/{answer.json()['id']}" != address
    assert ended(rig, anew)["error"] == body["error"]
    done = taken(rig)
    ended(rig, done)
    refused(rig.client.post(f"{done}/retry"), 400, "bad_option")


def test_a_photo_that_has_gone_cannot_be_restored_again(idle: Rig) -> None:
    job_id = idle.queue.submit(Enhance(str(idle.settings.uploads / "gone.jpg"), name="mum.jpg"))
    idle.queue.cancel(job_id)
    answer = idle.client.post(f"/jobs/{job_id}/retry", headers={"accept-language": "en"})
    refused(answer, 404, "not_found")
    assert "mum.jpg" in answer.json()["message"] and str(idle.settings.home) not in answer.text


def test_one_of_several_is_asked_for_first(idle: Rig) -> None:
    idle.clear()
    jobs = [idle.queue.submit(Generate("x"), "token:x") for _ in range(2)]
    refused(idle.client.post(f"/jobs/{jobs[1]}/first"), 404, "not_found")
    nobodys = idle.queue.submit(Generate("x"))
    assert idle.client.post(f"/jobs/{nobodys}/first").json()["position"] == 2
    for job_id in (*jobs, nobodys):
        idle.queue.cancel(job_id)


def test_the_owner_pauses_the_queue_and_guests_do_not(rig: Rig) -> None:
    """Who sits at the machine is its owner, and a program with a token a guest."""
    rig.settle()
    tokens = Tokens(rig.settings.state / "tokens.json")
    guest = {"authorization": f"Bearer {tokens.add('pausing')}"}
    for act in ("pause", "resume"):
        refused(rig.client.post(f"/queue/{act}", headers=guest), 403, "owner_only")
    tokens.revoke("pausing")
    assert rig.client.post("/queue/pause").json() == {"paused": True}
    try:
        ready = rig.client.get("/readyz")
        assert (ready.status_code, ready.json()["paused"]) == (200, True)
        address = taken(rig)
        body = rig.client.get(address).json()
        assert (body["state"], body["position"]) == ("queued", 0) and "eta_s" not in body
    finally:
        assert rig.client.post("/queue/resume").json() == {"paused": False}
    assert ended(rig, address)["state"] == "done" and "paused" not in rig.client.get("/readyz").json()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_job_that_failed_says_why_in_the_callers_language(rig: Rig, language: str) -> None:
    body = ended(rig, taken(rig, width=100), language)
    assert body["state"] == "failed" and set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == "bad_size" and "100" in body["error"]["message"]
    assert bool(CJK.search(body["error"]["message"])) is (language == "zh")


NO_JOBS = (
    "x",
    "0" * 31,
    "0" * 33,
    "0" * 32,
    "A" * 32,
    "%00",
    "x" * 5000,
    "0b5d0a3e-6c1f-4f0e-9a57-3d1f6f2c8e11",
    "%D9%A0" * 32,
)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", NO_JOBS)
def test_a_job_that_is_none_is_not_there(rig: Rig, method: str, name: str) -> None:
    answer = rig.client.request(method, f"/jobs/{name}")
    refused(answer, 404, "not_found")
    refused(rig.client.get(f"/jobs/{name}/events"), 404, "not_found")


def test_nobody_in_particular_has_no_list_of_jobs(rig: Rig) -> None:
    taken(rig)
    assert rig.client.get("/jobs").json() == {"jobs": []}
    refused(rig.client.get("/jobs/"), 404, "no_such_address")


def test_jobs_that_programs_cannot_ask_for_are_not_shown(idle: Rig) -> None:
    """A build's log names folders of this machine."""
    for request in (Fetch("gpen"), Inspect(str(idle.settings.home / "photo"))):
        job_id = idle.queue.submit(request)
        for answer in (
            idle.client.get(f"/jobs/{job_id}"),
            idle.client.delete(f"/jobs/{job_id}"),
            idle.client.get(f"/jobs/{job_id}/events"),
        ):
            refused(answer, 404, "not_found")
        assert idle.queue.job(job_id).state == "queued", "nor cancelled"
        idle.queue.cancel(job_id)


def test_no_folder_of_this_machine_is_received(rig: Rig) -> None:
    """The request holds a path, where the photo lies."""
    files, data = {"start": ("a.png", encoded(people(), "PNG"))}, {"prompt": "x", "steps": "2"}
    drawn = rig.client.post("/generate", files=files, data=data, headers=ASYNC).headers["location"]
    photo = {"image": ("a.png", encoded(scene(), "PNG"))}
    restored = rig.client.post("/enhance", files=photo, data={"whole_picture": "true"}, headers=ASYNC).headers[
        "location"
    ]
    broken = rig.client.post("/enhance", files={"image": ("a.png", b"no photo")}, headers=ASYNC).headers["location"]
    for address, state in ((drawn, "done"), (restored, "done"), (broken, "failed")):
        body = ended(rig, address)
        assert body["state"] == state, body
        text = json.dumps(body) + rig.client.get(f"{address}/events").text
        assert str(rig.settings.home) not in text and "uploads" not in text


# ---- cancelling


def test_cancelling_once_or_twice_is_the_same(rig: Rig) -> None:
    rig.settle()
    with rig.stuck():
        running, waiting = f"/jobs/{list(rig.jobs())[-1]}", taken(rig)
        for _ in range(2):
            answer = rig.client.delete(waiting)
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
            assert answer.json()["error"]["code"] == "cancelled"
        for _ in range(2):
            answer = rig.client.delete(running)
            assert (answer.status_code, answer.json()["state"]) == (202, "running"), "it is in the middle of a step"
    assert ended(rig, running)["state"] == "cancelled"
    assert rig.client.delete(running).status_code == 200


def test_what_is_done_stays_done(rig: Rig) -> None:
    address = taken(rig)
    body = ended(rig, address)
    answer = rig.client.delete(address)
    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    assert rig.client.get(body["result"]["images"][0]).status_code == 200


def test_other_sites_cancel_nothing(rig: Rig) -> None:
    rig.settle()
    with rig.stuck():
        address = taken(rig)
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            refused(rig.client.delete(address, headers=headers), 403, "cross_site")
        assert rig.client.get(address).json()["state"] == "queued"


# ---- following


def test_the_events_of_a_job_are_numbered_and_end_with_its_end(rig: Rig) -> None:
    address = taken(rig, preview="live", steps=3)
    body = ended(rig, address)
    happened = received(rig, address)
    numbers = [int(event["id"]) for event in happened]
    assert numbers == sorted(set(numbers)) and numbers[0] >= 1
    assert happened[-1]["event"] == "final" and happened[-1]["data"] == body["result"]
    assert {event["event"] for event in happened[:-1]} == {"progress", "preview"}
    (shown, *_) = [event["data"]["image"] for event in happened if event["event"] == "preview"]
    assert rig.client.get(shown).headers["content-type"] == "image/webp"
    assert any(event["data"].get("stage") == "denoise" for event in happened)


def test_who_comes_back_hears_what_is_new_to_them(rig: Rig) -> None:
    address = taken(rig, steps=3)
    ended(rig, address)
    everything = received(rig, address)
    middle = everything[len(everything) // 2]["id"]
    assert received(rig, address, middle) == [event for event in everything if int(event["id"]) > int(middle)]
    for garbage in ("", "x", "-1", "1.5", "9" * 40, "9" * 18, "0x10"):
        assert received(rig, address, garbage) == everything, garbage
    nothing = rig.client.get(f"{address}/events", headers={"last-event-id": everything[-1]["id"]})
    assert (nothing.status_code, nothing.content) == (204, b""), "a browser stops asking"


def test_a_failure_is_an_event_in_the_callers_language(rig: Rig) -> None:
    address = taken(rig, width=100)
    body = ended(rig, address)
    last = received(rig, address)[-1]
    assert (last["event"], last["data"]) == ("failed", body["error"])


def test_silence_is_filled_with_comments_and_leaving_cancels_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.05)
    rig.settle()
    with rig.stuck():
        address = taken(rig)
        with httpx.stream("GET", f"{rig.url}{address}/events", timeout=60) as stream:
            first = next(events(stream.iter_lines()))
        assert set(first) == {"comment"}
        assert rig.client.get(address).json()["state"] == "queued"


def test_events_arrive_as_they_happen(rig: Rig) -> None:
    rig.settle()
    with rig.stuck():
        running = f"/jobs/{list(rig.jobs())[-1]}"
        with httpx.stream("GET", f"{rig.url}{running}/events", timeout=60) as stream:
            lines = events(stream.iter_lines())
            before = next(event for event in lines if event.get("event") == "progress")
            assert rig.client.get(running).json()["state"] == "running", "told before the end"
            rig.client.delete(running)
            assert before["data"]["total"] >= 1


def test_a_stop_of_the_program_ends_the_stream_with_a_word(idle: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is kept; who comes back with the number that was heard last goes on there."""
    monkeypatch.setattr(idle.queue, "_released", False)  # as it is again in the end
    job_id = idle.queue.submit(Generate("waits"))
    try:
        address = f"{idle.url}/jobs/{job_id}/events"
        with httpx.stream("GET", address, headers={"accept-language": "en"}, timeout=60) as stream:
            idle.queue.release()
            (last,) = [event for event in events(stream.iter_lines()) if "comment" not in event]
        assert last["event"] == "postponed" and "id" not in last
        assert last["data"]["code"] == "postponed" and "after the next start" in last["data"]["message"]
        assert received(idle, f"/jobs/{job_id}")[-1]["event"] == "postponed", "who comes now hears it at once"
        body = idle.client.get(f"/jobs/{job_id}").json()
        assert body == {"id": job_id, "kind": "generate", "state": "queued"}
    finally:
        idle.queue.cancel(job_id)
