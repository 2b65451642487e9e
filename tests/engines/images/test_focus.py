"""A picture is cut about the faces in it, where nobody has said what matters."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines import images
from engines.images.decoder import Decoder
from engines.images.focus import middle_of_faces
from engines.images.scaling import PORTRAIT, Scaling, crop, scaled

FACES = Path(images.__file__).parents[1] / "builtin" / "restorer" / "proof"
SIDE = 256  # of each face's picture, whose face is in its middle


def face(number: int, mirrored: bool = False) -> Image.Image:
    picture = Image.open(FACES / f"{number}.png").convert("RGB")
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


def wall(width: int, height: int, *places: tuple[int, int]) -> Image.Image:
    """A wall that is lighter towards the top, with faces, each at its left and upper edge."""
    shade = np.linspace(190, 90, height)[:, None, None] * np.ones((1, width, 3))
    picture = Image.fromarray(shade.astype(np.uint8))
    for number, place in enumerate(places, 1):
        picture.paste(face(number), place)
    return picture


@pytest.mark.parametrize("place", [(0, 0), (1344, 40), (700, 644), (60, 600)])
def test_the_middle_of_a_face_wherever_it_is(place: tuple[int, int]) -> None:
    middle = middle_of_faces(np.asarray(wall(1600, 900, place)))
    assert middle is not None
    off = np.array(middle) * (1600, 900) - (place[0] + SIDE / 2, place[1] + SIDE / 2)
    assert np.abs(off).max() < 0.1 * SIDE


def test_the_middle_of_several_and_of_none() -> None:
    middle = middle_of_faces(np.asarray(wall(2000, 1000, (100, 100), (900, 300), (1500, 500))))
    assert middle == pytest.approx(((100 + 1500 + SIDE) / 2 / 2000, (100 + 500 + SIDE) / 2 / 1000), abs=0.02)
    assert middle_of_faces(np.asarray(wall(2000, 1000))) is None
    assert middle_of_faces(np.zeros((1, 1, 3), np.uint8)) is None


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_nobody_s_head_is_cut_off(tmp_path: Path, orientation: int) -> None:
    """Upright, low in a tall photograph, of which a wide screen shows a third; however the camera lay."""
    photo = wall(900, 1600, (320, 1250))
    turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    lying = photo if (turn := turns[orientation]) is None else photo.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying.save(path := tmp_path / "a.jpg", quality=92, exif=exif)
    shown = np.asarray(Image.open(io.BytesIO(scaled(path, Scaling(900, 500, "cover", format="png")))))
    middle = middle_of_faces(shown)
    assert middle is not None and abs(middle[1] - 0.5) < 0.25, "the face is shown, and whole"
    there = np.asarray(photo.crop((320, 1250, 320 + SIDE, 1250 + SIDE)), int)
    assert np.abs(shown[150:406, 320:576] - there).mean() < 4, "as low as the cut can be"


def test_where_nobody_is_it_is_cut_as_a_portrait(tmp_path: Path) -> None:
    wall(900, 1600).save(path := tmp_path / "a.png")
    how = Scaling(900, 500, "cover", format="png")
    left, top, width, height = crop(900, 1600, how)
    assert (left, top, width, height) == (0, PORTRAIT[1] * 1600 - 250, 900, 500)
    shown = np.asarray(Image.open(io.BytesIO(scaled(path, how))), int)
    assert np.abs(shown - np.asarray(Image.open(path), int)[round(top) : round(top) + 500]).max() <= 1


def test_what_was_said_counts(tmp_path: Path) -> None:
    wall(900, 1600, (320, 1250)).save(path := tmp_path / "a.png")
    shown = np.asarray(Image.open(io.BytesIO(scaled(path, Scaling(900, 500, "cover", (0.5, 0.0), "png")))), int)
    assert np.abs(shown - np.asarray(wall(900, 500), int)).mean() > 10 and shown[0].mean() > 185, "the top of it"


def test_the_process_for_strangers_files_does_it(tmp_path: Path) -> None:
    """Within the memory that it has, on a computer with many processors too."""
    wall(3000, 4000, (1500, 3500)).save(path := tmp_path / "a.jpg", quality=92)
    how = Scaling(1600, 900, "cover")
    decoder = Decoder()
    try:
        assert decoder.scaled(path, how) == scaled(path, how)
    finally:
        decoder.close()


def test_what_is_shown_whole_loads_no_network(tmp_path: Path) -> None:
    wall(900, 1600).save(path := tmp_path / "a.png")
    script = (
        "import sys, pathlib; from engines.images.scaling import Scaling, scaled;"
        f"scaled(pathlib.Path({str(path)!r}), Scaling(900, 500)); print('cv2' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_real_people_stay_in_the_picture(shared: Path) -> None:
    """Every landmark of 48 portraits, cut to half their height about what is found in them."""
    folder = shared / "portraits"
    landmarks = json.loads((folder / "val-landmarks.json").read_text())
    assert landmarks
    for name, points in landmarks.items():
        pixels = images.read(folder / "val" / name)
        height, width = pixels.shape[:2]
        middle = middle_of_faces(pixels)
        assert middle is not None, name
        _, top, _, shown = crop(width, height, Scaling(width, height // 2, "cover", middle))
        assert all(top <= y <= top + shown for _, y in points), name
