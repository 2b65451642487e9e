"""The addresses of folders: what is sent, as what, and nothing else."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pillow_heif import register_heif_opener

from engines.settings import Settings
from tests.support.http import people
from webui import albums, api
from webui.albums import Folder, folders, folders_of, reading, routes
from webui.albums.routes import LARGE_PX, THUMBNAIL_BYTES, THUMBNAIL_PX

NAME = "假日 & 'more'"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / NAME).mkdir()
    return folder


@pytest.fixture
def opened(root: Path, tmp_path: Path) -> dict[str, Folder]:
    (tmp_path / "other").mkdir()
    return folders_of({NAME: root, "other": tmp_path / "other"}, b"secret", most_bytes=2_000_000)


@pytest.fixture
def client(opened: dict[str, Folder], tmp_path: Path) -> Iterator[TestClient]:
    app, door = FastAPI(), APIRouter()
    api.install_errors(app)
    albums.add(door, opened, Settings(home=tmp_path / "home"))
    app.include_router(door)
    with TestClient(app) as client:
        yield client


def photo(path: Path, size: tuple[int, int] = (1200, 800)) -> Path:
    register_heif_opener()
    people().resize(size).save(path)
    return path


def address(opened: dict[str, Folder], copy: str = "") -> str:
    (picture_id,) = opened[NAME].pictures()
    return albums.address(NAME, picture_id, copy)


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """Return the sentence."""
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    return str(answer.json()["message"])


def image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("name", ["a.jpg", "b.PNG", "c.webp", "d.heic"])
def test_copies_of_every_kind_are_webp_small_and_large(
    client: TestClient, opened: dict[str, Folder], root: Path, name: str
) -> None:
    photo(root / name, (3000, 2000))
    small, large = client.get(address(opened, "thumbnail")), client.get(address(opened, "large"))
    for answer, width in ((small, THUMBNAIL_PX), (large, LARGE_PX)):
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"
        assert image(answer.content).format == "WEBP" and image(answer.content).size == (width, round(width / 1.5))
    assert len(small.content) <= THUMBNAIL_BYTES
    assert "private" in small.headers["cache-control"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.JPG", "image/jpeg"), ("b.jfif", "image/jpeg"), ("c.png", "image/png"), ("d.webp", "image/webp"),
     ("e.heic", "image/heic"), ("照片 \"1\"; x.hif", "image/heic")],
)  # fmt: skip
def test_the_file_itself_is_taken_along_and_not_shown(
    client: TestClient, opened: dict[str, Folder], root: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Whatever is in it: nothing looks."""
    data = b"<script>alert(1)</script>" * 100_000 if kind == "image/png" else b"<html>"
    data = data[:1_500_000]
    (root / name).write_bytes(data)
    answer = client.get(address(opened))
    assert answer.status_code == 200 and answer.content == data
    assert answer.headers["content-type"] == kind and answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    assert not list((tmp_path / "home" / "tmp").iterdir()) and (root / name).read_bytes() == data


def test_nothing_but_what_is_listed(client: TestClient, opened: dict[str, Folder], root: Path, tmp_path: Path) -> None:
    photo(root / "a.jpg")
    photo(tmp_path / "secret.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "notes.txt").write_text("x")
    (picture_id,) = opened[NAME].pictures()
    here, nobodys = f"/albums/{quote(NAME)}", "0" * 32
    for path in (
        *(f"{here}/{nobodys}", f"{here}/{nobodys}/thumbnail", f"{here}/{picture_id}/huge", f"{here}/{picture_id}%00"),
        *(f"{here}/a.jpg", f"{here}/link.jpg", f"{here}/notes.txt", f"{here}/%2e%2e", f"{here}/..%2fsecret.jpg"),
        *(f"{here}/{quote(str(tmp_path / 'secret.jpg'), safe='')}", f"{here}/{picture_id}/..%2f.."),
        *(f"/albums/other/{picture_id}", f"/albums/other/{picture_id}/large", f"/albums/nowhere/{picture_id}"),
        f"/albums/..%2f{quote(NAME)}/{picture_id}",
    ):
        assert client.get(path).status_code == 404, path
        assert str(tmp_path) not in client.get(path).text
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, address(opened)).status_code == 405
    assert client.get(address(opened, "thumbnail")).status_code == 200


def test_a_broken_file_is_said_to_be_one_and_can_be_taken_along(
    client: TestClient, opened: dict[str, Folder], root: Path
) -> None:
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    for _ in range(2):
        refused(client.get(address(opened, "thumbnail")), 415, "bad_image")
    assert client.get(address(opened)).content == b"\xff\xd8\xff no picture"


def test_a_file_that_is_too_large_is_refused(client: TestClient, opened: dict[str, Folder], root: Path) -> None:
    (root / "a.png").write_bytes(bytes(2_000_001))
    for copy in ("", "thumbnail"):
        assert "2 MB" in refused(client.get(address(opened, copy)), 413, "file_too_large")


def test_a_thumbnail_that_was_seen_is_there_while_the_share_is_not(
    client: TestClient, opened: dict[str, Folder], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(root / "a.jpg")
    place = address(opened, "thumbnail")
    first = client.get(place).content
    monkeypatch.setattr(reading, "opened", lambda *_: os.open(tmp_path / "nowhere" / "x", 0))
    shutil.move(root, tmp_path / "away")
    assert client.get(place).content == first
    assert client.get(address(opened)).status_code == 404

    def away(*_: object) -> int:
        raise OSError(112, "Host is down")

    monkeypatch.setattr(reading, "opened", away)
    for copy in ("", "large"):
        refused(client.get(address(opened, copy)), 503, "folder_away")


def test_a_share_that_hangs_keeps_the_other_folders_going(
    client: TestClient, opened: dict[str, Folder], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(root / "a.jpg")
    photo(tmp_path / "other" / "b.jpg")
    gate, true_opened = threading.Event(), reading.opened

    def hanging(folder: Path, path: Path) -> int:
        if folder == root:
            gate.wait(60)
        return true_opened(folder, path)

    monkeypatch.setattr(reading, "opened", hanging)
    monkeypatch.setattr(folders, "FILE_S", 0.05)
    for _ in range(2 * routes.THREADS):
        refused(client.get(address(opened, "thumbnail")), 503, "folder_away")
    monkeypatch.setattr(folders, "FILE_S", 60.0)
    (other,) = opened["other"].pictures()
    assert client.get(albums.address("other", other, "thumbnail")).status_code == 200
    gate.set()
