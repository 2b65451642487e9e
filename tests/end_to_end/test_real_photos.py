"""Whole photos through the built-in bundles: real portraits, damaged and placed into larger scenes, come out better."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import group, scene
from engines import images
from engines.bundle import Shelf
from engines.images.metrics import psnr_db
from engines.messages import Advice, Enhance, Event, Failed, Final, Inspect
from engines.studio import DETECTOR, Studio
from tests.conftest import REPOSITORY
from tests.support.not_people import KINDS, nobody
from tests.support.restoration import chroma_shift, reach
from training.restorer import degrade

Pixels = NDArray[np.uint8]
SCENES = 4
GAIN_DB = 0.4  # of the mean over so few, and over all that is touched; benchmarks/photos.py measures all 48
SEAM = 1.5
PEAK_MB = 1200


@dataclass(frozen=True)
class Done:
    truth: Pixels
    before: Pixels
    after: Pixels
    final: Final
    inside: NDArray[np.bool_]  # where the change may be
    face: NDArray[np.bool_]  # of that, the one face that was placed there


@pytest.fixture(scope="module")
def studio(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Shelf((builtin,)), tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def portraits(shared: Path) -> list[Pixels]:
    paths = sorted((shared / "portraits" / "val").glob("*.jpg"))
    if not paths:
        pytest.skip("no photographs among the shared data")
    return [images.read(path) for path in paths[:8]]


def events(studio: Studio, folder: Path, picture: Pixels, **controls: Any) -> list[Event]:
    path = folder / "photo.png"
    Image.fromarray(picture).save(path, compress_level=1)
    return list(studio.run(Enhance(str(path), **{"backend": "ort", **controls}), folder / "out"))


def restored(studio: Studio, folder: Path, picture: Pixels, **controls: Any) -> tuple[Final, Pixels]:
    *_, last = events(studio, folder, picture, **controls)
    assert isinstance(last, Final), last
    with Image.open(folder / "out" / last.images[0]) as image:
        return last, np.array(image.convert("RGB"))


def everybody(studio: Studio, picture: Pixels) -> list[NDArray[np.float64]]:
    loaded, _ = studio.loaded_bundles.get(DETECTOR, "auto")
    return [face.landmarks for face in loaded.face_detector.find(picture)]


@pytest.fixture(scope="module")
def done(studio: Studio, portraits: list[Pixels], tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """Six scenes, each restored with all that the network has."""
    made = []
    for k, portrait in enumerate(portraits[:SCENES]):
        one = scene(portrait, k)
        final, after = restored(studio, tmp_path_factory.mktemp("scene"), one.damaged, strength=100)
        people = everybody(studio, one.damaged)
        inside, face = (reach(one.damaged.shape, *some, size_px=256) for some in (people, people[:1]))
        made.append(Done(one.truth, one.damaged, after, final, inside, face))
    return made


def db(a: Pixels, b: Pixels, where: NDArray[np.bool_]) -> float:
    return psnr_db(a[where][None], b[where][None])


def seam(before: Pixels, after: Pixels, inside: NDArray[np.bool_]) -> float:
    """Mean absolute step of the change over the line where the mask ends, in levels."""
    ring = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    return float(np.abs(after[ring].astype(int) - before[ring]).mean())


def test_the_faces_are_found_and_restored(done: list[Done]) -> None:
    assert all(len(one.final.faces) >= 1 for one in done)
    states = [face.state for one in done for face in one.final.faces]
    assert states.count("skipped") <= len(states) // 3
    assert all(face.reason for one in done for face in one.final.faces if face.state != "restored"), (
        "and it is said why"
    )


def test_they_are_nearer_to_what_they_were(done: list[Done]) -> None:
    gains = [db(one.after, one.truth, one.face) - db(one.before, one.truth, one.face) for one in done]
    assert np.mean(gains) >= GAIN_DB and min(gains) >= 0


def test_nothing_else_is_touched(done: list[Done]) -> None:
    for one in done:
        assert (one.after[~one.inside] == one.before[~one.inside]).all() and one.inside.mean() < 0.2


def test_no_square_is_to_be_seen(done: list[Done]) -> None:
    assert max(seam(one.before, one.after, one.inside) for one in done) <= SEAM


DRAWN = ("portrait/proof/1.png", "portrait/proof/3.png", "portrait/proof/4.png", "restorer/proof/3-face.png")


def test_drawn_people_are_restored_too(studio: Studio, builtin: Path, tmp_path: Path) -> None:
    """So that something of all this is tested wherever there are no photographs."""
    before = np.full((600, 800, 3), (150, 160, 175), dtype=np.uint8)
    for k, name in enumerate(DRAWN):
        face = np.asarray(cv2.resize(images.read(builtin / name), (256, 256), interpolation=cv2.INTER_AREA))
        damaged = degrade.fixed(face, degrade.LEVELS["mild"], k)
        before[20 + 290 * (k // 2) :, 60 + 400 * (k % 2) :][:256, :256] = damaged
    final, after = restored(studio, tmp_path, before, strength=100)
    assert [face.state == "skipped" for face in final.faces].count(False) >= 3
    inside = reach(before.shape, *everybody(studio, before), size_px=256)
    assert (after[~inside] == before[~inside]).all() and seam(before, after, inside) <= SEAM


def test_a_group_is_restored_face_by_face(studio: Studio, portraits: list[Pixels], tmp_path: Path) -> None:
    picture = np.asarray(cv2.resize(group(portraits[:8]), (1600, 1200), interpolation=cv2.INTER_AREA))
    final, after = restored(studio, tmp_path, picture, strength=80)
    assert len(final.faces) == 8
    outside = ~reach(picture.shape, *everybody(studio, picture), size_px=256)
    assert (after[outside] == picture[outside]).all()
    one, after = restored(studio, tmp_path, picture, strength=80, only_center_face=True)
    assert sum(face.state == "skipped" and "centre" in face.reason for face in one.faces) == 7


@pytest.mark.parametrize("turn", ["tilted", "stored on its side"])
def test_a_face_that_does_not_stand_upright(studio: Studio, portraits: list[Pixels], tmp_path: Path, turn: str) -> None:
    picture = scene(portraits[0], 0).damaged
    height, width = picture.shape[:2]
    if turn == "tilted":
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 30, 1)
        path = tmp_path / "photo.png"
        tilted = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        Image.fromarray(np.asarray(tilted, dtype=np.uint8)).save(path)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / "photo.jpg"
        Image.fromarray(np.rot90(picture).copy()).save(path, quality=95, exif=exif)
    *_, last = studio.run(Enhance(str(path), backend="ort"), tmp_path / "out")
    assert isinstance(last, Final) and any(face.state != "skipped" for face in last.faces)
    with Image.open(tmp_path / "out" / last.images[0]) as image:
        assert image.size == (width, height)


def test_a_grey_print_stays_grey(studio: Studio, portraits: list[Pixels], tmp_path: Path) -> None:
    grey = np.repeat(cv2.cvtColor(scene(portraits[1], 1).damaged, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    final, after = restored(studio, tmp_path, grey, strength=100, mode="strong", protect_skin=False)
    assert any(face.state != "skipped" for face in final.faces) and (after != grey).any()
    assert np.ptp(after.astype(int), axis=-1).max() == 0


def test_skin_keeps_its_colour_whatever_is_done_to_it(studio: Studio, portraits: list[Pixels], tmp_path: Path) -> None:
    before = scene(portraits[2], 2).damaged
    controls = {"strength": 100, "mode": "strong", "brightness": 70, "contrast": 70}
    _, after = restored(studio, tmp_path, before, **controls)
    _, free = restored(studio, tmp_path, before, **controls, protect_skin=False)
    ycc = cv2.cvtColor(before, cv2.COLOR_RGB2YCrCb).astype(int)
    skin = (abs(ycc[..., 1] - 150) < 12) & (abs(ycc[..., 2] - 105) < 15) & (abs(ycc[..., 0] - 140) < 60)
    assert skin.mean() > 0.01
    assert (
        np.quantile(chroma_shift(before, after)[skin], 0.999) < 3.2 < np.quantile(chroma_shift(before, free)[skin], 0.9)
    )


def test_a_sharp_portrait_is_left_alone(studio: Studio, portraits: list[Pixels], tmp_path: Path) -> None:
    alone = [restored(studio, tmp_path, portrait)[0].faces for portrait in portraits[:4]]
    kept = [face.reason == "already sharp" for reports in alone for face in reports]
    assert len(kept) >= 4 and np.mean(kept) >= 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_invented_where_nobody_is(studio: Studio, tmp_path: Path, kind: str) -> None:
    picture = nobody(kind, 7)
    *_, last = events(studio, tmp_path, picture)
    assert isinstance(last, Failed) and last.code == "no_face" and not list((tmp_path / "out").glob("outputs_*"))
    final, _ = restored(studio, tmp_path, picture, whole_picture=True)
    assert final.faces == ()


def test_a_look_at_a_damaged_photo_suggests_more_than_at_a_good_one(
    studio: Studio, portraits: list[Pixels], tmp_path: Path
) -> None:
    one, told = scene(portraits[3], 3), []
    for picture in (one.truth, one.damaged):
        Image.fromarray(picture).save(tmp_path / "photo.png")
        told += [e for e in studio.run(Inspect(str(tmp_path / "photo.png")), tmp_path) if isinstance(e, Advice)]
    good, bad = told
    assert good.faces == bad.faces == 1 and good.blur < bad.blur > 0.3
    assert int(good.settings["strength"]) < int(bad.settings["strength"]) <= 80


LARGE = """
    import sys
    from pathlib import Path
    from engines.bundle import BUILT_IN, Shelf
    from engines.messages import Enhance, Final
    from engines.studio.proof import peak_mb
    from engines.studio import Studio
    folder = Path(sys.argv[1])
    studio = Studio(Shelf((BUILT_IN,)), folder / "state")
    controls = {"fading": 30, "scratches": 40, "denoise": 20, "sharpen": 20, "brightness": 60, "format": "jpeg"}
    controls["backend"] = "edge"
    *_, last = studio.run(Enhance(str(folder / "large.jpg"), **controls), folder / "out")
    assert isinstance(last, Final), last
    print(len(last.faces), round(peak_mb()))
"""


@pytest.mark.slow
def test_50_megapixels_with_every_control_fit_into_memory(portraits: list[Pixels], tmp_path: Path) -> None:
    picture = cv2.resize(group(portraits[:8]), (8160, 6120), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(np.asarray(picture)).save(tmp_path / "large.jpg", quality=90)
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LARGE), str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-500:]
    found, peak_mb = map(int, told.stdout.split())
    assert found == 8 and peak_mb < PEAK_MB
