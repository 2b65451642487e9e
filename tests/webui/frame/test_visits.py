"""Visits to a frame: what a visitor may do, whose it is, what is left of it; and the pages that a phone opens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from engines.errors import NotFoundError
from engines.jobs import Job, Search
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import CREDIT, Enhance, Generate
from engines.messages.status import BundleStatus, Status
from engines.settings import Settings
from tests.support.queues import FINAL, claimed
from webui import api, frame
from webui.own_jobs import HouseJobs, OwnJobs
from webui.people import VISITOR, WALL, Person
from webui.people.admission import Admission, People

PASSWORD = "open sesame"
PHOTO = ("photo", ("family.jpg", b"\xff\xd8 a photo", "image/jpeg"))
BUNDLES = tuple(
    BundleStatus(name, "portrait", {"en": name}, dialect, ((512, 512), (512, 768)), 4, 0.0, "ort", "")
    for name, dialect in (("other", "natural"), ("portrait", "attributes"))
)


@dataclass(frozen=True)
class House:
    """`client`: the frame's browser, which is let in."""

    client: TestClient
    queue: SqliteQueue
    settings: Settings
    app: Any

    def visit(self) -> dict[str, str]:
        """Return the headers of a new visitor."""
        answer = self.client.post("/frame/visit")
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    def draw(self, visitor: dict[str, str], photo: bool = False) -> Job:
        """Return what the visitor's order has become, as a worker claims it."""
        files = dict([PHOTO]) if photo else {}
        answer = self.client.post("/frame/visit/draw", data={"card": "anime"}, files=files, headers=visitor)
        assert answer.status_code == 202, answer.text
        job = claimed(self.queue)
        assert job.id == answer.json()["id"]
        return job

    def finish(self, job: Job, name: str) -> str:
        (self.queue.folder / name).write_bytes(b"\x89PNG " + name.encode())
        assert self.queue.publish(job, replace(FINAL, images=(name,)))
        return job.id

    def owner(self) -> OwnJobs:
        return OwnJobs(self.queue, HouseJobs(self.queue, People.of(self.settings).keys).keys, Person("o", "owner"))

    def phone(self) -> TestClient:
        """A browser that nobody knows."""
        return TestClient(self.app, headers={"accept": "text/html", "accept-language": "en"})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Open one with these settings, all of which has a password."""
    opened: list[SqliteQueue] = []

    def build(**settings: Any) -> House:
        own = Settings(home=tmp_path, password=PASSWORD, **settings)
        for folder in (own.outputs, own.state):
            folder.mkdir(parents=True, exist_ok=True)
        opened.append(queue := SqliteQueue(own.state / "jobs.db", own.outputs))
        queue.announce(Status("ready", bundles=BUNDLES))
        people, door, app = People.of(own), APIRouter(), FastAPI()
        jobs = HouseJobs(queue, people.keys)
        api.install_errors(app)
        app.include_router(api.router(jobs, own))
        frame.add(door, jobs, own, {}, people.begin_visit)
        app.include_router(door)
        guarded = Admission(app, people)
        token = people.tokens.add("frame")
        client = TestClient(guarded, headers={"Authorization": f"Bearer {token}", "accept-language": "zh-CN"})
        return House(client, queue, own, guarded)

    yield build
    for queue in opened:
        queue.close()


@pytest.fixture
def home(house: Callable[..., House]) -> House:
    return house()


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def files(home: House) -> set[str]:
    folders = (home.settings.uploads, home.settings.outputs, home.settings.phone_links)
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


# ---- whose it is


def test_a_visit_begins_with_the_cards_in_the_visitors_language(home: House) -> None:
    body = home.client.post("/frame/visit").json()
    assert body["approval"] is False
    assert ("anime", "动漫风格") in {(card["name"], card["title"]) for card in body["cards"]}
    assert all(card["picture"] == f"/thumbnails/{card['name']}.webp" for card in body["cards"])


def test_only_who_may_see_the_frame_begins_one(home: House) -> None:
    with home.phone() as phone:
        assert phone.post("/frame/visit").status_code == 401
        for path in ("/frame/visit/draw", "/frame/visit/restore", "/frame/visit/links/send", "/frame/visit/wall/x"):
            assert phone.post(path).status_code == 401
    refused(home.client.delete("/frame/visit"), 403, "owner_only")
    for path in ("/frame/visit/links/send", "/frame/visit/draw"):
        refused(home.client.post(path), 403, "owner_only")


def test_a_drawing_is_the_cards_in_the_words_of_the_model_that_is_here(home: House) -> None:
    job = home.draw(home.visit(), photo=True)
    order = job.request
    assert isinstance(order, Generate) and job.owner.startswith(VISITOR)
    assert (order.bundle, order.preset, order.width, order.height) == ("portrait", "anime", 512, 768)
    assert order.prompt.startswith("动漫风格") and Path(order.start).read_bytes() == PHOTO[1][1]
    refused(home.client.post("/frame/visit/draw", data={"card": "../x"}, headers=home.visit()), 404, "not_found")


def test_a_photo_is_restored_as_looking_at_it_advises(home: House) -> None:
    visitor = home.visit()
    answer = home.client.post("/frame/visit/restore", files=dict([PHOTO]), headers=visitor)
    order = claimed(home.queue).request
    assert answer.status_code == 202 and isinstance(order, Enhance)
    assert order.auto and order.name == "family.jpg" and Path(order.image).read_bytes() == PHOTO[1][1]
    refused(home.client.post("/frame/visit/restore", data={"photo": "/etc/passwd"}, headers=visitor), 400, "bad_option")


def test_what_a_visitor_makes_is_nobody_elses(home: House) -> None:
    first, second = home.visit(), home.visit()
    job_id = home.finish(home.draw(first), "a.png")
    assert home.client.get(f"/jobs/{job_id}", headers=first).json()["state"] == "done"
    for other in (second, {}):
        refused(home.client.get(f"/jobs/{job_id}", headers=other), 404, "not_found")
    refused(home.client.post(f"/frame/visit/links/take/{job_id}", headers=second), 404, "not_found")
    refused(home.client.post(f"/frame/visit/wall/{job_id}", headers=second), 404, "not_found")


def test_a_visitor_downloads_no_models_and_tells_frames_nothing(home: House) -> None:
    visitor = home.visit()
    refused(home.client.post("/frame/next", headers=visitor), 403, "owner_only")
    refused(home.client.post("/queue/pause", headers=visitor), 403, "owner_only")


@pytest.mark.parametrize("token", ["x", "", "W10.x.y", "a.b"])
def test_a_token_that_nobody_gave_is_none(home: House, token: str) -> None:
    with home.phone() as phone:
        answer = phone.post("/frame/visit/links/send", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


def test_a_new_password_ends_visits(house: Callable[..., House], tmp_path: Path) -> None:
    home = house()
    visitor = home.visit()
    people = People.of(Settings(home=tmp_path, password="another one"))
    token = visitor["Authorization"].removeprefix("Bearer ")
    assert people.passes.visitor(token, people.password_key) is None
    assert People.of(home.settings).passes.visitor(token, People.of(home.settings).password_key)


# ---- its end


def test_nothing_is_left_of_a_visit(home: House) -> None:
    visitor, other = home.visit(), home.visit()
    home.finish(home.draw(visitor, photo=True), "a.png")
    others = home.finish(home.draw(other), "b.png")
    home.client.post("/frame/visit/restore", files={"photo": ("b.jpg", b"another photo")}, headers=visitor)
    running = claimed(home.queue)
    home.client.post("/frame/visit/links/send", headers=visitor)
    assert home.client.delete("/frame/visit", headers=visitor).status_code == 204
    assert files(home) == {"b.png"} and not home.queue.publish(running, FINAL)
    assert home.queue.job(others).state == "done"
    with pytest.raises(NotFoundError):
        home.queue.job(running.id)


def test_a_photo_that_somebody_else_waits_for_stays(home: House) -> None:
    first, second = home.visit(), home.visit()
    home.client.post("/frame/visit/restore", files=dict([PHOTO]), headers=first)
    home.client.post("/frame/visit/restore", files=dict([PHOTO]), headers=second)
    assert home.client.delete("/frame/visit", headers=first).status_code == 204
    order = claimed(home.queue).request
    assert isinstance(order, Enhance) and Path(order.image).is_file()


# ---- the wall


def album(home: House) -> list[str]:
    return [finished.job.id for finished in home.queue.page(Search(None), 9).jobs]


def test_what_is_left_for_the_wall_stays_there(home: House) -> None:
    visitor = home.visit()
    job_id = home.finish(home.draw(visitor), "a.png")
    answer = home.client.post(f"/frame/visit/wall/{job_id}", headers=visitor)
    assert answer.json() == {"on_wall": True}
    home.client.delete("/frame/visit", headers=visitor)
    assert album(home) == [job_id] and files(home) == {"a.png"}
    assert home.queue.job(job_id).owner == WALL
    assert len(home.client.get("/frame/list?show=favourites").json()["pictures"]) == 1


def test_the_owner_looks_first_where_it_is_so_set(house: Callable[..., House]) -> None:
    home = house(wall_approval=True)
    visitor = home.visit()
    assert home.client.post("/frame/visit").json()["approval"] is True
    ids = [home.finish(home.draw(visitor), f"{name}.png") for name in "abc"]
    for job_id in ids:
        answer = home.client.post(f"/frame/visit/wall/{job_id}", headers=visitor)
        assert answer.json() == {"on_wall": False}
    home.client.delete("/frame/visit", headers=visitor)
    assert album(home) == []
    owner, guest = home.owner(), replace(home.owner(), person=Person("g"))
    assert {finished.job.id for finished in owner.left_for_wall(9)} == set(ids) and guest.left_for_wall(9) == []
    owner.approve(ids[:1], True)
    owner.approve(ids[1:2], False)
    assert album(home) == ids[:1]
    assert [finished.job.id for finished in owner.left_for_wall(9)] == ids[2:]
    with pytest.raises(NotFoundError):
        owner.approve(ids[:2], True)
    with pytest.raises(Exception, match="owner"):
        guest.approve(ids[2:], True)


def test_a_visitor_has_no_other_way_into_the_album(house: Callable[..., House]) -> None:
    home = house(wall_approval=True)
    job_id = home.finish(home.draw(home.visit()), "a.png")
    own = replace(home.owner(), person=Person(home.queue.job(job_id).owner))
    with pytest.raises(Exception, match="album"):
        own.share(job_id, True)


# ---- phones


def link(home: House, visitor: dict[str, str], path: str) -> dict[str, str]:
    answer = home.client.post(f"/frame/visit/links/{path}", headers=visitor)
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    assert set(body) == {"code", "qr"} and body["qr"].startswith("data:image/svg+xml")
    return body


def test_a_phone_sends_a_photo_to_the_frame(home: House) -> None:
    visitor = home.visit()
    code = link(home, visitor, "send")["code"]

    def state() -> dict[str, str]:
        body: dict[str, str] = home.client.get(f"/frame/visit/links/{code}", headers=visitor).json()
        return body

    assert state() == {"state": "waiting", "name": ""}
    with home.phone() as phone, home.phone() as other:
        page = phone.get(f"/frame/send/{code}")
        assert page.status_code == 200 and CREDIT in page.text and 'type="file"' in page.text
        assert state()["state"] == "open"
        assert other.get(f"/frame/send/{code}").status_code == 410
        assert other.post(f"/frame/send/{code}", files=dict([PHOTO])).status_code == 410
        assert phone.post(f"/frame/send/{code}", files={}).status_code == 400, "nothing was chosen"
        assert phone.post(f"/frame/send/{code}", files=dict([PHOTO])).status_code == 200
    assert state() == {"state": "here", "name": "family.jpg"}
    photo = home.client.get(f"/frame/visit/links/{code}/photo", headers=visitor)
    assert photo.content == PHOTO[1][1] and photo.headers["content-type"] == "application/octet-stream"
    for path in (f"/frame/visit/links/{code}", f"/frame/visit/links/{code}/photo"):
        assert home.client.get(path, headers=home.visit()).status_code == 410, "another visitor's"


def test_a_phone_takes_the_picture_away_once_also_after_the_visit(home: House) -> None:
    visitor = home.visit()
    job_id = home.finish(home.draw(visitor), "outputs_20260101000000.png")
    code = link(home, visitor, f"take/{job_id}")["code"]
    with home.phone() as phone, home.phone() as other:
        page = phone.get(f"/frame/take/{code}")
        (picture,) = set(re.findall(r'src="([^"]+)"', page.text))
        source = urljoin(f"/frame/take/{code}", picture)
        assert page.status_code == 200 and CREDIT in page.text
        assert other.get(source).status_code == 410 and other.get(f"/frame/take/{code}").status_code == 410
        home.client.delete("/frame/visit", headers=visitor)
        answer = phone.get(source)
        assert answer.content.startswith(b"\x89PNG") and answer.headers["content-type"] == "image/png"
        assert phone.get(f"/frame/take/{code}/../jobs.db").status_code in (404, 410)
        assert phone.get(f"/frame/take/{code}/other.png").status_code == 410
    assert files(home) == {"outputs_20260101000000.png"}, "the copy, until the link ends"


def test_a_link_that_nobody_opened_ends_with_the_visit(home: House) -> None:
    visitor = home.visit()
    job_id = home.finish(home.draw(visitor), "a.png")
    code = link(home, visitor, f"take/{job_id}")["code"]
    home.client.delete("/frame/visit", headers=visitor)
    with home.phone() as phone:
        answer = phone.get(f"/frame/take/{code}")
    assert answer.status_code == 410 and "ten minutes" in answer.text and CREDIT in answer.text


def test_nothing_is_taken_before_it_is_there(home: House) -> None:
    visitor = home.visit()
    job = home.draw(visitor)
    refused(home.client.post(f"/frame/visit/links/take/{job.id}", headers=visitor), 404, "not_found")
