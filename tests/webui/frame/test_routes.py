"""The frame's addresses: what is sent, to whom, how large, and what it is told from elsewhere."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from PIL import Image

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import CREDIT, Generate
from engines.settings import Settings
from tests.support import immich, site
from tests.support.queues import FINAL, claimed
from webui import api, frame
from webui.albums import folders as album_folders
from webui.albums import reading
from webui.albums.folders import folders_of
from webui.frame import routes
from webui.frame.routes import best_format
from webui.i18n import LANGUAGES
from webui.own_jobs import HouseJobs
from webui.people import Person
from webui.people.secret import Keys

MOST_BYTES = 60_000  # of the page with all that belongs to it


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    opened.folder.mkdir()
    yield opened
    opened.close()


@pytest.fixture
def client(queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    yield from clients(queue, tmp_path, monkeypatch)


def clients(queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[TestClient]:
    """`x-person`: who asks, in the place of Admission. `more`: settings."""
    monkeypatch.setattr(routes, "HELD_S", 0.0)
    (folder := tmp_path / "holidays").mkdir()
    app, door = FastAPI(), APIRouter()

    @app.middleware("http")
    async def admit(request: Request, call_next: Any) -> Any:
        request.state.person = {
            "owner": Person("o", "owner"),
            "program": Person("token:ha"),
        }.get(request.headers.get("x-person", ""), Person("g"))
        return await call_next(request)

    api.install_errors(app)
    settings = Settings(home=tmp_path, albums=str(folder), **more)  # type: ignore[arg-type]
    folders = folders_of(settings.album_folders, b"secret")
    frame.add(door, HouseJobs(queue, Keys(b"secret")), settings, folders, str)
    app.include_router(door)
    with TestClient(app) as opened:
        yield opened


def share(queue: SqliteQueue, name: str, size: tuple[int, int] = (800, 1200)) -> str:
    queue.submit(Generate("p"), "anna")
    job = claimed(queue)
    Image.radial_gradient("L").convert("RGB").resize(size).save(queue.folder / name)
    assert queue.publish(job, replace(FINAL, images=(name,)))
    queue.share(job.id, True)
    return job.id


def listed(client: TestClient) -> list[str]:
    pictures: list[str] = client.get("/frame/list").json()["pictures"]
    return pictures


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_the_page_is_light_and_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/frame", headers={"accept-language": "en"})
    parts = [page, *(client.get(f"/{path}") for path in re.findall(r'(?:src|href)="(frame/[^"]+)"', page.text))]
    assert len(parts) == 5 and all(part.status_code == 200 for part in parts)
    assert sum(len(part.content) for part in parts) <= MOST_BYTES
    assert CREDIT in page.text and 'lang="en"' in page.text
    assert not any(re.search(r"https?://", part.text) for part in parts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_its_words_are_the_readers(client: TestClient, language: str) -> None:
    page = client.get("/frame", headers={"accept-language": language})
    words = json.loads(re.search(r"data-words=(['\"])(.*?)\1", page.text)[2].replace("&#34;", '"'))  # type: ignore[index]
    assert all(words.values())
    assert ("No pictures" in words["frame_empty"]) is (language == "en")


def test_a_picture_is_no_larger_than_the_screen(client: TestClient, queue: SqliteQueue) -> None:
    share(queue, "a.png")
    (picture_id,) = listed(client)
    image = opened(client.get(f"/frame/picture/{picture_id}?w=640&h=480"))
    assert image.size == (320, 480)


@pytest.mark.parametrize(
    ("accept", "format"),
    [("image/avif,image/webp,*/*", "AVIF"), ("image/webp,*/*", "WEBP"), ("*/*", "JPEG"), ("", "JPEG")],
)
def test_it_comes_in_the_best_format_that_is_read(
    client: TestClient, queue: SqliteQueue, accept: str, format: str
) -> None:
    share(queue, "a.png")
    answer = client.get(f"/frame/picture/{listed(client)[0]}", headers={"accept": accept})
    assert opened(answer).format == format and answer.headers["vary"] == "Accept"
    assert answer.headers["content-type"] == f"image/{format.lower()}" == f"image/{best_format(accept)}"


@pytest.mark.parametrize("query", ["w=15", "h=99999", "w=x", "fit=stretch", "show=everything"])
def test_what_makes_no_sense_is_refused(client: TestClient, queue: SqliteQueue, query: str) -> None:
    share(queue, "a.png")
    assert client.get(f"/frame/picture/{listed(client)[0]}?{query}").status_code in (400, 422)


@pytest.mark.parametrize("picture_id", ["0" * 32, "%2e%2e%2fjobs.db", "a.png", "x" * 300])
def test_what_is_not_listed_is_not_sent(client: TestClient, queue: SqliteQueue, picture_id: str) -> None:
    share(queue, "a.png")
    assert client.get(f"/frame/picture/{picture_id}").status_code == 404


def test_a_broken_file_is_said_to_be_none(client: TestClient, queue: SqliteQueue) -> None:
    share(queue, "a.png")
    (queue.folder / "a.png").write_bytes(b"no picture")
    answer = client.get(f"/frame/picture/{listed(client)[0]}")
    assert answer.status_code == 415


def test_news_come_at_once_where_there_are_any(
    client: TestClient, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HELD_S", 60.0)  # this would time out if it waited
    share(queue, "a.png")
    news = client.get("/frame/state").json()
    assert set(news) == {"version", "presses", "paused", "code"} and news["version"]
    client.post("/frame/next", headers={"x-person": "owner"})
    assert client.get("/frame/state", params={"version": news["version"]}).json()["presses"] == 1


def test_without_news_it_waits(client: TestClient, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(routes, "HELD_S", 6.0)
    version = client.get("/frame/state").json()["version"]
    monkeypatch.setattr(routes.anyio, "sleep", sleep)
    client.get("/frame/state", params={"version": version})
    assert sum(waits) == 6.0


@pytest.mark.parametrize("what", ["next", "pause", "favourite"])
def test_only_the_owner_and_programs_tell_frames_what_to_do(client: TestClient, queue: SqliteQueue, what: str) -> None:
    share(queue, "a.png")
    client.get("/frame/state", params={"name": "kitchen", "shown": listed(client)[0]})
    refusal = client.post(f"/frame/{what}")
    assert (refusal.status_code, refusal.json()["code"]) == (403, "owner_only")
    for person in ("owner", "program"):
        assert client.post(f"/frame/{what}", headers={"x-person": person}).status_code == 200
    assert client.get(f"/frame/{what}").status_code == 405


def test_a_favourite_is_what_the_frame_shows(client: TestClient, queue: SqliteQueue) -> None:
    jobs = [share(queue, f"{letter}.png") for letter in "ab"]
    nothing = client.post("/frame/favourite", headers={"x-person": "program"})
    assert nothing.status_code == 404
    newest, oldest = listed(client)
    client.get("/frame/state", params={"name": "kitchen", "shown": f"{oldest},{'0' * 32}"})
    assert client.post("/frame/favourite", headers={"x-person": "program"}).json() == {"favourites": 1}
    assert {job.job.id: job.favourite for job in queue.finished(9)} == {jobs[0]: True, jobs[1]: False}


def test_pause_says_how_it_is_now(client: TestClient) -> None:
    owner = {"x-person": "owner"}
    assert client.post("/frame/pause", headers=owner).json() == {"paused": True}
    assert client.get("/frame/state").json()["paused"] is True
    assert client.post("/frame/pause?paused=false", headers=owner).json() == {"paused": False}


def test_one_picture_for_frames_that_fetch_one(client: TestClient, queue: SqliteQueue) -> None:
    share(queue, "a.png")
    share(queue, "broken.png")
    (queue.folder / "broken.png").write_bytes(b"no picture")
    for ending, format in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
        image = opened(client.get(f"/frame/image.{ending}?w=400&h=240"))
        assert (image.format, image.size) == (format, (400, 240))
    assert client.get("/frame/image.gif").status_code == 404


def test_one_picture_within_so_many_bytes_and_in_a_panels_colours(client: TestClient, queue: SqliteQueue) -> None:
    share(queue, "a.png")
    small = client.get("/frame/image.jpg?w=800&h=480&max_kb=8")
    assert len(small.content) <= 8000 and opened(small).size[0] > 300
    inks = opened(client.get("/frame/image.png?w=200&h=120&palette=spectra6")).convert("RGB")
    assert len(inks.getcolors() or ()) <= 6
    assert client.get("/frame/image.png?palette=paper").status_code == 400


def test_an_empty_album_has_no_picture(client: TestClient) -> None:
    assert client.get("/frame/list").json()["pictures"] == []
    assert client.get("/frame/image.jpg").status_code == 404


def png(colour: str) -> bytes:
    Image.new("RGB", (640, 480), colour).save(data := io.BytesIO(), "PNG")
    return data.getvalue()


def test_pictures_of_a_feed_and_of_immich(queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = immich.Library()
    library.add(immich.Stored("cake", png("blue")), "Family")
    library.add(immich.Stored("passport", png("green")))
    with site.served(site.Site()) as pages, immich.served(library):
        pages.put("/a.png", png("red"))
        feeds = "news=" + pages.put("/list.json", ["/a.png", "/broken.png"])
        for client in clients(queue, tmp_path, monkeypatch, feeds=feeds, immich=library.url, immich_key=immich.KEY):
            for show, colour in (("feed:news", (254, 0, 0)), ("immich:Family", (0, 0, 254))):
                ids = client.get("/frame/list", params={"show": show}).json()["pictures"]
                answers = [client.get(f"/frame/picture/{each}", params={"show": show}) for each in ids]
                pixels = [opened(answer).convert("RGB").getpixel((9, 9)) for answer in answers if answer.is_success]
                assert pixels == [pytest.approx(colour, abs=4)]
                assert {answer.status_code for answer in answers} <= {200, 404}
                turn = client.get("/frame/image.png", params={"show": show})
                assert opened(turn).convert("RGB").getpixel((9, 9)) == pytest.approx(colour, abs=4)
                assert client.get(f"/frame/picture/{ids[0]}", params={"show": "album"}).status_code == 404
            assert client.get("/frame/list", params={"show": "immich:Friends"}).json()["pictures"] == []
            refused = client.get("/frame/list", params={"show": "feed:others"})
            assert refused.status_code == 400 and immich.KEY not in refused.text and library.url not in refused.text


def test_without_immich_there_is_none(client: TestClient) -> None:
    assert client.get("/frame/list", params={"show": "immich"}).status_code == 400


def test_a_share_that_hangs_keeps_no_frame_from_the_album(
    client: TestClient, queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(queue, "a.png")
    for number in range(routes.THREADS + 1):
        Image.new("RGB", (80 + number, 60)).save(tmp_path / "holidays" / f"{number}.jpg")
    gate, true_opened = threading.Event(), reading.opened

    def hanging(folder: Path, path: Path) -> int:
        gate.wait(60)
        return true_opened(folder, path)

    monkeypatch.setattr(reading, "opened", hanging)
    monkeypatch.setattr(album_folders, "FILE_S", 0.05)
    there = client.get("/frame/list?show=folder:holidays").json()["pictures"]
    assert len(there) > routes.THREADS
    for picture in there:
        answer = client.get(f"/frame/picture/{picture}?show=folder:holidays")
        assert (answer.status_code, answer.json()["code"]) == (503, "folder_away")
    assert client.get("/frame/image.jpg?show=folder:holidays").status_code == 404, "it has nothing to send"
    assert opened(client.get(f"/frame/picture/{listed(client)[0]}")).size[1] > 1
    assert opened(client.get("/frame/image.jpg?show=album,folder:holidays")).size[0] == 800, "the album's"
    monkeypatch.setattr(album_folders, "FILE_S", 60.0)
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "album":
            thread.join(60)
    assert opened(client.get(f"/frame/picture/{there[0]}?show=folder:holidays")).size == (80 + routes.THREADS, 60)
