"""A person's own presets on the page: what is saved of a form, what comes back, and strangers' words and files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import presets
from engines.messages import Final
from tests.support.http import SKETCH, Session, refused, succeeded, tree
from webui.i18n import words
from webui.own_presets import MOST

if TYPE_CHECKING:
    from tests.support.server import Rig

EN = words("en")
UNSET = [0.8] * 8
XSS = '<img src=x onerror="alert(1)">'
BUILT_IN = (presets.FOLDER / "film.toml").read_text(encoding="utf-8")


@dataclass
class Row:
    """A page, and the row of presets as it was sent last."""

    page: Session
    value: Any = None

    def call(self, handler: str, data: list[Any], event: Any) -> list[dict[str, Any]]:
        return self.page.call(self.page.endpoint(handler, "presets"), data, event)

    def sent(self, handler: str, event: Any = None, data: list[Any] | None = None) -> Row:
        messages = self.call(handler, data or [], event)
        assert succeeded(messages), messages
        self.value = messages[-1]["output"]["data"][0]
        return self

    def keep(self, name: str, prompt: str = "a girl", **form: Any) -> Row:
        values = {
            "negative": "fog", "size": "64×64", "steps": 3, "guidance": 2.5, "bundle": "sketch", "job": "",
            "files": [], "names": None, "usual": None, **form,
        }  # fmt: skip
        return self.sent("keep", {"name": name}, [prompt, *values.values(), *UNSET])

    @property
    def ids(self) -> list[str]:
        return [button["data-own"] for button in tree(self.value["own"]).all("button") if "data-own" in button]

    @property
    def titles(self) -> list[str]:
        return [button["data-title"] for button in tree(self.value["own"]).all("button") if "data-title" in button]

    def fill(self, preset_id: str, bundle: str = "portrait") -> dict[str, Any]:
        """What the form's components become, by their ids."""
        endpoint = self.page.endpoint("fill_own")
        messages = self.page.call(endpoint, [bundle], {"id": preset_id})
        assert succeeded(messages), messages
        said = [str(message) for message in messages if message["msg"] == "log"]
        shown = zip(map(self.page.elem_id, endpoint["outputs"]), messages[-1]["output"]["data"], strict=True)
        return {"said": " ".join(said), **{name: plain(value) for name, value in shown}}


def plain(value: Any) -> Any:
    """None: it stays as it is."""
    if isinstance(value, dict) and value.get("__type__") == "update":
        return value.get("value")
    return value


@pytest.fixture
def row(rig: Rig) -> Iterator[Row]:
    with rig.session("en") as page:
        assert succeeded(page.call(page.endpoint("change_bundle"), ["sketch"]))  # whose sizes it offers from now on
        yield Row(page)


def test_a_form_comes_back_as_it_was(row: Row) -> None:
    row.keep("Blue", "a girl with glasses")
    (own,) = row.ids
    assert row.titles == ["Blue"] and row.value["focus"] == own
    form = row.fill(own)
    assert form["said"] == ""
    expected = {"prompt": "a girl with glasses", "size": "64×64", "steps": 3, "guidance": 2.5, "bundle": "sketch"}
    assert {name: form[name] for name in expected} == expected
    assert "seed" not in form and "count" not in form


def test_another_page_of_the_browser_has_them_and_nobody_else(rig: Rig, row: Row) -> None:
    row.keep("Blue")
    (own,) = row.ids
    with rig.session("en", of=row.page) as again, rig.session("en") as stranger:
        assert Row(again).sent("load").ids == [own]
        other = Row(stranger)
        assert other.sent("load").ids == []
        for handler in ("rename", "delete", "undo"):
            assert not succeeded(other.call(handler, [], {"id": own, "name": "mine now"})), handler
        assert not succeeded(stranger.call(stranger.endpoint("fill_own"), ["portrait"], {"id": own}))
        refused(stranger.client.get(f"/own-presets/{own}.toml"), 404, "not_found")
    refused(rig.client.get(f"/own-presets/{own}.toml"), 404, "not_found")
    assert row.sent("load").titles == ["Blue"]


def test_there_is_nothing_to_save_without_words(rig: Rig, row: Row) -> None:
    for prompt in ("", "  \n"):
        messages = row.call("keep", [prompt, "", "64×64", 3, 1, "sketch", "", [], None, None, *UNSET], {"name": "x"})
        assert EN("own_no_words") in str(messages)
    assert row.sent("load").ids == []


@pytest.mark.parametrize("name", ["", " ", "x" * 41, "a\u202eb", "a\0b"])
def test_a_name_that_is_none_is_refused_in_words(row: Row, name: str) -> None:
    messages = row.call("keep", ["a girl", "", "64×64", 3, 1, "sketch", "", [], None, None, *UNSET], {"name": name})
    assert not succeeded(messages) and "No preset can be made of this (title)" in str(messages)


@pytest.mark.parametrize("data", [["a"] * 6, ["a", "", "1×1", 3, 1, "sketch"], ["a", "", "64×64", 99, 1, "sketch"]])
def test_a_form_of_nobodys_saves_nothing(row: Row, data: list[Any]) -> None:
    assert not succeeded(row.call("keep", [*data, "", [], None, None, *UNSET], {"name": "x"}))
    assert row.sent("load").ids == []


def test_a_strangers_words_are_words(row: Row) -> None:
    """In the cards, in what is said, and in what a file says."""
    row.keep(XSS[:40], XSS)
    (own,) = row.ids
    assert row.titles == [XSS[:40]]
    assert tree(row.value["own"]).all("img") == []
    row.sent("delete", {"id": own})
    assert tree(row.value["undo"]).all("img") == [] and "&lt;img" in row.value["undo"]
    file = BUILT_IN.replace("order", f"'{XSS}' = 1\norder", 1)
    messages = row.call("take", [], {"text": file})
    assert not succeeded(messages) and "<img" not in str(messages)


def test_it_has_the_picture_that_its_words_made(rig: Rig, row: Row) -> None:
    order = {"prompt": "a girl with a hat", **SKETCH}
    answer = row.page.client.post("/generate", json=order, headers={"prefer": "respond-async"}).json()
    *_, last = rig.queue.follow(answer["id"])
    assert isinstance(last, Final)
    row.keep("hat", "a girl with a hat", job=answer["id"]).keep("other", "a boy", job=answer["id"])
    row.keep("no such job", "a girl with a hat", job="0" * 32)
    (image,) = tree(row.value["own"]).all("img")
    assert image["data-src"] == f"thumbnails/{rig.signed(last)}"
    assert row.page.client.get(image["data-src"]).status_code == 200
    (rig.settings.outputs / last.images[0]).unlink()
    assert tree(row.sent("load").value["own"]).all("img") == [], "who deletes a picture deletes it here, too"


def test_of_somebody_elses_picture_there_is_none(rig: Rig, row: Row) -> None:
    with rig.session("en") as stranger:
        order = {"prompt": "a girl", **SKETCH}
        job = stranger.client.post("/generate", json=order, headers={"prefer": "respond-async"}).json()["id"]
        list(rig.queue.follow(job))
    assert tree(row.keep("x", "a girl", job=job).value["own"]).all("img") == []


def test_renamed_deleted_and_back(row: Row) -> None:
    row.keep("one").keep("two")
    one, two = row.ids
    assert row.sent("rename", {"id": one, "name": " first "}).titles == ["first", "two"]
    assert row.sent("delete", {"id": one}).ids == [two]
    (undo,) = tree(row.value["undo"]).all("button")
    assert undo["data-undo"] == one and "first" in row.value["undo"]
    assert row.sent("undo", {"id": one}).ids == [one, two] and row.value["undo"] == ""
    messages = row.call("undo", [], {"id": one})
    assert EN("own_too_late") in str(messages)


def test_the_limit_is_said(rig: Rig, row: Row) -> None:
    row.sent("take", {"text": BUILT_IN})
    (folder,) = [path.parent for path in rig.settings.presets.rglob(f"{row.ids[0]}.toml")]
    for k in range(MOST - 1):
        (folder / f"{k:016x}.toml").write_text(BUILT_IN, encoding="utf-8")
    messages = row.call("take", [], {"text": BUILT_IN})
    assert EN.error("presets_full", {"most": MOST})[:30] in str(messages)


# ---- files


def test_a_file_goes_out_and_comes_in_as_the_same(rig: Rig, row: Row) -> None:
    row.keep("外婆 / blue", "two\nlines", negative="fog")
    (own,) = row.ids
    answer = row.page.client.get(f"/own-presets/{own}.toml")
    assert answer.status_code == 200 and "outputs" not in answer.text
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%E5%A4%96%E5%A9%86%20_%20blue.toml"
    assert answer.headers["cache-control"] == "no-store"
    with rig.session("en") as other:
        theirs = Row(other).sent("take", {"text": answer.text})
        assert theirs.titles == ["外婆 / blue"]
        assert theirs.fill(theirs.ids[0]) == row.fill(own)


def test_a_built_in_file_fills_what_the_built_in_card_fills(row: Row) -> None:
    row.sent("take", {"text": BUILT_IN})
    form = row.fill(row.ids[0])
    pick = row.page.endpoint("pick")
    (message,) = [m for m in row.page.call(pick, ["portrait"], {"name": "film"}) if "output" in m]
    prompt, _, size, guidance, *_ = message["output"]["data"]
    assert (form["prompt"], form["size"], form["guidance"]) == (prompt, size, guidance)
    assert form["steps"] is None and form["bundle"] is None and form["loras"] is None, "and nothing else"


@pytest.mark.parametrize("text", ["", "x", None, 5, [], "[" * 16_000, "\ufffd", "#" * 20_000, "order = 1"])
def test_what_is_no_preset_is_refused_in_words(row: Row, text: Any) -> None:
    messages = row.call("take", [], {"text": text})
    assert "No preset can be made of this" in str(messages)
    assert row.sent("load").ids == []


# ---- what is no longer here


def test_what_is_no_longer_here_is_said_and_the_rest_filled(row: Row) -> None:
    row.keep("Blue", "a girl with glasses")
    text = row.page.client.get(f"/own-presets/{row.ids[0]}.toml").text
    gone = (
        text.replace('bundle = "sketch"', 'bundle = "<i>gone</i>"') + '\n[[loras]]\nname = "no_such"\nstrength = 1.0\n'
    )
    row.sent("take", {"text": gone})
    form = row.fill(row.ids[1])
    assert "&lt;i&gt;gone&lt;/i&gt;" in form["said"] and "no_such" in form["said"] and "<i>" not in form["said"]
    assert (form["prompt"], form["steps"], form["guidance"]) == ("a girl with glasses", 3, 2.5)
    assert form["bundle"] == "portrait" and form["loras"] == []


def test_loras_are_saved_with_their_strengths_and_worn_again(dressing: Rig) -> None:
    with dressing.session("en") as page:
        row = Row(page)
        # What the sliders are called, a session of the page knows: it has to choose first.
        page.answer(page.endpoint("offer", "bundle"), ["portrait"])
        page.answer(page.endpoint("offer_loras", "loras"), ["plain", [], None, None, *UNSET])
        page.answer(page.endpoint("change_bundle"), ["plain"])
        page.answer(page.endpoint("arrange", "loras"), [["skin", "柔光"], None, None, *UNSET])
        values = ["a girl", "", "64×64", 8, 0, "plain", "", ["skin", "柔光"], None, None, 1.5, -0.5, *UNSET[2:]]
        row.sent("keep", {"name": "dressed"}, values)
        (path,) = dressing.settings.presets.rglob(f"{row.ids[0]}.toml")
        stored = presets.parse(path.read_text(encoding="utf-8"), "x")
        assert stored.loras == (presets.Lora("skin", 1.5), presets.Lora("柔光", -0.5))
        form = row.fill(row.ids[0], "plain")
        assert form["loras"] == ["skin", "柔光"] and (form["loras-0"], form["loras-1"]) == (1.5, -0.5)
        assert form["said"] == ""


def test_the_events_are_no_api(rig: Rig) -> None:
    info = rig.client.get("/gradio_api/info").json()["named_endpoints"]
    assert not [name for name in info if re.search("keep|take|fill|rename|undo|load", name)]
