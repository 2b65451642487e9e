"""Photos that lie on their side, and photos whose file breaks off: what is offered, done and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines import faces
from engines.bundle.signatures import Array
from engines.faces.detection import Face
from engines.messages import Advice, Inspect, Preview
from engines.messages.cautions import Caution
from engines.studio import restore
from tests.support.fakes import nobody
from tests.support.photo_files import encoded
from tests.support.restoration import CROP_PX, Darkroom, Image, Pixels, Points, person, reach, scene, seeing, tinted

STANDING = person(60, 66, 70)  # in the photo as it should be: 120 wide, 160 high


@pytest.fixture
def room(tmp_path: Path) -> Darkroom:
    """Whose detector sees a face in pictures that stand, however they were turned for it."""
    room, sees = Darkroom(tmp_path), seeing(STANDING)

    def upright(picture: Array) -> list[Points]:
        height, width = picture.shape[:2]
        return list(sees(picture)) if height > width or (height, width) == (CROP_PX, CROP_PX) else []

    room.engine.sees = upright
    room.engine.spoil["restorer"] = tinted()
    return room


def lying() -> Pixels:
    """What stands, turned by a quarter so that a turn of 90 degrees clockwise is needed."""
    return np.ascontiguousarray(np.rot90(scene(160, 120)))


def looked(room: Darkroom, path: Path) -> Advice:
    return next(event for event in room.studio.run(Inspect(str(path)), room.out) if isinstance(event, Advice))


def test_the_turn_in_which_there_are_faces_is_offered(room: Darkroom) -> None:
    failed = room.failed(lying())
    assert (failed.code, failed.facts) == ("faces_turned", {"turn": 90})
    advice = looked(room, room.put(lying()))
    assert (advice.turn, advice.faces, advice.boxes) == (90, 1, ())
    again = room.failed(scene(160, 120), turn=90)
    assert again.facts == {"turn": 180}, "all of it, from how the file lies"


def test_a_photo_that_is_turned_stays_so(room: Darkroom) -> None:
    before = next(event for event in room.events(lying(), turn=90) if isinstance(event, Preview))
    assert room.opened(before.image).shape == (160, 120, 3)
    (report,) = room.reports(lying(), turn=90)
    result = room.result(lying(), turn=90)
    assert result.shape == (160, 120, 3) and report.state == "restored"
    assert (result != scene(160, 120)).any() and (result == room.result(scene(160, 120))).all()


def test_by_itself_faces_are_restored_as_they_lie(room: Darkroom) -> None:
    """Somebody may want the photo as it is."""
    final = room.final(lying(), auto=True)
    result = room.opened(final.images[0])
    standing = room.opened(room.final(scene(160, 120), auto=True).images[0])
    assert result.shape == lying().shape and (np.rot90(result, -1) == standing).all()
    (report,) = final.faces
    left, top, width, height = report.box
    rows, columns = np.nonzero(np.rot90(reach((160, 120, 3), STANDING)))
    assert left * 160 < columns.mean() < (left + width) * 160 and top * 120 < rows.mean() < (top + height) * 120


def test_who_is_seen_nowhere_is_not_there(room: Darkroom) -> None:
    room.engine.sees = nobody
    assert room.failed(lying()).code == "no_face"


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_box_turns_with_its_picture(degrees: int) -> None:
    mark = np.zeros((40, 80, 3), np.uint8)
    mark[10:20, 20:30] = 255
    photo = restore.turned(restore.Photo(mark, mark[..., 0].copy()), degrees)
    left, top, width, height = restore.turned_box((20 / 80, 10 / 40, 10 / 80, 10 / 40), degrees)
    high, wide = photo.pixels.shape[:2]
    rows = slice(round(top * high), round((top + height) * high))
    columns = slice(round(left * wide), round((left + width) * wide))
    assert (photo.pixels[rows, columns] == 255).all() and photo.pixels.sum() == mark.sum()
    assert photo.alpha is not None and (photo.alpha == photo.pixels[..., 0]).all()
    assert restore.turned_box(restore.turned_box((0.1, 0.2, 0.3, 0.4), degrees), -degrees) == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_how_faces_lie_is_told_by_their_eyes_and_mouths(turn: int) -> None:
    def face(tilt: int, size_px: float) -> Face:
        angle = np.radians(tilt)
        turned = faces.template(1) @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return Face((0, 0, size_px, size_px), turned * size_px, 0.9)

    assert restore.tilt_of([face(turn + 20, 50), face(turn - 20, 40), face(turn + 90, 60)]) == turn


def test_of_a_file_that_breaks_off_the_share_is_said(tmp_path: Path) -> None:
    room = Darkroom(tmp_path)
    whole = encoded(Image.fromarray(scene(400, 160)), "JPEG", quality=95)
    (path := tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 6 // 10])
    final = room.final(path)
    (caution,) = final.warnings
    assert caution.code == "photo_cut_off" and 20 < int(caution.facts["percent"]) < 60
    assert looked(room, path).warnings == (Caution(caution.code, caution.facts),)
    path.write_bytes(whole)
    assert room.final(path).warnings == ()
