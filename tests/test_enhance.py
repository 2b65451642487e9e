"""Restoring a photo through the studio: what the controls do to the whole picture, and what they must leave alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from engines.bundle import Shelf
from engines.messages import Enhance, Final, Preview
from engines.studio import Studio
from tests.fakes import FakeEngine, write_restorer


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(engine: FakeEngine, tmp_path: Path) -> Studio:
    write_restorer(tmp_path / "shelf" / "restorer")
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


def scene(height: int = 60, width: int = 90) -> Any:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((90 + x % 120, (400 - x - y) % 180 + 40, 60 + 2 * y % 150), -1).astype(np.uint8)


def noisy(height: int = 60, width: int = 90) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def enhance(studio: Studio, folder: Path, picture: Any, **controls: Any) -> Any:
    Image.fromarray(picture).save(folder / "photo.png")
    *_, last = studio.run(Enhance(str(folder / "photo.png"), **controls), folder / "out")
    assert isinstance(last, Final), last
    with Image.open(folder / "out" / last.images[0]) as image:
        assert image.mode == "RGB"
        return np.array(image)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (64, 64), (1, 1), (33, 200), (700, 500)])
def test_a_photo_keeps_its_size(studio: Studio, tmp_path: Path, height: int, width: int) -> None:
    assert enhance(studio, tmp_path, scene(height, width)).shape == (height, width, 3)


@pytest.mark.parametrize("protect_skin", [False, True])
@pytest.mark.parametrize("mode", ["natural", "strong", "detail"])
@pytest.mark.parametrize("make", [scene, noisy])
def test_strength_0_leaves_the_photo_as_it_is(
    studio: Studio, tmp_path: Path, make: Any, mode: str, protect_skin: bool
) -> None:
    """Every pixel of it."""
    photo = make()
    result = enhance(studio, tmp_path, photo, strength=0, mode=mode, protect_skin=protect_skin)
    assert (result == photo).all()


def test_more_strength_changes_more(studio: Studio, tmp_path: Path) -> None:
    changes = [
        np.abs(enhance(studio, tmp_path, scene(), strength=s).astype(int) - scene()).mean() for s in (0, 30, 60, 100)
    ]
    assert changes == sorted(changes) and changes[3] > 2 * changes[1] > 0


def test_every_mode_is_another_picture(studio: Studio, tmp_path: Path) -> None:
    how = {"strength": 100, "protect_skin": False}
    modes = [enhance(studio, tmp_path, noisy(), mode=mode, **how) for mode in ("natural", "strong", "detail")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(modes[one].astype(int) - modes[other]).mean() > 2


def test_protected_skin_keeps_its_colour(studio: Studio, tmp_path: Path) -> None:
    """The fake restorer brightens and pales; with protection the colour plane moves by less than people notice."""
    photo = np.broadcast_to(np.array([196, 150, 128], np.uint8), (64, 64, 3)).copy()

    def moved(protect_skin: bool) -> float:
        result = enhance(studio, tmp_path, photo, strength=100, mode="strong", protect_skin=protect_skin)
        was, now = (cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:] for p in (photo, result))
        return float(np.linalg.norm(now - was, axis=-1).max())

    assert moved(protect_skin=False) > 5
    assert moved(protect_skin=True) < 2.6  # 2, and what rounding to 8 bits adds


@pytest.mark.parametrize("control", ["denoise", "sharpen", "contrast", "brightness"])
def test_every_control_does_something_and_its_rest_does_nothing(studio: Studio, tmp_path: Path, control: str) -> None:
    photo, plain = noisy(), {"strength": 0, "protect_skin": False}
    assert (enhance(studio, tmp_path, photo, **plain, **{control: 90}) != photo).mean() > 0.3
    rest = 50 if control in ("contrast", "brightness") else 0
    assert (enhance(studio, tmp_path, photo, **plain, **{control: rest}) == photo).all()


def test_the_photo_is_shown_first_upright(studio: Studio, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(scene(40, 60)).save(tmp_path / "turned.jpg", exif=exif)
    events = list(studio.run(Enhance(str(tmp_path / "turned.jpg")), tmp_path / "out"))
    (before,) = (event for event in events if isinstance(event, Preview))
    assert before.step == 0
    with Image.open(tmp_path / "out" / before.image) as image:
        assert image.size == (40, 60)


def test_a_network_that_returns_no_numbers_is_refused(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    engine.spoil = {"restorer": lambda result: np.full_like(result, np.nan)}
    Image.fromarray(scene()).save(tmp_path / "photo.png")
    *_, last = studio.run(Enhance(str(tmp_path / "photo.png")), tmp_path / "out")
    assert getattr(last, "code", "") == "blank_picture"
    assert not list((tmp_path / "out").glob("outputs_*"))


def test_the_result_says_how_it_was_made(studio: Studio, tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "photo.png")
    request = Enhance(str(tmp_path / "photo.png"), strength=40, mode="detail", backend="edge")
    *_, last = studio.run(request, tmp_path / "out")
    assert isinstance(last, Final) and last.engine == "fake" and last.reason == "fake, asked for edge"
    with Image.open(tmp_path / "out" / last.images[0]) as image:
        assert "Strength: 40, Mode: detail" in image.info["parameters"]
    assert dataclasses.replace(last, images=()) == dataclasses.replace(last, images=(), seed=0)
