"""The order of things in a photo: who is restored, who is left alone and why, and that no square is to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines import faces
from engines.bundle.signatures import Array
from engines.faces import quality
from engines.faces.detection import Face
from engines.messages import Advice, Final, Inspect, Preview, Progress
from engines.messages.faces import FaceReport, Point, face_at
from engines.studio import restore
from tests.support.fakes import nobody
from tests.support.photo_files import display_p3, encoded
from tests.support.restoration import (
    CROP_PX,
    Darkroom,
    Pixels,
    grainy,
    noisy,
    person,
    reach,
    scene,
    seeing,
    skin,
    tinted,
)

LEFT, MIDDLE, RIGHT = person(60, 90, 70), person(200, 130, 60), person(330, 100, 50)
SMALL = person(385, 20, 24)


@pytest.fixture
def room(tmp_path: Path) -> Darkroom:
    return Darkroom(tmp_path)


def group(height: int = 240, width: int = 400) -> Pixels:
    return scene(height, width)


def changed(before: Pixels, after: Pixels, landmarks: NDArray[np.float64]) -> bool:
    return bool((after != before).any(-1)[reach(before.shape, landmarks)].any())


def test_without_a_face_nothing_is_enhanced_and_one_is_told(room: Darkroom) -> None:
    room.engine.sees = nobody
    last = room.failed(scene(), denoise=50, brightness=90, fading=100)
    assert last.code == "no_face" and last.detail and "restorer" not in room.engine.calls


def test_without_a_face_the_whole_picture_can_be_cleaned(room: Darkroom) -> None:
    room.engine.sees = nobody
    last = room.final(grainy(5), whole_picture=True)
    result = room.opened(last.images[0])
    assert last.faces == () and (result != grainy(5)).mean() > 0.3 and "restorer" not in room.engine.calls
    assert quality.noise_sigma(result) < 0.9 * quality.noise_sigma(grainy(5))
    chosen = room.result(grainy(5), whole_picture=True, sharpen=60)
    assert (chosen != result).mean() > 0.3, "what was chosen goes before what is offered"


def test_it_can_be_left_to_a_look_at_the_photo(room: Darkroom) -> None:
    """As if the advice had been taken; what it says nothing of is as it was asked for."""
    room.engine.sees = seeing(LEFT, MIDDLE, RIGHT)
    photo = np.asarray(cv2.GaussianBlur(group(), (0, 0), 4), np.uint8)
    advice = next(
        event for event in room.studio.run(Inspect(str(room.put(photo))), room.out) if isinstance(event, Advice)
    )
    assert advice.settings["strength"] not in (0, 70) and advice.settings["fading"]
    advised = room.result(photo, contrast=60, **advice.settings)
    assert (room.result(photo, auto=True, strength=0, denoise=100, contrast=60) == advised).all()
    assert (room.result(photo, strength=0, denoise=100, contrast=60) != advised).any()
    with Image.open(room.out / room.final(photo, auto=True, strength=0).images[0]) as restored:
        text = restored.info["parameters"]
    assert "Automatic: True" in text and f"Strength: {advice.settings['strength']}," in text


def test_left_to_itself_a_photo_without_a_face_is_cleaned(room: Darkroom) -> None:
    room.engine.sees = nobody
    last = room.final(grainy(5), auto=True)
    assert last.faces == () and (room.opened(last.images[0]) != grainy(5)).mean() > 0.3


def test_every_face_is_restored_and_reported(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, MIDDLE, RIGHT)
    before, last = group(), room.final(group(), strength=60, mode="strong")
    after = room.opened(last.images[0])
    assert [(face.state, face.strength, face.reason) for face in last.faces] == [("restored", 60, "")] * 3
    assert all(changed(before, after, landmarks) for landmarks in (LEFT, MIDDLE, RIGHT))
    outside = ~reach(before.shape, LEFT, MIDDLE, RIGHT)
    assert (after[outside] == before[outside]).all() and outside.mean() > 0.5
    for face, landmarks in zip(last.faces, (LEFT, MIDDLE, RIGHT), strict=True):
        x, y, width, height = face.box
        low, high = landmarks.min(0) / (400, 240), landmarks.max(0) / (400, 240)
        assert x < low[0] < high[0] < x + width and y < low[1] < high[1] < y + height


def test_progress_counts_the_faces(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, MIDDLE, RIGHT)
    told = [event for event in room.events(group()) if isinstance(event, Progress) and event.stage == "restore"]
    assert [(event.step, event.total) for event in told] == [(0, 3), (1, 3), (2, 3)]
    assert told[0].eta_s is None and all(event.eta_s is not None and event.eta_s >= 0 for event in told[1:])


def test_only_the_face_in_the_centre(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, MIDDLE, RIGHT)
    before, last = group(), room.final(group(), only_center_face=True, mode="strong")
    after = room.opened(last.images[0])
    assert [face.state for face in last.faces] == ["skipped", "restored", "skipped"]
    assert {face.reason for face in last.faces if face.state == "skipped"} == {"not the face in the centre"}
    assert changed(before, after, MIDDLE) and not changed(before, after, LEFT) and not changed(before, after, RIGHT)


def test_who_is_meant_by_the_one_in_the_centre() -> None:
    """Somebody large and a little aside rather than a face in the crowd behind them."""

    def face(landmarks: NDArray[np.float64]) -> Face:
        low, high = landmarks.min(0), landmarks.max(0)
        return Face((*(2 * low - high), *(2 * high - low)), landmarks, 0.9)  # type: ignore[arg-type]

    sitter, crowd = face(person(230, 120, 200)), face(person(213, 116, 12))
    assert restore.most_central([sitter, crowd], (240, 400)) == 0
    assert restore.most_central([crowd, sitter], (240, 400)) == 1
    assert restore.most_central([face(LEFT), face(MIDDLE), face(RIGHT)], (240, 400)) == 1


@pytest.mark.parametrize("limit", [8, 24, 60, 200])
def test_faces_smaller_than_asked_are_left_alone(room: Darkroom, limit: int) -> None:
    room.engine.sees = seeing(LEFT, SMALL)
    before, last = group(), room.final(group(), min_face_px=limit, mode="strong")
    after = room.opened(last.images[0])
    sizes = [2 * np.ptp(landmarks, axis=0).max() for landmarks in (LEFT, SMALL)]
    for face, landmarks, size_px in zip(last.faces, (LEFT, SMALL), sizes, strict=True):
        assert face.state == ("skipped" if size_px < limit else "restored")
        assert face.reason == (f"smaller than {limit} px" if size_px < limit else "")
        assert changed(before, after, landmarks) == (size_px >= limit)


def sharp_skin(height: int = 240, width: int = 400) -> Pixels:
    """As calm as skin, with detail at every scale that the fake restorer's crop can hold."""
    rng, total = np.random.default_rng(0), np.zeros((height, width), np.float32)
    for sigma in (1.2, 2.4, 4.8, 9.6):
        layer = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), sigma)
        total += layer / layer.std()
    return np.asarray(np.array((200, 150, 125)) + 5 * total[..., None], dtype=np.uint8)


def test_a_face_that_is_sharp_already_is_left_alone(room: Darkroom) -> None:
    before = sharp_skin()
    before[:, 200:] = cv2.GaussianBlur(before[:, 200:], (0, 0), 6)
    room.engine.sees = seeing(LEFT, RIGHT)
    last = room.final(before, mode="strong")
    assert [(face.state, face.reason) for face in last.faces] == [("skipped", "already sharp"), ("restored", "")]
    assert not changed(before, room.opened(last.images[0]), LEFT)
    assert room.engine.calls.count("restorer") == 1


def somebody_else(result: Array) -> Array:
    """Light and dark in other places."""
    return np.broadcast_to(np.sign(np.sin(np.arange(CROP_PX) / 2)) * 0.9, result.shape).astype(np.float32)


def test_another_persons_face_is_not_taken(room: Darkroom) -> None:
    room.engine.spoil = {"restorer": somebody_else}
    before, last = noisy(), room.final(noisy(), strength=100, mode="strong")
    assert [(face.state, face.strength, face.reason) for face in last.faces] == [
        ("skipped", 0, "the features would change")
    ]
    assert (room.opened(last.images[0]) == before).all()


def test_a_face_on_its_way_to_somebody_else_is_softened(room: Darkroom) -> None:
    y, x = np.mgrid[-1 : 1 : CROP_PX * 1j, -1 : 1 : CROP_PX * 1j]
    stain = np.exp(-((x - 0.3) ** 2 + (y + 0.1) ** 2) / 0.08) * 0.25
    room.engine.spoil = {"restorer": lambda result: np.asarray(result + stain, dtype=np.float32).clip(-1, 1)}
    (face,) = room.reports(scene(), strength=100, mode="strong")
    assert face.state == "softened" and 0 < face.strength < 100 and face.reason == "the features would change"


def test_features_that_would_move_are_not_taken(room: Darkroom) -> None:
    """The detector finds the mouth elsewhere as soon as anything has changed."""
    crops: list[Pixels] = []

    def sees(picture: Array) -> list[NDArray[np.float64]]:
        if picture.shape[:2] != (CROP_PX, CROP_PX):
            return [person()]
        crops.append(picture)
        landmarks = faces.template(CROP_PX)
        landmarks[3:] += 0 if (picture == crops[0]).all() else (0, -5)
        return [landmarks]

    room.engine.sees = sees
    (face,) = room.reports(scene(), strength=100, mode="strong", protect_skin=False)
    assert (face.state, face.strength, face.reason) == ("skipped", 0, "the features would move")


def edge_step(before: Pixels, after: Pixels, inside: NDArray[np.bool_]) -> float:
    """Mean absolute step of the change over the line where the mask ends, in levels."""
    ring = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    return float(np.abs(after[ring].astype(int) - before[ring]).mean())


@pytest.mark.parametrize("shift", [(0.3, 0.3, 0.3), (0.4, -0.1, -0.3)])
def test_a_network_that_shifts_all_colours_leaves_no_square(room: Darkroom, shift: tuple[float, ...]) -> None:
    """Brighter, or warmer, everywhere: the complaint that people have of restorers."""
    by = np.array(shift, dtype=np.float32)[None, :, None, None]
    room.engine.spoil = {"restorer": lambda result: np.asarray(result + by).clip(-1, 1)}
    before = np.asarray(80 + scene(240, 400) * 0.4, dtype=np.uint8)
    after = room.result(before, strength=100, mode="strong", protect_skin=False)
    assert edge_step(before, after, reach(before.shape, person())) <= 1.5
    step = np.abs(np.diff(after.astype(int) - before, axis=1)).max()
    assert step <= 24, "nor does it end abruptly anywhere"


@pytest.mark.parametrize("more", [{}, {"profile": True}, {"alpha": True}])
def test_grey_stays_grey(room: Darkroom, more: dict[str, bool]) -> None:
    """Whatever colours the network imagines; scanners write grey prints as RGB, often with a profile."""
    room.engine.spoil = {"restorer": tinted(by=0.4)}
    grey = np.repeat(scene()[..., :1], 3, 2)
    how: dict[str, Any] = {"icc_profile": display_p3()} if more.get("profile") else {}
    path = room.folder / "grey.png"
    alpha = np.full((*grey.shape[:2], 1), 255, np.uint8)
    Image.fromarray(np.dstack((grey, alpha)) if more.get("alpha") else grey).save(path, **how)
    result = room.result(path, strength=100, mode="strong", protect_skin=False).astype(int)
    assert (result.max(-1) - result.min(-1)).max() <= 1 and (result != grey).any()
    outside = ~reach(grey.shape, person())
    assert (result[outside] == grey[outside]).all()


def test_a_tint_of_the_paper_stays_where_no_face_is(room: Darkroom) -> None:
    """A scan that is nearly grey is not made grey behind its owner's back."""
    paper = np.asarray(np.repeat(scene()[..., :1], 3, 2) * 0.9 + (2, 1, 0), dtype=np.uint8)
    result = room.result(paper, mode="strong")
    outside = ~reach(paper.shape, person())
    assert (result[outside] == paper[outside]).all() and (result != paper).any()


def test_transparency_and_profile_come_out_again(room: Darkroom) -> None:
    rgba = np.dstack((scene(), np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))))
    Image.fromarray(rgba).save(room.folder / "cut.png", icc_profile=display_p3())
    (name,) = room.final(room.folder / "cut.png", mode="strong").images
    with Image.open(room.out / name) as image:
        assert image.mode == "RGBA" and image.info["icc_profile"] == display_p3()
        result = np.array(image)
    outside = ~reach(scene().shape, person())
    assert (result[..., 3] == rgba[..., 3]).all() and (result[outside] == rgba[outside]).all()


def test_cancelling_takes_effect_between_faces(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, MIDDLE, RIGHT)
    room.cancel = lambda event: room.engine.calls.count("restorer") == 2
    assert room.failed(group()).code == "cancelled"
    assert room.engine.calls.count("restorer") == 2


def test_cancelling_before_it_begins_costs_no_network(room: Darkroom) -> None:
    room.cancel = lambda event: True
    assert room.failed(group()).code == "cancelled" and "restorer" not in room.engine.calls


def test_faces_that_overlap_are_both_restored(room: Darkroom) -> None:
    close = person(110, 92, 66)
    room.engine.sees = seeing(LEFT, close)
    before, last = group(), room.final(group(), mode="strong")
    outside = ~reach(before.shape, LEFT, close)
    assert [face.state for face in last.faces] == ["restored"] * 2
    assert (room.opened(last.images[0])[outside] == before[outside]).all()


def test_a_face_at_the_border_stays_inside(room: Darkroom) -> None:
    edge = person(390, 230, 90)
    room.engine.sees = seeing(edge)
    (face,) = room.reports(group(), mode="strong")
    assert face.state == "restored" and isinstance(face, FaceReport)
    x, y, width, height = face.box
    assert 0 <= x < x + width <= 1.0001 and 0 <= y < y + height <= 1.0001


def test_a_photo_without_detector_says_what_is_missing(room: Darkroom) -> None:
    (room.folder / "shelf" / "detector" / "bundle.json").unlink()
    last = room.failed(scene())
    assert last.code == "not_found" and last.facts["name"] == "detector"


def look(room: Darkroom, picture: Pixels) -> Advice:
    told, last = list(room.studio.run(Inspect(str(room.put(picture))), room.out))[1:]
    assert isinstance(told, Advice) and isinstance(last, Final) and not room.out.exists()
    return told


def test_a_look_says_what_is_there_and_what_would_help(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, RIGHT)
    soft = np.asarray(cv2.GaussianBlur(group(), (0, 0), 4), dtype=np.uint8)
    told = look(room, soft)
    assert (told.faces, told.width, told.height) == (2, 400, 240) and told.blur > 0.5
    assert int(told.settings["strength"]) > 40
    grainy = np.clip(soft + np.random.default_rng(0).normal(0, 25, soft.shape), 0, 255).astype(np.uint8)
    assert look(room, grainy).noise > 0.5 > told.noise and int(look(room, grainy).settings["denoise"]) > 20


def test_a_look_at_nobody_suggests_no_restoration(room: Darkroom) -> None:
    room.engine.sees = nobody
    told = look(room, skin())
    assert (told.faces, told.blur, told.settings["strength"]) == (0, 0.0, 0)


# ---- which faces


def at(landmarks: NDArray[np.float64]) -> Point:
    """Somewhere on that face, as a share of the group."""
    x, y = landmarks.mean(0) / (400, 240)
    return Point(float(x), float(y))


def test_the_faces_that_are_named_are_restored_and_no_others(room: Darkroom) -> None:
    room.engine.sees = seeing(RIGHT, LEFT, MIDDLE)
    before, last = group(), room.final(group(), mode="strong", faces=(at(RIGHT), at(LEFT)))
    after = room.opened(last.images[0])
    assert [(face.state, face.reason) for face in last.faces] == [
        ("restored", ""),
        ("skipped", "not chosen"),
        ("restored", ""),
    ]
    assert changed(before, after, LEFT) and changed(before, after, RIGHT)
    outside = ~reach(before.shape, LEFT, RIGHT)
    assert (after[outside] == before[outside]).all() and room.engine.calls.count("restorer") == 2
    assert [event.total for event in room.events(group(), faces=(at(LEFT),)) if isinstance(event, Progress)][-1] == 3


def test_of_faces_that_overlap_the_smaller_one_is_meant(room: Darkroom) -> None:
    child = person(62, 95, 24)
    room.engine.sees = seeing(LEFT, child)
    adult_box, child_box = sorted((face.box for face in room.reports(group())), key=lambda box: -box[2])
    assert face_at([adult_box], at(child)) == face_at([child_box], at(child)) == 0, "the point lies in both"
    reasons = {face.box: face.reason for face in room.reports(group(), faces=(at(child),), mode="strong")}
    assert reasons == {adult_box: "not chosen", child_box: ""}


@pytest.mark.parametrize(
    "rule", [{"only_center_face": True}, {"min_face_px": 500}, {"min_face_px": 500, "only_center_face": True}], ids=str
)
def test_who_is_named_is_restored_whatever_the_rules_say(room: Darkroom, rule: dict[str, Any]) -> None:
    room.engine.sees = seeing(LEFT, MIDDLE, RIGHT)
    states = [face.state for face in room.reports(group(), faces=(at(LEFT),), **rule)]
    assert states == ["restored", "skipped", "skipped"]


def test_who_is_named_is_restored_however_sharp(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT)
    (face,) = room.reports(sharp_skin(), faces=(at(LEFT),), mode="strong")
    assert (face.state, face.reason) == ("restored", "")
    assert room.reports(sharp_skin(), faces=(at(LEFT),), strength=0)[0].reason == "strength is 0"


def test_who_is_named_stays_the_same_person(room: Darkroom) -> None:
    room.engine.spoil = {"restorer": somebody_else}
    (face,) = room.reports(noisy(), strength=100, mode="strong", faces=(Point(0.5, 0.5),))
    assert (face.state, face.strength, face.reason) == ("skipped", 0, "the features would change")


def test_a_place_without_a_face_is_said_and_costs_nobody_else_anything(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, RIGHT)
    left, right, missed = room.reports(group(), faces=(Point(0.5, 0.98), at(LEFT)))
    assert (left.state, right.reason) == ("restored", "not chosen")
    assert (missed.box, missed.state, missed.reason) == ((0.5, 0.98, 0.0, 0.0), "skipped", "no face is there")
    assert left.is_face and not missed.is_face


def test_nobody_to_choose_from_is_no_face(room: Darkroom) -> None:
    room.engine.sees = nobody
    assert room.failed(scene(), faces=(Point(0.5, 0.5),)).code == "no_face"
    (missed,) = room.reports(grainy(5), faces=(Point(0.5, 0.5),), whole_picture=True)
    assert not missed.is_face


def test_a_look_says_where_the_faces_are_as_the_report_does(room: Darkroom) -> None:
    room.engine.sees = seeing(RIGHT, LEFT, MIDDLE)
    assert look(room, group()).boxes == tuple(face.box for face in room.reports(group()))


def test_a_look_shows_the_photo_only_where_a_browser_cannot(room: Darkroom) -> None:
    room.engine.sees = seeing(LEFT, RIGHT)
    path = room.folder / "IMG_0001.heic"
    path.write_bytes(encoded(Image.fromarray(group()), "HEIF", quality=90))
    _, shown, advice, _ = room.studio.run(Inspect(str(path)), room.out)
    assert isinstance(shown, Preview) and shown.kind == "before" and isinstance(advice, Advice)
    with Image.open(room.out / shown.image) as image:
        assert image.size == (400, 240)
    room.engine.sees = seeing(LEFT)
    assert [type(event) for event in room.studio.run(Inspect(str(path)), room.out)][1:] == [Advice, Final]
