"""The wall of pictures: pages, what is looked for, favourites, deletions and archives, and whose they are."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from engines.messages import Enhance, Final, Generate, Preview, Request, pack
from tests.support.http import SKETCH, Session, encoded, people, refused, succeeded, tree
from webui import sweep
from webui.i18n import LANGUAGES, words
from webui.panels.history import SHOWN, find, wall
from webui.panels.history.cards import when_text

if TYPE_CHECKING:
    from tests.support.server import Rig

EN, ZH = words("en"), words("zh")
NOTHING = ["mine", "", "", "", 0, False]  # what the controls hold on a page that was just opened


@dataclass
class Wall:
    """A page, and pictures that its browser has asked for."""

    rig: Rig
    page: Session
    owner: str
    count: int = 0

    def add(self, request: Request, *events: Preview, **columns: Any) -> str:
        """One more picture, newer than the others."""
        self.count += 1
        job_id, name = f"{time.time_ns():032x}", f"outputs_20260101{self.count:06}_{time.time_ns() % 10**9:09}.png"
        values = {
            "id": job_id, "request": pack(request), "state": "done", "ended": 1e9 + self.count, "owner": self.owner,
            **columns,
        }  # fmt: skip
        (self.rig.settings.outputs / name).write_bytes(encoded(people().resize((90, 90)), "PNG"))
        with self.rig.queue._transaction() as db:
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO job({', '.join(values)}) VALUES({marks})", tuple(values.values()))
            for k, event in enumerate((*events, Final((name,), 7, 1.0, "ort"))):
                db.execute("INSERT INTO event VALUES(?, ?, ?)", (job_id, k, pack(event)))
        return job_id

    def call(self, handler: str, data: list[Any] | None = None, event: Any = None) -> Any:
        """What the wall is sent, or None: it was refused."""
        messages = self.page.call(self.page.endpoint(handler, "history"), data or [], event)
        return messages[-1]["output"]["data"][0] if succeeded(messages) else None

    def first(self, *values: Any) -> Any:
        return self.call("refresh", [*values, *NOTHING[len(values) :]])

    def look_for(self, **values: Any) -> list[str]:
        names = ("which", "words", "kind", "bundle", "days", "favourite")
        asked = dict(zip(names, NOTHING, strict=True)) | values
        return jobs(self.first(*asked.values()))

    def address(self, job_id: str) -> str:
        return f"outputs/{self.rig.signed(self.rig.queue.latest(job_id))}"  # type: ignore[arg-type]

    def status(self, address: str) -> int:
        return self.page.client.get(address).status_code


@pytest.fixture
def wall_of(idle: Rig) -> Iterator[Wall]:
    idle.settings.outputs.mkdir(exist_ok=True)
    with idle.session("en") as page:
        wanted = {"json": {"prompt": "x", **SKETCH}, "headers": {"prefer": "respond-async"}}
        job_id = page.client.post("/generate", **wanted).json()["id"]
        owner = idle.queue.job(job_id).owner
        idle.queue.cancel(job_id)
        yield Wall(idle, page, owner)


def cards(value: Any) -> list[dict[str, str]]:
    return tree(value["cards"]).all("article")


def jobs(value: Any) -> list[str]:
    return [card["data-job"] for card in cards(value)]


# ---- pages


def test_pages_go_on_to_the_end_and_meet_every_picture_once(wall_of: Wall) -> None:
    added = [wall_of.add(Generate(f"number {k}")) for k in range(2 * SHOWN + 3)]
    value = wall_of.first()
    met = jobs(value)
    assert met == added[: -SHOWN - 1 : -1]
    while more := tree(value["rest"]).all("button"):
        value = wall_of.call("more", NOTHING, {"after": more[0]["data-more"]})
        met += jobs(value)
    assert met == added[::-1] and value["show"] == "more"


def test_the_first_view_weighs_little(wall_of: Wall) -> None:
    """Its HTML; 24 thumbnails have 30 KB each at most."""
    for k in range(SHOWN + 1):
        wall_of.add(Generate("a long prompt, " * 40 + str(k)))
    value = wall_of.first()
    assert sum(len(text.encode()) for text in value.values() if isinstance(text, str)) < 150_000
    images = {image["src"] for image in tree(value["cards"]).all("img")}
    assert len(images) == SHOWN and all(source.startswith("thumbnails/") for source in images)
    assert SHOWN * 30_000 + 150_000 < 1_000_000
    assert [wall_of.status(source) for source in sorted(images)[:2]] == [200, 200]


@pytest.mark.parametrize("after", [None, "", "1", "x y", "1e999 3", "-1 -1", "nan 1", ["1 2"], "9" * 400 + " 1"])
def test_a_page_after_nothing_is_refused(wall_of: Wall, after: Any) -> None:
    assert wall_of.call("more", NOTHING, {"after": after}) is None


def test_without_pictures_it_says_what_will_be_there(wall_of: Wall) -> None:
    value = wall_of.first()
    assert EN("history_empty") in value["rest"] and value["cards"] == value["tools"] == ""
    assert EN("history_none") in wall_of.first("mine", "no such words")["rest"]
    assert EN("album_has_some") not in value["rest"]
    shared = wall_of.add(Generate("x"), owner="somebody", shared=1)
    try:
        assert EN("album_has_some") in wall_of.first()["rest"]
    finally:
        wall_of.rig.queue.share(shared, False)


# ---- what is looked for


def test_what_is_found(wall_of: Wall) -> None:
    glasses = wall_of.add(Generate("a man with Glasses, 100%"))
    photo = wall_of.add(Enhance("/x", name="grandpa.jpg"), favourite=1)
    suit = wall_of.add(Generate("西装", preset="business", bundle="mine"), ended=time.time())
    assert wall_of.look_for() == [suit, photo, glasses]
    assert wall_of.look_for(words=" glasses   MAN ") == [glasses]
    assert wall_of.look_for(words="100%") == [glasses] and wall_of.look_for(words="1_0") == []
    assert wall_of.look_for(words="Grandpa") == [photo]
    assert wall_of.look_for(words="business") == wall_of.look_for(words="商务") == [suit], "a preset, in both languages"
    assert wall_of.look_for(kind="portraits") == [suit, glasses] and wall_of.look_for(kind="photos") == [photo]
    offered = wall_of.page.answer(wall_of.page.endpoint("offer_bundles"), [])[0]
    assert [name for _, name in offered["choices"]] == ["", "mine", "portrait", "restorer"] and offered["visible"]
    assert wall_of.look_for(bundle="mine") == [suit] and wall_of.look_for(favourite=True) == [photo]
    assert wall_of.look_for(days=1) == wall_of.look_for(days=30) == [suit]
    assert wall_of.look_for(kind="portraits", words="man") == [glasses]


def test_a_preset_that_was_asked_for_in_one_language_is_found_in_the_other(wall_of: Wall) -> None:
    import presets

    wording = next(preset for preset in presets.load() if preset.name == "business").attributes.prompt
    job_id = wall_of.add(Generate(wording["zh"], preset="business"))
    other = wall_of.add(Generate("somebody in a coat"))
    assert wall_of.look_for(words="blue suit") == [job_id] and wall_of.look_for(words="蓝色西装") == [job_id]
    assert other in wall_of.look_for(words="coat")


@pytest.mark.parametrize(
    "values", [[None] * 5, ["", {}, [], "x", "yes"], [["a"], "dream", 5, -1, 1], ["x " * 5000, "", "", 7.5, None]]
)
def test_anybody_may_send_anything(values: list[Any]) -> None:
    search = find.search("me", values)
    assert search.owner == "me" and len(search.words) <= find.MOST_WORDS and search.since == 0.0
    assert search.kind == "" and search.favourite is False


def test_today_begins_at_midnight() -> None:
    noon = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))
    assert time.localtime(find.since_s(1, noon))[:6] == (2026, 3, 5, 0, 0, 0)
    assert time.localtime(find.since_s(7, noon))[:6] == (2026, 2, 27, 0, 0, 0) and find.since_s(0, noon) == 0.0


def test_pages_of_one_search_go_together(wall_of: Wall) -> None:
    """By which a page knows whether an answer still belongs to what it shows."""
    for k in range(SHOWN + 1):
        wall_of.add(Generate("lately"), ended=time.time() - 60 + k)
    asked = ["mine", "lately", "portraits", "", 30, False]
    first = wall_of.first(*asked)
    (button,) = tree(first["rest"]).all("button")
    second = wall_of.call("more", asked, {"after": button["data-more"]})
    assert len(cards(second)) == 1 and second["query"] == first["query"]
    assert wall_of.first(*asked[:4], 7, False)["query"] != first["query"]


def test_in_the_album_nobody_looks_for_words(wall_of: Wall) -> None:
    """They are their owners': who could ask for one after the other would know them in the end."""
    job_id = wall_of.add(Generate("a secret word"), owner="somebody", shared=1)
    try:
        assert len(cards(wall_of.first("album", "another"))) == len(cards(wall_of.first("album", "secret"))) == 1
        assert "secret" not in str(wall_of.first("album")) and wall_of.look_for(words="secret") == []
        tools = tree(wall_of.first("album")["tools"])
        assert not tools.all("button") and [link["href"] for link in tools.all("a")] == ["frame"]
    finally:
        wall_of.rig.queue.share(job_id, False)


# ---- favourites


def test_a_favourite_is_marked_and_the_heart_says_so(wall_of: Wall) -> None:
    first, second = wall_of.add(Generate("a")), wall_of.add(Generate("b"))
    value = wall_of.call("favour", [], {"jobs": [first, second], "favourite": True})
    assert value["show"] == "changed" and jobs(value) == [first, second]
    hearts = [b for b in tree(value["cards"]).all("button") if b.get("class") == "heart"]
    assert [(b["aria-pressed"], b["data-act"], b["aria-label"]) for b in hearts] == [
        ("true", "unfavour", EN("history_favourite"))
    ] * 2
    assert wall_of.look_for(favourite=True) == [second, first]
    wall_of.call("favour", [], {"jobs": [first], "favourite": False})
    assert wall_of.look_for(favourite=True) == [second]


# ---- deleting


def test_a_deletion_is_seen_at_once_and_can_be_taken_back(wall_of: Wall) -> None:
    first, second = wall_of.add(Generate("a")), wall_of.add(Generate("b"))
    address = wall_of.address(first)
    (position,) = [card["data-position"] for card in cards(wall_of.first()) if card["data-job"] == first]
    assert wall_of.status(address) == 200
    value = wall_of.call("delete", [], {"jobs": [first]})
    assert value["gone"] == [position] and EN("history_deleted", count=1) in value["undo"]
    assert wall_of.look_for() == [second]
    for place in (address, address.replace("outputs/", "thumbnails/")):
        refused(wall_of.page.client.get(place), 404, "not_found")
    assert wall_of.status(f"/jobs/{first}") == wall_of.status(f"/batch.zip?jobs={first}") == 404
    again = tree(wall_of.first()["undo"])  # the page was closed in between
    (button,) = again.all("button")
    assert button["data-undo"] == first
    back = wall_of.call("undo", [], {"jobs": button["data-undo"].split()})
    assert jobs(back) == [first] and cards(back)[0]["data-position"] == position
    assert wall_of.look_for() == [second, first] and wall_of.status(address) == 200
    assert wall_of.first()["undo"] == ""


def test_a_sweep_makes_it_final_and_not_before_its_time(wall_of: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = wall_of.add(Generate("a"))
    path = wall_of.rig.settings.outputs / wall_of.address(job_id).rpartition("/")[2]
    wall_of.call("delete", [], {"jobs": [job_id]})
    sweep.sweep(wall_of.rig.queue, wall_of.rig.settings)
    assert path.exists() and sweep.UNDO_S > 2 * wall.OFFERED_S, "an answer takes a while"
    now = time.time()
    monkeypatch.setattr(sweep.time, "time", lambda: now + sweep.UNDO_S + 1)
    sweep.sweep(wall_of.rig.queue, wall_of.rig.settings)
    assert not path.exists()
    messages = wall_of.page.call(wall_of.page.endpoint("undo", "history"), [], {"jobs": [job_id]})
    assert EN("history_too_late") in str(messages[-1])


@pytest.mark.parametrize(
    ("handler", "event"), [("delete", {}), ("favour", {"favourite": True}), ("put", {"shared": True}), ("undo", {})]
)
def test_nobody_touches_what_is_somebody_elses(wall_of: Wall, handler: str, event: dict[str, Any]) -> None:
    theirs, nobodys = wall_of.add(Generate("a"), owner="somebody"), wall_of.add(Generate("b"), owner="")
    if handler == "undo":
        wall_of.rig.queue.delete([theirs], "somebody", time.time())
    for job_id in (theirs, nobodys) if handler != "put" else (theirs,):
        assert wall_of.call(handler, [], {"jobs": [job_id], "job": job_id, **event}) is None
    left = wall_of.rig.queue.finished_jobs([theirs], "somebody")
    assert len(left) == (handler != "undo") and not any(f.favourite or f.shared for f in left)
    wall_of.rig.queue.delete([theirs], "somebody", time.time())


@pytest.mark.parametrize("sent", [None, "x", {}, [], [None], [{"a": 1}], ["../x"], [["f" * 32]]])
def test_what_is_no_list_of_jobs_deletes_nothing(wall_of: Wall, sent: Any) -> None:
    job_id = wall_of.add(Generate("a"))
    assert wall_of.call("delete", [], {"jobs": sent}) is None
    assert wall_of.look_for() == [job_id]


# ---- archives


def test_any_pictures_of_ones_own_come_as_one_file(wall_of: Wall) -> None:
    added = [wall_of.add(Generate("a")), wall_of.add(Enhance("/x", name="b"))]
    theirs = wall_of.add(Generate("c"), owner="somebody")
    gone = wall_of.add(Generate("d"))
    wall_of.rig.queue.delete([gone], wall_of.owner, time.time())
    answer = wall_of.page.client.get("/batch.zip", params={"jobs": "-".join([*added, theirs, gone, added[0]])})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as pack_:
        assert pack_.testzip() is None
        assert pack_.namelist() == [wall_of.address(job_id).rpartition("/")[2] for job_id in added]


def test_an_archive_of_a_thousand_can_be_asked_for(wall_of: Wall) -> None:
    """In one address, of 33 KB."""
    job_id = wall_of.add(Generate("a"))
    wanted = "-".join(["f" * 32] * 999 + [job_id])
    assert wall_of.status(f"/batch.zip?jobs={wanted}") == 200


# ---- the card


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_says_when_in_words(language: str) -> None:
    say, now = words(language), time.mktime((2026, 3, 1, 0, 30, 0, 0, 0, -1))

    def said(*then: int) -> str:
        return when_text(time.mktime((*then, 0, 0, 0, -1)), now, say)  # type: ignore[arg-type]

    assert said(2026, 3, 1, 0, 5) == {"zh": "今天 00:05", "zh-TW": "今天 00:05", "en": "Today 00:05"}[language]
    assert said(2026, 2, 28, 23, 59) == {"zh": "昨天 23:59", "zh-TW": "昨天 23:59", "en": "Yesterday 23:59"}[language]
    assert said(2026, 2, 27, 23, 59) == {"zh": "2月27日", "zh-TW": "2月27日", "en": "27 Feb"}[language]
    assert (
        said(2025, 12, 31, 12, 0) == {"zh": "2025年12月31日", "zh-TW": "2025年12月31日", "en": "31 Dec 2025"}[language]
    )


def test_a_restored_photo_is_shown_before_and_after(wall_of: Wall) -> None:
    before = f"preview_{'a' * 32}.webp"
    (wall_of.rig.settings.outputs / before).write_bytes(encoded(people(), "WEBP"))
    job_id = wall_of.add(Enhance("/x", name="a.jpg"), Preview(0, before, kind="before"))
    images = tree(wall_of.first()["cards"]).all("img")
    signed = wall_of.rig.house.keys.sign(before)
    assert [image["src"] for image in images] == [
        f"thumbnails/{signed}", wall_of.address(job_id).replace("outputs/", "thumbnails/"),
    ]  # fmt: skip
    assert {EN("restore_before"), EN("restore_after")} <= set(tree(wall_of.first()["cards"]).text)
    (wall_of.rig.settings.outputs / before).unlink()
    assert len(tree(wall_of.first()["cards"]).all("img")) == 1
    assert "种子" not in str(wall_of.first()) and "seed" not in str(wall_of.first()["cards"]), "it has none"


def test_every_control_of_a_card_has_a_name(wall_of: Wall) -> None:
    wall_of.add(Generate("a word"))
    parsed = tree(wall_of.first()["cards"])
    for kind in ("button", "summary", "input"):
        named = [b.get("aria-label") for b in parsed.all(kind)]
        assert named, kind
    heart, *_ = parsed.all("button")
    assert heart["aria-pressed"] == "false"
    assert parsed.all("input")[0]["aria-label"] == f"{EN('history_choose')}: a word"
    assert "seed 7" in " ".join(parsed.text)
