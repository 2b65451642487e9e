"""Restoring a photo through the studio: what every control does, and that at rest it does nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.messages import Final, Preview
from tests.support.fakes import nobody
from tests.support.restoration import Darkroom, Pixels, chroma_shift, noisy, person, reach, scene, seeing, skin, tinted


@pytest.fixture
def room(tmp_path: Path) -> Darkroom:
    return Darkroom(tmp_path)


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (64, 64), (1, 1), (33, 200), (700, 500)])
def test_a_photo_keeps_its_size(room: Darkroom, height: int, width: int) -> None:
    room.engine.sees = nobody
    assert room.result(scene(height, width), whole_picture=True).shape == (height, width, 3)


@pytest.mark.parametrize("protect_skin", [False, True])
@pytest.mark.parametrize("mode", ["natural", "strong", "detail"])
@pytest.mark.parametrize("make", [scene, noisy])
def test_strength_0_leaves_the_photo_as_it_is(room: Darkroom, make: Any, mode: str, protect_skin: bool) -> None:
    """Every pixel of it."""
    photo = make()
    final = room.final(photo, strength=0, mode=mode, protect_skin=protect_skin)
    assert (room.opened(final.images[0]) == photo).all()
    assert [(face.state, face.reason) for face in final.faces] == [("skipped", "strength is 0")]
    assert "restorer" not in room.engine.calls, "for nothing"


@pytest.mark.parametrize("more", [{}, {"more_detail": True}, {"mode": "detail"}, {"protect_skin": False}])
def test_only_the_face_is_changed(room: Darkroom, more: dict[str, Any]) -> None:
    photo = noisy()
    inside = reach(photo.shape, person())
    changed = (room.result(photo, strength=100, **more) != photo).any(-1)
    assert not changed[~inside].any() and changed[inside].mean() > 0.5 and 0.05 < inside.mean() < 0.4


def test_more_strength_changes_more(room: Darkroom) -> None:
    changes = [difference(room.result(scene(), strength=s, mode="strong"), scene()) for s in (0, 30, 60, 100)]
    assert changes == sorted(changes) and changes[3] > 2 * changes[1] > 0


def test_every_mode_is_another_picture(room: Darkroom) -> None:
    """One takes less of the light, one more of the detail."""
    grain = (np.indices((32, 32)).sum(0) % 2 - 0.5) * 0.4
    room.engine.spoil = {"restorer": lambda result: (result + grain).astype(np.float32)}
    modes = [room.result(scene(), strength=100, mode=mode) for mode in ("natural", "strong", "detail")]
    inside = reach(scene().shape, person())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert difference(modes[one][inside], modes[other][inside]) > 1


def test_more_detail_is_more_detail(room: Darkroom) -> None:
    photo = scene()
    plain, detailed = (room.result(photo, mode="strong", more_detail=more) for more in (False, True))
    inside = reach(photo.shape, person())

    def rough(picture: Pixels) -> float:
        return float(np.abs(np.diff(picture.astype(int), axis=1))[inside[:, 1:]].mean())

    assert rough(detailed) > rough(plain)


def test_protected_skin_keeps_its_colour(room: Darkroom) -> None:
    """The restorer paints the face; with protection the colour moves by less than people notice."""
    room.engine.spoil = {"restorer": tinted()}

    def moved(protect_skin: bool) -> float:
        how: dict[str, Any] = {"strength": 100, "mode": "strong", "protect_skin": protect_skin}
        return float(chroma_shift(skin(), room.result(skin(), **how)).max())

    assert moved(protect_skin=False) > 5
    assert moved(protect_skin=True) < 3.2  # 2, and what rounding to 8 bits adds


@pytest.mark.parametrize("controls", [{"brightness": 80}, {"contrast": 100}, {"brightness": 0, "contrast": 90}])
def test_protected_skin_keeps_its_colour_under_every_control(room: Darkroom, controls: dict[str, int]) -> None:
    room.engine.spoil = {"restorer": tinted()}
    result = room.result(skin(), strength=100, mode="strong", denoise=30, sharpen=50, **controls)
    assert chroma_shift(skin(), result).max() < 3.2
    assert difference(result, skin()) > 5, "and yet it has become lighter or darker"


@pytest.mark.parametrize("control", ["denoise", "sharpen", "contrast", "brightness"])
def test_every_control_does_something_and_its_rest_does_nothing(room: Darkroom, control: str) -> None:
    """To all of the picture."""
    photo, plain = noisy(), {"strength": 0, "protect_skin": False}
    assert (room.result(photo, **plain, **{control: 90}) != photo).mean() > 0.3
    rest = 50 if control in ("contrast", "brightness") else 0
    assert (room.result(photo, **plain, **{control: rest}) == photo).all()


def test_fading_is_mended_in_all_of_the_picture(room: Darkroom) -> None:
    old = np.asarray(80 + scene() * 0.35, dtype=np.uint8)
    mended = room.result(old, strength=0, fading=100)
    assert np.ptp(mended, axis=(0, 1)).min() > 230 > 100 > np.ptp(old, axis=(0, 1)).max()
    assert (room.result(old, strength=0, fading=0) == old).all()


def test_scratches_are_mended_before_faces_are_looked_for(room: Darkroom) -> None:
    photo = np.full((120, 160, 3), 120, dtype=np.uint8)
    photo[5:110, 79:81] = 255
    shown: list[int] = []

    def sees(picture: Pixels) -> Any:
        shown.append(int(picture.max()))
        return seeing(person())(picture)

    room.engine.sees = sees
    result = room.result(photo, strength=0, scratches=90)
    assert np.abs(result.astype(int) - 120).max() <= 2 and shown[0] <= 122
    assert (room.result(photo, strength=0) == photo).all()


def test_the_photo_is_shown_first_upright(room: Darkroom) -> None:
    exif = Image.Exif()
    exif[274] = 6
    room.engine.sees = nobody
    events = room.events(room.put(scene(40, 60), "turned.jpg", exif=exif), whole_picture=True)
    (before,) = (event for event in events if isinstance(event, Preview))
    assert (before.step, before.kind) == (0, "before")
    with Image.open(room.out / before.image) as image:
        assert image.size == (40, 60)


def test_a_network_that_returns_no_numbers_is_refused(room: Darkroom) -> None:
    room.engine.spoil = {"restorer": lambda result: np.full_like(result, np.nan)}
    assert room.failed(scene()).code == "blank_picture"


@pytest.mark.parametrize(
    ("format", "kind", "ending"), [("png", "PNG", ".png"), ("jpeg", "JPEG", ".jpg"), ("webp", "WEBP", ".webp")]
)
def test_the_result_is_what_was_asked_for(room: Darkroom, format: str, kind: str, ending: str) -> None:
    (name,) = room.final(scene(), format=format, quality=80, name="奶奶 1962.tif").images
    assert name.endswith(f"-奶奶-1962{ending}")
    with Image.open(room.out / name) as image:
        assert image.format == kind and image.size == (160, 120)


def test_the_day_is_kept_on_request(room: Darkroom) -> None:
    exif = Image.Exif()
    exif[0x0132] = exif.get_ifd(0x8769)[0x9003] = "2004:05:06 07:08:09"
    path = room.put(scene(), "photo.jpg", exif=exif)
    for keep, said in ((False, None), (True, "2004:05:06 07:08:09")):
        (name,) = room.final(path, keep_date=keep).images
        with Image.open(room.out / name) as image:
            assert image.getexif().get(0x0132) == said


def test_the_result_says_how_it_was_made(room: Darkroom) -> None:
    last = room.final(scene(), strength=40, mode="detail", backend="edge")
    assert last.engine == "fake" and last.reason == "fake, asked for edge"
    with Image.open(room.out / last.images[0]) as image:
        assert "Strength: 40, Mode: detail" in image.info["parameters"]
    assert dataclasses.replace(last, images=()) == Final((), 0, last.seconds, "fake", last.reason, faces=last.faces)
