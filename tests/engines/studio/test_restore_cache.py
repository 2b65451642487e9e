"""The same photo again is answered from memory; whatever would make it another picture is done anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from engines.bundle import digest
from engines.messages import RESTORED_BEFORE, Enhance, Event, Final, Preview
from engines.messages.faces import FaceReport, Point
from engines.studio import Studio
from engines.studio.restore_cache import RestoreCache
from tests.support.fakes import FakeEngine, write_detector, write_restorer
from tests.support.full_disk import full_disk
from tests.support.restoration import Darkroom, noisy, person, scene, seeing


@pytest.fixture
def room(tmp_path: Path) -> Darkroom:
    return Darkroom(tmp_path)


def restored(room: Darkroom, **controls: Any) -> bool:
    """Whether a network worked for this request."""
    before = room.engine.calls.count("restorer")
    room.final(room.folder / "photo.png", **controls)
    return room.engine.calls.count("restorer") > before


def test_the_same_photo_again_is_answered_at_once(room: Darkroom) -> None:
    first = room.final(scene(), strength=60)
    calls = list(room.engine.calls)
    again = room.events(scene(), strength=60)
    last = again[-1]
    assert isinstance(last, Final) and room.engine.calls == calls
    assert (last.images, last.faces, last.engine, last.reason) == (
        first.images,
        first.faces,
        first.engine,
        RESTORED_BEFORE,
    )
    assert last.faces and isinstance(last.faces[0], FaceReport) and last.seconds < first.seconds
    (shown,) = (event for event in again if isinstance(event, Preview))
    assert (room.out / shown.image).is_file()
    assert len(room.written()) == 1


def test_it_is_the_content_that_counts(room: Darkroom) -> None:
    first = room.final(room.put(scene(), "one.png"))
    assert room.final(room.put(scene(), "two.png")).images == first.images
    assert room.final(room.put(noisy(), "one.png")).images != first.images


def test_it_is_remembered_after_a_restart(room: Darkroom) -> None:
    first = room.final(scene())
    room.reopen()
    assert room.final(scene()).images == first.images


OTHER: dict[str, Any] = {
    "strength": 71, "mode": "strong", "more_detail": True, "denoise": 1, "sharpen": 1, "contrast": 51, "brightness": 49,
    "fading": 1, "scratches": 1, "protect_skin": False, "only_center_face": True, "whole_picture": True,
    "min_face_px": 25, "format": "webp", "quality": 91, "keep_date": True, "name": "x.jpg",
    "faces": (Point(0.5, 0.5),),
}  # fmt: skip


@pytest.mark.parametrize("setting", OTHER)
def test_another_setting_is_another_picture(room: Darkroom, setting: str) -> None:
    room.final(scene())
    assert restored(room, **{setting: OTHER[setting]}) and not restored(room)


def replaced(folder: Path, write: Callable[[Path], Any], weights: str) -> None:
    """The bundle of that name with other weights in it."""
    shutil.rmtree(folder)
    bundle = write(folder)
    path = folder / f"{next(iter(bundle.roles))}.onnx"
    path.write_text(weights)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["parts"][0]["sha256"] = digest(path)
    (folder / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["restorer", "detector"])
def test_other_weights_make_another_picture(room: Darkroom, name: str) -> None:
    room.final(scene())
    shelf = room.folder / "shelf"
    replaced(shelf / name, write_restorer if name == "restorer" else write_detector, "better weights")
    assert restored(room) and not restored(room)


def test_another_engine_makes_another_picture(room: Darkroom) -> None:
    room.final(scene())
    room.engine = FakeEngine("other", sees=seeing(person()))
    room.reopen()
    assert restored(room)


def test_a_picture_that_was_deleted_is_made_again(room: Darkroom) -> None:
    first = room.final(scene())
    (room.out / first.images[0]).unlink()
    last = room.final(scene())
    assert (room.out / last.images[0]).is_file() and last.reason != RESTORED_BEFORE


def test_a_preview_that_was_tidied_away_does_not_cost_the_restoration(room: Darkroom) -> None:
    """Previews live for a day; restorations for good."""
    events = room.events(scene())
    (shown,) = (event for event in events if isinstance(event, Preview))
    (room.out / shown.image).unlink()
    assert not restored(room)
    (shown,) = (event for event in room.events(scene()) if isinstance(event, Preview))
    assert (room.out / shown.image).is_file(), "there is something to compare with, all the same"


def test_what_an_earlier_version_remembered_shows_the_photo_as_it_came(room: Darkroom) -> None:
    room.final(scene())
    (note,) = (room.folder / "state" / "photos").iterdir()
    text = note.read_text(encoding="utf-8")
    assert '"shows": "before"' in text
    note.write_text(text.replace(', "shows": "before"', ""), encoding="utf-8")
    (shown,) = (event for event in room.events(scene()) if isinstance(event, Preview))
    assert shown.kind == "before" and not restored(room)


@pytest.mark.parametrize("damage", ["", "junk", '{"kind": "final"}', "\0\0"])
def test_a_damaged_memory_costs_time_and_nothing_else(room: Darkroom, damage: str) -> None:
    room.final(scene())
    (note,) = (room.folder / "state" / "photos").iterdir()
    note.write_text(damage)
    assert restored(room) and not restored(room)


def test_what_failed_or_was_cancelled_is_not_remembered(room: Darkroom) -> None:
    room.cancel = lambda event: True
    room.failed(scene())
    room.cancel = lambda event: False
    assert restored(room)


def test_only_so_many_are_remembered(room: Darkroom) -> None:
    room.studio.photos = RestoreCache(room.folder / "few", 3)
    for strength in range(10, 60, 10):
        room.final(scene(), strength=strength)
        for note in (room.folder / "few").iterdir():  # a clock that ticks in seconds must not mix them up
            age = note.stat().st_mtime
            os.utime(note, (age - 10, age - 10))
    assert len(list((room.folder / "few").iterdir())) == 3
    assert [restored(room, strength=strength) for strength in (50, 40, 30)] == [False] * 3
    assert restored(room, strength=10)


def test_a_disk_that_refuses_costs_no_picture(room: Darkroom) -> None:
    room.studio.photos = RestoreCache(room.folder / "photo.png" / "below", 3)
    events: list[Event] = room.events(scene())
    assert isinstance(events[-1], Final) and isinstance(room.studio, Studio)


class Done:
    """Work that is done at once and writes nothing."""

    def before(self) -> Preview:
        return Preview(0, "before.webp")

    def events(self) -> Generator[Event, None, list[Event]]:
        events: list[Event] = [self.before(), Final((), 0, 1.0, "fake", "a reason")]
        yield from events
        return events


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    cache = RestoreCache(tmp_path / "photos", 3)
    with full_disk():
        events = list(cache.events(Enhance(str(tmp_path / "photo.png")), (), tmp_path, Done()))
    assert isinstance(events[-1], Final) and list(cache.folder.iterdir()) == []
