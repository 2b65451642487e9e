"""Folders of the owner's on the wall of pictures: all that is in them is seen, photos are taken, nothing is changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from engines.messages import Inspect
from tests.support.http import FILE_DATA, Session, people, succeeded, tree
from webui.albums.folders import Listed, Pictures
from webui.i18n import words
from webui.panels.history import SHOWN, folder_wall

if TYPE_CHECKING:
    from tests.support.server import Rig

EN = words("en")
HOLIDAYS = ["folder:holidays", "", "", "", 0, False]  # what the controls hold
MANY = 20_000


@dataclass
class Wall:
    """A page that shows a folder; and the folder, for this test."""

    rig: Rig
    page: Session
    root: Path

    def call(self, name: str, data: list[Any], event: Any = None) -> Any:
        """What the wall is sent, or None: it was refused."""
        messages = self.page.call(self.page.endpoint(name, "history"), data, event)
        return messages[-1]["output"]["data"] if succeeded(messages) else None

    def first(self) -> Any:
        return self.call("refresh", HOLIDAYS)[0]

    def take(self, name: str, picture: str) -> list[dict[str, Any]]:
        """Press a button under a picture."""
        endpoints = (e for e in self.page.endpoints if str(e["api_name"]).startswith(name))
        pressed = next(e for e in endpoints if self.page.elem_id(e["targets"][0][0]) == "history")
        return self.page.call(pressed, [], {"picture": picture})


@pytest.fixture
def wall(idle: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wall]:
    root = idle.settings.album_folders["holidays"]
    monkeypatch.setattr(folder_wall, "PATIENCE_S", 60.0)
    with _emptied(root), idle.session("en") as page:
        yield Wall(idle, page, root)


@contextmanager
def _emptied(root: Path) -> Iterator[None]:
    """In the end there is nothing in it again."""
    try:
        yield
    finally:
        shutil.rmtree(root)
        root.mkdir()


@pytest.fixture(autouse=True)
def read_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once a minute."""
    true_pictures = Listed.pictures

    def pictures(listed: Listed, patience_s: float | None = None) -> Pictures:
        listed._until = float("-inf")
        return true_pictures(listed, patience_s)

    monkeypatch.setattr(Listed, "pictures", pictures)


def put(root: Path, name: str, at: float = 1e9) -> Path:
    register_heif_opener()
    people().resize((300, 200)).save(root / name)
    os.utime(root / name, (at, at))
    return root / name


def cards(value: Any) -> list[dict[str, str]]:
    return tree(value["cards"]).all("article")


def names(value: Any) -> list[str]:
    return [image["alt"] for image in tree(value["cards"]).all("img")]


# ---- the wall


def test_each_folder_stands_beside_the_album_by_its_name(wall: Wall) -> None:
    (radio,) = (c for c in wall.page.components.values() if c["props"].get("elem_id") == "collection")
    assert [value for _, value in radio["props"]["choices"]] == ["mine", "album", "folder:holidays", "folder:wedding"]
    assert [label for label, _ in radio["props"]["choices"]][2:] == ["holidays", "wedding"]


def test_pages_go_on_to_the_end_and_meet_every_picture_once(wall: Wall) -> None:
    for k in range(2 * SHOWN + 3):
        (wall.root / f"{k}.jpg").write_bytes(b"x")
        os.utime(wall.root / f"{k}.jpg", (1e9 + k // 5, 1e9 + k // 5))  # five of one moment
    value = wall.first()
    met, positions = names(value), [card["data-position"] for card in cards(value)]
    assert len(met) == SHOWN and value["again"] == 0 and value["notice"] == ""
    while more := tree(value["rest"]).all("button"):
        (value,) = wall.call("more", HOLIDAYS, {"after": more[0]["data-more"]})
        met += names(value)
        positions += [card["data-position"] for card in cards(value)]
        assert value["query"] == "folder:holidays"
    assert sorted(met, key=lambda name: int(name[:-4])) == [f"{k}.jpg" for k in range(2 * SHOWN + 3)]
    assert [int(name[:-4]) // 5 for name in met] == sorted((int(name[:-4]) // 5 for name in met), reverse=True)
    numbers = [tuple(map(float, position.split())) for position in positions]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) == len(numbers), "a page sorts by them"


def test_of_very_many_a_page_has_its_own_cards_alone_and_no_file_is_looked_at() -> None:
    """There is none of them."""
    shown = {f"{k:032x}": folder_wall.Shown(Path(f"/nowhere/{k}.jpg"), 1e9 - k) for k in range(MANY)}

    class Listed:
        is_away = False

        def pictures(self, patience_s: float) -> dict[str, folder_wall.Shown]:
            return shown

    folder: Any = Listed()
    value = folder_wall.first_page("many", folder, EN)
    for page in range(1, 41):
        since, number = tree(value["rest"]).all("button")[0]["data-more"].split()
        value = folder_wall.next_page("many", folder, (float(since), int(number)), EN)
        assert names(value) == [f"{k}.jpg" for k in range(page * SHOWN, (page + 1) * SHOWN)]
        assert sum(len(text) for text in value.values() if isinstance(text, str)) < 100_000


def test_a_card_has_the_next_step_and_nothing_that_changes_anything(wall: Wall) -> None:
    put(wall.root, "grandma.heic")
    value = wall.first()
    (card,) = cards(value)
    html = tree(value["cards"])
    assert "data-job" not in card and not html.all("input")
    assert [button["data-take"] for button in html.all("button")] == ["restore", "begin_with"]
    small, (large, original, _) = html.all("img")[0]["src"], [link["href"] for link in html.all("a")]
    answers = [wall.page.client.get(address) for address in (small, large, original)]
    assert [answer.headers["content-type"] for answer in answers] == ["image/webp", "image/webp", "image/heic"]
    assert all(answer.headers["x-content-type-options"] == "nosniff" for answer in answers)
    assert answers[2].content == (wall.root / "grandma.heic").read_bytes()
    assert str(wall.root) not in str(value)
    assert [link["href"] for link in tree(value["tools"]).all("a")] == ["frame?show=folder%3Aholidays"]


def test_an_empty_folder_says_so(wall: Wall) -> None:
    value = wall.first()
    assert EN("albums_empty", name="holidays") in tree(value["rest"]).text and value["cards"] == value["tools"] == ""


def test_a_folder_that_is_away_says_so_in_one_sentence_and_is_looked_at_again(wall: Wall) -> None:
    put(wall.root, "a.jpg")
    assert names(wall.first()) == ["a.jpg"]
    shutil.move(wall.root, wall.root.with_name("away"))
    value = wall.first()
    assert names(value) == ["a.jpg"], "it is not gone"
    assert tree(value["notice"]).text == [EN("albums_away", name="holidays")] and value["again"] > 0
    messages = wall.take("to_restore", cards(value)[0]["data-picture"])
    assert not succeeded(messages)
    shutil.move(wall.root.with_name("away"), wall.root)
    value = wall.first()
    assert value["notice"] == "" and value["again"] == 0


@pytest.mark.parametrize(
    "which", ["folder:", "folder:nowhere", "folder:../idle", "holidays", None, 7, ["folder:holidays"]]
)
def test_a_folder_that_is_none_shows_nothing_of_one(wall: Wall, which: Any) -> None:
    put(wall.root, "a.jpg")
    value = wall.call("refresh", [which, *HOLIDAYS[1:]])
    assert value is None or "a.jpg" not in str(value)


@pytest.mark.parametrize("after", [None, "", "x y", "1e999 3", "nan 1"])
def test_a_page_after_nothing_is_refused(wall: Wall, after: Any) -> None:
    assert wall.call("more", HOLIDAYS, {"after": after}) is None


# ---- what is taken from it


@pytest.mark.parametrize("name", ["to_restore", "to_start"])
@pytest.mark.parametrize("file", ["a.jpg", "外婆.heic"])
def test_a_photo_is_handed_on_as_a_copy(wall: Wall, name: str, file: str) -> None:
    path = put(wall.root, file)
    content, before = path.read_bytes(), path.stat()
    messages = wall.take(name, cards(wall.first())[0]["data-picture"])
    assert succeeded(messages), messages
    (photo,) = (each for each in messages[-1]["output"]["data"] if isinstance(each, dict) and "path" in each)
    copy = Path(photo["path"])
    assert not copy.is_relative_to(wall.root) and copy.name == file and copy.read_bytes() == content
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == (
        content, before.st_mtime_ns, before.st_ino,
    )  # fmt: skip
    assert not list(wall.rig.cache.glob("*.tmp")) and not list(wall.rig.cache.glob(".*"))
    if name == "to_restore":  # as a page does when it has the answer
        earlier = wall.rig.jobs()
        wall.page.begin(wall.page.endpoint("advise"), [{**photo, "meta": FILE_DATA}, None, "", "all"])
        (order,) = (wall.rig.queue.job(job_id).request for job_id in wall.rig.jobs() if job_id not in earlier)
        assert isinstance(order, Inspect) and Path(order.image).read_bytes() == content


@pytest.mark.parametrize(
    "picture",
    [
        None,
        "",
        "holidays",
        "holidays/",
        "holidays/a.jpg",
        "nowhere/{}",
        "wedding/{}",
        "../holidays/{}",
        ["holidays/{}"],
    ],
)
def test_nothing_else_is_handed_on(wall: Wall, picture: Any) -> None:
    put(wall.root, "a.jpg")
    picture_id = cards(wall.first())[0]["data-picture"].rpartition("/")[2]
    asked = picture.format(picture_id) if isinstance(picture, str) else picture
    before = wall.rig.cached()
    for name in ("to_restore", "to_start"):
        assert not succeeded(wall.take(name, asked))
    assert wall.rig.cached() == before


def test_a_folder_is_read_only(wall: Wall) -> None:
    """With everything that can be done to one's own pictures."""
    put(wall.root, "a.jpg")
    picture = cards(wall.first())[0]["data-picture"]
    for handler, event in (
        ("delete", {"jobs": [picture]}), ("favour", {"jobs": [picture], "favourite": True}),
        ("put", {"job": picture, "shared": True, "position": "1 1"}),
    ):  # fmt: skip
        assert wall.call(handler, ["folder:holidays"] if handler == "put" else [], event) is None
    assert names(wall.first()) == ["a.jpg"]
    with Image.open(wall.root / "a.jpg") as image:
        assert image.size == (300, 200)


def test_in_a_house_with_a_password_nobody_sees_them_who_may_not_come_in(closed: Rig) -> None:
    assert closed.client.get(f"/albums/holidays/{'0' * 32}").status_code == 401
    assert closed.client.get(f"/albums/holidays/{'0' * 32}/thumbnail").status_code == 401
