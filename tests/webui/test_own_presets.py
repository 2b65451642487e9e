"""Where people's own presets lie: whose they are, how many, what their names may be, and what a stranger's file may."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import presets
from engines import files
from engines.errors import NotFoundError, PresetRefused, PresetsFull, RequestError, StorageError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.settings import Settings
from presets import Lora, Preset, Wording
from tests.support.full_disk import full_disk
from webui import own_presets, sweep
from webui.i18n import words
from webui.own_presets import MOST, OwnPreset, OwnPresets, checked_name, file_name, parse

ANNA, BEN = "a" * 32, "token:画框"


def preset(name: str = "蓝色", prompt: str = "戴眼镜的女孩") -> Preset:
    wording = Wording(dict.fromkeys(("zh", "en"), prompt), {"zh": "", "en": ""}, 1.5)
    loras = (Lora("studio_light", 0.35),)
    title = dict.fromkeys(("zh", "en"), name)
    return Preset("own", 1000, title, 512, 512, 8, 0.8, wording, wording, bundle="portrait", loras=loras)


@pytest.fixture
def store(tmp_path: Path) -> OwnPresets:
    return OwnPresets(tmp_path / "presets")


def names(store: OwnPresets, owner: str = ANNA) -> list[str]:
    return [own.preset.title["zh"] for own in store.all(owner)]


# ---- saved, and there again


def test_what_is_saved_is_there_for_the_next_server(store: OwnPresets) -> None:
    first = store.add(ANNA, preset("one"), "outputs_20260101000000.png")
    second = store.add(ANNA, preset("two"))
    again = OwnPresets(store.folder)
    assert again.all(ANNA) == [
        OwnPreset(first, preset("one"), "outputs_20260101000000.png"), OwnPreset(second, preset("two"), ""),
    ]  # fmt: skip
    assert again.get(ANNA, second).preset == preset("two")


def test_nobody_sees_or_touches_what_is_anothers(store: OwnPresets) -> None:
    hers = store.add(ANNA, preset("hers"))
    assert store.all(BEN) == store.all("") == store.all(ANNA[:-1]) == []
    for owner in (BEN, "", ANNA.upper()):
        for what in (store.get, store.delete, store.undelete):
            with pytest.raises(NotFoundError):
                what(owner, hers)
        with pytest.raises(NotFoundError):
            store.rename(owner, hers, "his")
    store.add(BEN, preset("his"))
    assert (names(store), names(store, BEN)) == (["hers"], ["his"])


@pytest.mark.parametrize("owner", ["../../etc", "/etc", "a\0b", "x" * 5000, "\ud800", ".."])
def test_an_owner_is_no_path(store: OwnPresets, owner: str) -> None:
    store.add(owner, preset())
    (file,) = store.folder.rglob("*.toml")
    assert len(file.relative_to(store.folder).parts) == 2 and len(store.all(owner)) == 1


@pytest.mark.parametrize(
    "odd", ["", "..", "../x", "/etc/passwd", "x" * 5000, "0" * 16 + "\n", "A" * 16, 5, None, [], {"id": 1}, "\ud800"]
)
def test_an_id_of_nobodys_is_not_there(store: OwnPresets, odd: object) -> None:
    store.add(ANNA, preset())
    for what in (store.get, store.delete, store.undelete):
        with pytest.raises(NotFoundError):
            what(ANNA, odd)


def test_nobody_in_particular_keeps_none(store: OwnPresets) -> None:
    with pytest.raises(RequestError):
        store.add("", preset())
    assert not store.folder.exists()


def test_a_hundred_and_no_more_whoever_hurries(store: OwnPresets) -> None:
    for k in range(MOST - 1):
        store.add(ANNA, preset(str(k)))
    refusals: list[Exception] = []

    def add() -> None:
        try:
            store.add(ANNA, preset("last"))
        except PresetsFull as exc:
            refusals.append(exc)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(store) == [*map(str, range(MOST - 1)), "last"] and len(refusals) == 5
    assert str(MOST) in words("zh").error("presets_full", getattr(refusals[0], "facts", {}))
    store.add(BEN, preset())  # who has places of his own


# ---- renamed, deleted, and back


def test_a_new_name_changes_nothing_else(store: OwnPresets) -> None:
    one, two = store.add(ANNA, preset("one"), "outputs_1.png"), store.add(ANNA, preset("two"))
    store.rename(ANNA, one, "  外婆  的 ")
    assert store.all(ANNA) == [OwnPreset(one, preset("外婆 的"), "outputs_1.png"), OwnPreset(two, preset("two"))]


def test_a_deletion_comes_back_until_it_is_purged(store: OwnPresets) -> None:
    one, two = store.add(ANNA, preset("one")), store.add(ANNA, preset("two"))
    os.utime(next(store.folder.rglob(f"{one}.toml")), (0, 0))  # saved long ago, and deleted now
    store.delete(ANNA, one)
    assert names(store) == ["two"]
    with pytest.raises(NotFoundError):
        store.delete(ANNA, one)
    store.purge(time.time() - 30)
    store.undelete(ANNA, one)
    assert names(store) == ["one", "two"], "where it was"
    store.delete(ANNA, two)
    store.purge(time.time() + 1)
    with pytest.raises(NotFoundError):
        store.undelete(ANNA, two)
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == [f"{one}.toml"]


def test_what_comes_back_needs_a_place(store: OwnPresets) -> None:
    gone = store.add(ANNA, preset("gone"))
    store.delete(ANNA, gone)
    for k in range(MOST):
        store.add(ANNA, preset(str(k)))
    with pytest.raises(PresetsFull):
        store.undelete(ANNA, gone)


def test_the_sweep_takes_deleted_words_off_the_disk(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    queue = SqliteQueue(settings.state / "jobs.db", settings.outputs)
    store = OwnPresets(settings.presets)
    old, new = store.add(ANNA, preset("old")), store.add(ANNA, preset("new"))
    for preset_id in (old, new):
        store.delete(ANNA, preset_id)
    aged = next(settings.presets.rglob(f"{old}.deleted"))
    os.utime(aged, (time.time() - sweep.UNDO_S - 1,) * 2)
    sweep.purge(queue, settings)
    queue.close()
    assert not aged.exists()
    store.undelete(ANNA, new)


# ---- crashes and disks


def test_a_write_that_breaks_off_leaves_the_old_one(store: OwnPresets, monkeypatch: pytest.MonkeyPatch) -> None:
    one = store.add(ANNA, preset("one"))

    def die(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", die)
    with pytest.raises(StorageError):
        store.rename(ANNA, one, "other")
    with pytest.raises(StorageError):
        store.add(ANNA, preset("two"))
    assert names(store) == ["one"]
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == [f"{one}.toml"], "nothing half"


def test_a_full_disk_is_said(store: OwnPresets) -> None:
    store.add(ANNA, preset("one"))
    with full_disk(), pytest.raises(StorageError):
        store.add(ANNA, preset("two"))
    assert names(store) == ["one"]


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"order = ", b'picture = "x"\n', bytes(500)])
def test_a_damaged_file_costs_one_preset(store: OwnPresets, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    one, _ = store.add(ANNA, preset("one")), store.add(ANNA, preset("two"))
    next(store.folder.rglob(f"{one}.toml")).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert names(store) == ["two"]
    assert one in caplog.text and "one" not in caplog.text.replace(one, "")
    with pytest.raises(NotFoundError):
        store.get(ANNA, one)
    store.delete(ANNA, one)


# ---- names


@pytest.mark.parametrize("name", ["a", "外婆", "a " * 20, "<script>alert(1)</script>", "👩\u200d🦳", "Ünï & \"x\" 'y'"])
def test_a_name_may_be_what_people_write(store: OwnPresets, name: str) -> None:
    store.add(ANNA, preset(checked_name(name)))
    assert names(store) == [" ".join(name.split())]


@pytest.mark.parametrize(
    "name",
    ["", "  ", "x" * 41, "a\0b", "a\x1bb", "a\u202eb", "a\x7fb", "\ud800", "a\u200bb", "\u2028x\u2066y", "\ue000"],
)
def test_a_name_may_not_be_what_nobody_sees(store: OwnPresets, name: str) -> None:
    one = store.add(ANNA, preset("one"))
    with pytest.raises(PresetRefused):
        store.rename(ANNA, one, name)
    if name != "\ud800":  # of which no preset can be made
        with pytest.raises(PresetRefused):
            store.add(ANNA, preset(name))
    assert names(store) == ["one"]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("蓝色", "蓝色.toml"), ("../../x", "x.toml"), ("a/b\\c:d", "a_b_c_d.toml"), ("...", "preset.toml"),
        ("con.", "con.toml"),
    ],
)  # fmt: skip
def test_a_files_name_is_no_path(title: str, name: str) -> None:
    assert file_name(title) == name


# ---- out and in


def test_what_is_exported_is_imported_as_the_same(store: OwnPresets) -> None:
    odd = preset('名 "x"', '两行\n"引号" \\ 😀 \x7f')
    first = store.add(ANNA, odd, "outputs_20260101000000.png")
    text = presets.write(store.get(ANNA, first).preset)
    assert "outputs" not in text and ANNA not in text
    second = store.add(BEN, parse(text))
    assert store.get(BEN, second).preset == odd


def test_an_exported_file_is_one_of_the_houses_own(store: OwnPresets, tmp_path: Path) -> None:
    text = presets.write(store.get(ANNA, store.add(ANNA, preset())).preset)
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "own.toml").write_text(text, encoding="utf-8")
    assert presets.load(tmp_path / "house") == (preset(),)


@pytest.mark.parametrize("path", sorted(presets.FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_built_in_file_can_be_imported(store: OwnPresets, path: Path) -> None:
    store.add(ANNA, parse(path.read_text(encoding="utf-8")))
    (own,) = store.all(ANNA)
    built_in = next(preset for preset in presets.load() if preset.name == path.stem)
    assert replace(own.preset, name=path.stem) == built_in


WHOLE = presets.write(preset())


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        ("", "order", "must be given"),
        ("PK\x03\x04", "TOML", "not as presets have it"),
        ("\ufffdPNG\ufffd", "TOML", "not in UTF-8"),
        (WHOLE + "#" * presets.MOST_BYTES, "TOML", "larger than 16 KB"),
        ("order = " + "[" * 9000, "TOML", "not as presets have it"),
        ("a" + ".a" * 7000 + " = 1", "TOML", "not as presets have it"),
        (WHOLE.replace("steps = 8", "steps = 9000"), "steps", "≤ 50"),
        (WHOLE.replace("steps = 8", "steps = 0"), "steps", "≥ 1"),
        (WHOLE.replace("steps = 8", 'steps = "viele"'), "steps", "a whole number"),
        (WHOLE.replace("width = 512", "width = 1e999"), "width", "a number"),
        (WHOLE.replace("order", "picture = 'outputs_20260101000000.png'\norder", 1), "picture", "no such field"),
        (WHOLE.replace("order", "<b>x</b> = 1\norder", 1), "TOML", "not as presets have it"),
        (WHOLE.replace("order", '"<b>x</b>" = 1\norder', 1), "<b>x</b>", "no such field"),
        (WHOLE.replace("蓝色", "x" * 41), "title", "1 … 40"),
        (WHOLE.replace("蓝色", "a\\u202eb"), "title", "without control characters"),
        (WHOLE.replace("戴眼镜", "x" * 4001), "natural.prompt.zh", "≤ 4000"),
        (WHOLE.replace("title = {", "title = { fr = 'x',"), "title", "not as presets have it"),
        (WHOLE.replace("studio_light", "x" * 300), "loras.0.name", "≤ 255"),
        (WHOLE.replace("strength = 0.35", "strength = nan"), "loras.0.strength", "≤ 2.0"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_field(text: str, field: str, why: str) -> None:
    with pytest.raises(PresetRefused) as caught:
        parse(text)
    assert caught.value.facts == {"field": field, "why": why}
    said = words("zh").error(caught.value.code, caught.value.facts)
    assert said.isascii() is False and (not why[0].isalpha() or why not in said), "in Chinese"


def test_too_many_words_for_a_file_are_refused_when_they_are_saved(store: OwnPresets) -> None:
    store.add(ANNA, preset(prompt="字" * 2500))
    with pytest.raises(PresetRefused) as caught:
        store.add(ANNA, preset(prompt="字" * 3500))
    assert caught.value.facts["why"] == "larger than 16 KB"
    assert len(store.all(ANNA)) == 1


def test_a_hundred_are_read_at_once(store: OwnPresets) -> None:
    """Every page that is loaded asks for them."""
    for k in range(MOST):
        store.add(ANNA, preset(str(k), "戴眼镜的女孩,蓝色背景," * 10))
    before = time.process_time()
    assert len(store.all(ANNA)) == MOST
    assert time.process_time() - before < 0.5
    assert own_presets.MOST == 100
