"""What is somebody's is nobody else's: two owners at the real application, open and with a password."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from engines.errors import NotFoundError, OptionError, OwnerOnly
from engines.jobs import Search
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Build, Enhance, Failed, Fetch, Final, Generate
from tests.support.http import SKETCH, Session, encoded, people, succeeded
from tests.support.owners import KEY, KEYS, own
from webui.i18n import words
from webui.own_jobs import OwnJobs
from webui.people import Person
from webui.people.passes import COOKIE

if TYPE_CHECKING:
    from tests.support.server import Rig

EN = words("en")
MINE = Person("me")


def drawn(page: Session, prompt: str) -> str:
    """The address of a picture that this page's browser has asked for."""
    answer = page.client.post("/generate", json={"prompt": prompt, **SKETCH})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["images"][0])


def collection(page: Session, which: str) -> str:
    return str(page.answer(page.endpoint("refresh"), [which])[0])


# ---- the jobs of one person


@pytest.fixture
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteQueue]:
    folder = tmp_path_factory.mktemp("jobs")
    opened = SqliteQueue(folder / "jobs.db", folder)
    yield opened
    opened.close()


def finish(queue: SqliteQueue, *pictures: str) -> None:
    job = queue.claim()
    assert job is not None
    for name in pictures:
        (queue.folder / name).write_bytes(b"a picture")
    queue.publish(job, Final(pictures, 1, 1.0, "ort"))


def album(jobs: OwnJobs) -> list[tuple[str, ...]]:
    return [finished.final.images for finished in jobs.page(Search(None), 9).jobs]


def test_a_job_of_somebody_else_is_not_there(queue: SqliteQueue) -> None:
    mine, other, nobodys = own(queue, MINE), own(queue, Person("other")), own(queue)
    job_id = mine.submit(Generate("mine"))
    for jobs in (other, nobodys):
        looks = (jobs.job, jobs.follow, jobs.latest, jobs.cancel, jobs.place, jobs.retry, jobs.move_first)
        for look in looks:
            with pytest.raises(NotFoundError):
                look(job_id)
        with pytest.raises(NotFoundError):
            jobs.since(job_id, 0)
        with pytest.raises(NotFoundError):
            jobs.share(job_id, True)
    assert mine.job(job_id).state == "queued" and mine.place(job_id).ahead == 0
    mine.cancel(job_id)
    assert mine.job(job_id).state == "cancelled"


def test_the_owner_of_the_house_sees_no_more_than_others(queue: SqliteQueue) -> None:
    job_id = own(queue, MINE).submit(Generate("mine"))
    with pytest.raises(NotFoundError):
        own(queue, Person("host", "owner")).job(job_id)


def test_what_belongs_to_nobody_is_anybodys_who_has_its_name(queue: SqliteQueue) -> None:
    job_id = own(queue).submit(Generate("nobody's"))
    assert own(queue, MINE).job(job_id).owner == ""
    assert own(queue).latest_jobs(9) == own(queue, MINE).latest_jobs(9) == [], "but it is in nobody's list"
    finish(queue, "outputs_1.png")
    assert own(queue).finished(9) == own(queue, MINE).finished(9) == []


def test_each_person_has_a_list_of_his_own(queue: SqliteQueue) -> None:
    for name in ("me", "other", "me"):
        own(queue, Person(name)).submit(Generate(name))
        finish(queue, f"outputs_{name}.png")
    assert [job.request.prompt for job in own(queue, MINE).latest_jobs(9)] == ["me", "me"]  # type: ignore[union-attr]
    assert [f.final.images for f in own(queue, MINE).finished(9)] == [(KEYS.sign("outputs_me.png"),)] * 2
    assert len(own(queue, MINE).finished(1)) == 1


def test_only_what_is_shared_is_in_the_album(queue: SqliteQueue) -> None:
    mine, other = own(queue, MINE), own(queue, Person("other"))
    jobs = [mine.submit(Generate("a")), mine.submit(Generate("b"))]
    finish(queue, "outputs_a.png")
    finish(queue, "outputs_b.png")
    assert album(other) == []
    mine.share(jobs[0], True)
    assert album(other) == [(KEYS.sign("outputs_a.png"),)]
    with pytest.raises(NotFoundError):
        other.share(jobs[0], False)
    own(queue, Person("host", "owner")).share(jobs[0], False)
    assert album(other) == [], "the owner of the house has taken it out"
    nobodys = own(queue).submit(Generate("from before there were owners"))
    finish(queue, "outputs_c.png")
    mine.share(nobodys, True)
    with pytest.raises(NotFoundError):
        mine.share(nobodys, False)
    own(queue, Person("host", "owner")).share(nobodys, False)
    assert album(other) == []
    with pytest.raises(NotFoundError):
        own(queue, Person("host", "owner")).share(jobs[1], True)


@pytest.mark.parametrize("request_", [Fetch("gpen"), Build("restorer", "x", "edge-fp32", "x")])
def test_models_are_the_owners(queue: SqliteQueue, request_: Any) -> None:
    for person in (MINE, Person()):
        with pytest.raises(OwnerOnly):
            own(queue, person).submit_all([Generate("x"), request_])
    assert queue.unfinished() == [], "nor the half of it"
    assert own(queue, Person("host", "owner")).submit(request_)


def test_only_the_owner_pauses_the_queue(queue: SqliteQueue) -> None:
    for person in (MINE, Person()):
        for act in (own(queue, person).pause, own(queue, person).resume):
            with pytest.raises(OwnerOnly):
                act()
    assert not queue.is_paused()
    own(queue, Person("host", "owner")).pause()
    assert queue.is_paused()
    own(queue, Person("host", "owner")).resume()
    assert not queue.is_paused()


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_came_to_nothing_is_submitted_once_more(queue: SqliteQueue, tmp_path: Path, end: str) -> None:
    photo = tmp_path / "a.jpg"
    photo.touch()
    for order in (Generate("x", seed=3), Generate("x", start=str(photo)), Enhance(str(photo), name="mum.jpg")):
        lost = own(queue, MINE).submit(order)
        job = queue.claim()
        assert job is not None
        queue.publish(job, Failed(end if end == "cancelled" else "engine_failed", ""))
        anew = own(queue, MINE).retry(lost)
        assert anew != lost and queue.job(lost).state == end
        assert (queue.job(anew).owner, queue.job(anew).state, queue.job(anew).request) == ("me", "queued", order)
        queue.cancel(anew)


def test_a_photo_that_was_deleted_is_not_restored_once_more(queue: SqliteQueue, tmp_path: Path) -> None:
    mine = own(queue, MINE)
    for order, name in (
        (Enhance(str(tmp_path / "b.jpg"), name="mum.jpg"), "mum.jpg"),
        (Generate("x", start=str(tmp_path / "b.jpg")), "b.jpg"),
    ):
        lost = mine.submit(order)
        mine.cancel(lost)
        with pytest.raises(NotFoundError) as refused:
            mine.retry(lost)
        assert refused.value.facts == {"what": "picture", "name": name}
    assert queue.unfinished() == []


def test_what_waits_or_went_well_is_not_submitted_again(queue: SqliteQueue) -> None:
    mine = own(queue, MINE)
    job_id = mine.submit(Generate("x"))
    with pytest.raises(OptionError):
        mine.retry(job_id)
    finish(queue, "outputs_1.png")
    with pytest.raises(OptionError):
        mine.retry(job_id)


# ---- the real application


def test_a_browser_is_given_a_pass_before_it_asks_for_anything(rig: Rig) -> None:
    """Not by the page: a link from elsewhere comes without the cookie, and who follows it stays who he was."""
    with httpx.Client(base_url=rig.url) as browser:
        page = browser.get("/", headers={"accept": "text/html"})
        assert "set-cookie" not in page.headers
        answer = browser.get("/me")
        assert answer.json() == {"role": "owner"}, "who sits at the machine"
        assert answer.headers["cache-control"] == "no-store" and COOKIE in answer.headers["set-cookie"]
        first = browser.cookies[COOKIE]
        assert browser.get("/me").status_code == 200 and browser.cookies[COOKIE] == first, "and once for all"


def test_one_browser_is_one_person_in_all_its_pages(rig: Rig) -> None:
    with rig.session() as page, rig.session(of=page) as other, rig.session() as stranger:
        drawn(page, "seen in both windows")
        assert "seen in both windows" in collection(other, "mine")
        assert "seen in both windows" not in collection(stranger, "mine")


def test_a_picture_has_an_address_that_nobody_guesses(rig: Rig) -> None:
    with rig.session() as page:
        address = drawn(page, "x")
    match = re.fullmatch(rf"/outputs/({KEY})/(outputs_[\d_]+\.png)", address)
    assert match
    assert rig.client.get(address).content.startswith(b"\x89PNG"), "who has it, has it"
    key, name = match.groups()
    for other in (name, f"{'0' * 32}/{name}", f"{key[:-1]}/{name}", f"{key.upper()}/{name}", f"{key}/{name[:-5]}9.png"):
        if other != f"{key}/{name}":
            assert rig.client.get(f"/outputs/{other}").status_code == 404, other


def leaks(stranger: Session, job_id: str, picture: str) -> dict[str, str]:
    """What a stranger hears of somebody's job and picture, at every door, by the door."""
    client, file = stranger.client, picture.rpartition("/")[2]

    def get(path: str, **more: Any) -> str:
        return client.get(path, **more).text

    heard = {
        "GET /jobs": get("/jobs"),
        "GET /jobs/ID": get(f"/jobs/{job_id}"),
        "GET /jobs/ID/events": get(f"/jobs/{job_id}/events"),
        "DELETE /jobs/ID": client.delete(f"/jobs/{job_id}").text,
        "GET /batch.zip": get("/batch.zip", params={"jobs": job_id}),
        "GET /outputs/NAME": get(f"/outputs/{file}"),
        "GET /outputs/KEY/NAME": get(f"/outputs/{'0' * 32}/{file}"),
        "GET /sdapi/v1/progress": get("/sdapi/v1/progress"),
        "GET /metrics": get("/metrics"),
        "GET /readyz": get("/readyz"),
        "GET /v1/models": get("/v1/models"),
        "GET /config": get("/config"),
        "GET /gradio_api/info": get("/gradio_api/info"),
    }
    data = {"job": job_id, "name": f"{'0' * 32}/{file}", "shared": True, "whole": False}
    for endpoint in stranger.endpoints:
        for value in (job_id, [job_id], f"{job_id} {job_id}"):
            given = [value if kind == "browserstate" else None for kind in stranger.takes(endpoint)]
            messages = stranger.call(endpoint, given, data)
            heard[f"{endpoint['api_name']} {value!r:.12}"] = str([message.get("output") for message in messages])
    heard["mine"], heard["album"] = collection(stranger, "mine"), collection(stranger, "album")
    return heard


def test_no_door_tells_a_stranger_of_somebodys_job(rig: Rig) -> None:
    """Two owners: what the one has, no endpoint gives the other who even knows its name."""
    with rig.session("en") as page, rig.session("en") as stranger:
        picture, secret = drawn(page, "a very private prompt"), "a very private prompt"
        (job_id,) = [job["id"] for job in page.client.get("/jobs").json()["jobs"]]
        photo = page.client.post("/enhance", files={"image": ("very private name.png", encoded(people(), "PNG"))})
        restored = photo.json()["output_path"]
        jobs = [job["id"] for job in page.client.get("/jobs").json()["jobs"]]
        assert len(jobs) == 2
        heard = leaks(stranger, job_id, picture)
        heard |= {f"photo {door}": text for door, text in leaks(stranger, jobs[0], restored).items()}
        assert len(heard) > 300
        private = (secret, "very private name", picture, restored)
        assert {door: word for door, text in heard.items() for word in private if word in text} == {}
        assert secret in collection(page, "mine") and "very private name" in collection(page, "mine")


def test_a_stranger_cannot_cancel(rig: Rig) -> None:
    with rig.stuck(), rig.session() as page, rig.session() as stranger:
        asked = {"json": {"prompt": "x", **SKETCH}, "headers": {"prefer": "respond-async"}}
        address = page.client.post("/generate", **asked).headers["location"]
        assert stranger.client.delete(address).status_code == 404
        assert stranger.client.get(f"{address}/events").status_code == 404
        assert rig.queue.job(address.rpartition("/")[2]).state == "queued"
        assert page.client.delete(address).status_code == 200


def test_the_album_shows_the_picture_and_not_the_words(rig: Rig) -> None:
    with rig.session("en") as page, rig.session("en") as stranger:
        picture = drawn(page, "words that are mine").removeprefix("/")
        (job_id,) = [job["id"] for job in page.client.get("/jobs").json()["jobs"]]
        share = page.endpoint("put")
        refused = stranger.call(share, ["mine"], {"job": job_id, "shared": True})
        assert not succeeded(refused) and picture not in collection(stranger, "album")
        shown = str(page.call(share, ["mine"], {"job": job_id, "shared": True})[-1])
        assert EN("album_take_out") in shown
        album = collection(stranger, "album")
        assert picture in album and "words that are mine" not in album
        assert album.count(job_id) == 1, "and what the owner of the house presses to take it out"
        assert "words that are mine" in collection(page, "album"), "to him whose they are"
        page.call(share, ["mine"], {"job": job_id, "shared": False})
        assert picture not in collection(stranger, "album")


def test_who_leaves_a_screen_leaves_nothing_on_it(rig: Rig) -> None:
    with rig.session() as page:
        drawn(page, "gone with its owner")
        before = page.client.cookies[COOKIE]
        assert page.client.post("/leave").status_code == 204
        assert page.client.cookies[COOKIE] != before
        assert "gone with its owner" not in collection(page, "mine")
        assert page.client.get("/jobs").json() == {"jobs": []}


def test_a_token_is_a_person_too(rig: Rig) -> None:
    from webui.people.tokens import Tokens

    token = Tokens(rig.settings.state / "tokens.json").add("house")
    basic = base64.b64encode(f"anybody:{token}".encode()).decode()
    as_program = {"authorization": f"Bearer {token}"}
    rig.client.post("/generate", json={"prompt": "by a program", **SKETCH}, headers=as_program).raise_for_status()
    for headers in (as_program, {"authorization": f"basic {basic}"}):
        assert len(rig.client.get("/jobs", headers=headers).json()["jobs"]) == 1
    for wrong in (f"Bearer {token}x", "Bearer", "Basic %%%", "Basic", "Digest x", ""):
        assert rig.client.get("/jobs", headers={"authorization": wrong}).json() == {"jobs": []}
    assert Tokens(rig.settings.state / "tokens.json").revoke("house")
    assert rig.client.get("/jobs", headers=as_program).json() == {"jobs": []}
