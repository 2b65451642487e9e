"""Retouching: pixels only, so every rule can be checked on pictures made for it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.faces import retouch
from engines.studio.restore import MARGIN_PX
from tests.conftest import REPOSITORY

Pixels = NDArray[np.uint8]


def grey(level: int, height: int = 64, width: int = 64) -> Pixels:
    return np.full((height, width, 3), level, dtype=np.uint8)


def slope(height: int, width: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x * 200 // width, y * 200 // height, (x + y) * 200 // (width + height)), -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 80), (80, 40), (41, 80), (300, 7)])
def test_the_square_holds_the_whole_picture_in_the_middle(height: int, width: int) -> None:
    side = max(height, width)
    picture = slope(height, width)
    square = retouch.to_square(picture, side)
    top, left = (side - height) // 2, (side - width) // 2
    assert square.shape == (side, side, 3)
    assert (square[top : top + height, left : left + width] == picture).all()
    assert (square[: top + 1, left] == picture[0, 0]).all() and (
        square[top + height - 1 :, left] == picture[-1, 0]
    ).all()


def test_shrinking_averages() -> None:
    board = np.indices((640, 640)).sum(0) % 2 * 255
    square = retouch.to_square(np.repeat(board[..., None], 3, -1).astype(np.uint8), 64)
    assert square.std() < 2 and abs(float(square.mean()) - 127.5) < 1


LIGHT = 40  # a change in light: everywhere the same
GRAIN = 20  # a change in detail: every other pixel


def changed(light: int, grain: int, side: int = 64) -> tuple[Pixels, Pixels]:
    before = grey(100, side, side)
    sign = (np.indices((side, side)).sum(0) % 2 * 2 - 1)[..., None]
    return before, (before.astype(int) + light + grain * sign).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "light", "grain"), [("natural", 0.5, 1.0), ("strong", 1.0, 1.0), ("detail", 1.0, 1.5)]
)
def test_modes_take_light_and_detail_as_documented(mode: Any, light: float, grain: float) -> None:
    before, after = changed(LIGHT, 0)
    assert np.abs(retouch.change_of(before, after, mode) - light * LIGHT).max() < 0.01
    before, after = changed(0, GRAIN)
    assert np.abs(np.abs(retouch.change_of(before, after, mode)) - grain * GRAIN)[8:-8, 8:-8].max() < 0.1


def test_an_unchanged_face_has_no_change() -> None:
    picture = slope(50, 50)
    for mode in ("natural", "strong", "detail"):
        assert not retouch.change_of(picture, picture, mode).any()


def test_local_contrast_is_about_what_is_fine() -> None:
    """A lash stands out from its surroundings, a plane and its colour stay."""
    face = grey(120)
    face[:, 30:32] = 80
    change = retouch.local_contrast(face, 0.5)
    assert change.shape == (64, 64, 3) and (change[..., 0] == change[..., 2]).all()
    assert change[:, 30:32].max() < -8 and change[:, 33:36].min() > 1
    assert np.abs(change[:, :16]).max() < 0.01 and not retouch.local_contrast(face, 0).any()


SKIN = {"pale": (244, 214, 198), "light": (224, 178, 152), "tanned": (196, 150, 128), "brown": (141, 98, 76),
        "dark": (88, 58, 46)}  # fmt: skip
LIMIT = 2.0
ROUNDING = 1.2  # half a level in each channel


def lab(pixels: Pixels) -> Any:
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def moved(source: Pixels, changed: Pixels) -> float:
    """How far colour moved in CIELAB's a, b, at most."""
    return float(np.linalg.norm(lab(changed)[..., 1:] - lab(source)[..., 1:], axis=-1).max())


def skin(shade: str, height: int = 48, width: int = 40) -> Pixels:
    """With the texture that skin has."""
    texture = np.random.default_rng(0).integers(-4, 5, (height, width, 1))
    return np.asarray((np.array(SKIN[shade]) + texture).clip(0, 255), dtype=np.uint8)


@pytest.mark.parametrize("limit", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("shade", SKIN)
def test_the_colour_of_skin_moves_no_further_than_the_limit(shade: str, limit: float) -> None:
    source = skin(shade)
    push = np.random.default_rng(1).integers(-40, 41, source.shape)
    pushed = np.clip(source.astype(int) + push, 0, 255).astype(np.uint8)
    held = pushed.copy()
    retouch.hold_skin(source, held, limit)
    assert moved(source, held) <= limit + ROUNDING
    assert moved(source, pushed) > 10


def test_lightness_stays_the_new_one_where_the_colour_allows_it() -> None:
    source = skin("tanned")
    pushed = np.clip(source.astype(int) + (10, 40, 20), 0, 255).astype(np.uint8)
    held = pushed.copy()
    retouch.hold_skin(source, held)
    assert moved(source, held) <= LIMIT + ROUNDING and moved(source, pushed) > 10
    assert np.abs(lab(held)[..., 0] - lab(pushed)[..., 0]).max() <= 0.6


@pytest.mark.parametrize("brightness", [0.0, 0.2, 0.8, 1.0])
@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shade", SKIN)
def test_no_setting_of_the_controls_bleaches_skin(shade: str, contrast: float, brightness: float) -> None:
    """Near white and near black there is hardly any colour: lightness has to give way."""
    source = skin(shade)
    held = retouch.adjust(source, contrast, brightness).copy()
    retouch.hold_skin(source, held)
    assert moved(source, held) <= LIMIT + ROUNDING


def test_what_is_no_skin_is_free() -> None:
    for colour in ((60, 110, 200), (60, 160, 70), (128, 128, 128), (250, 250, 60)):
        source = np.full((300, 8, 3), colour, dtype=np.uint8)
        pushed = source[..., ::-1].copy() // 2
        held = pushed.copy()
        retouch.hold_skin(source, held)
        assert (held == pushed).all()


def test_skin_is_held_in_every_row_of_a_large_photo() -> None:
    source = np.full((700, 16, 3), SKIN["light"], dtype=np.uint8)
    held = np.full_like(source, (150, 200, 240))
    retouch.hold_skin(source, held)
    assert moved(source, held) <= LIMIT + ROUNDING


def test_a_small_shift_of_colour_is_kept() -> None:
    source = skin("tanned")
    pushed = source.copy()
    pushed[..., 0] += 1
    held = pushed.copy()
    retouch.hold_skin(source, held)
    assert (held == pushed).all()


def test_unchanged_colours_stay_to_the_last_bit() -> None:
    """On the way to CIELAB and back nothing may be lost: strength 0 must leave the photo as it is."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    held = every.copy()
    retouch.hold_skin(every, held)
    assert (held == every).all()


def test_denoising_calms_grain_and_keeps_edges() -> None:
    rng = np.random.default_rng(0)
    clean = grey(60)
    clean[:, 32:] = 200
    noisy = np.clip(clean + rng.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
    calm = retouch.denoise(noisy, 1.0)
    assert np.abs(calm.astype(int) - clean)[:, :24].mean() < 0.6 * np.abs(noisy.astype(int) - clean)[:, :24].mean()
    assert calm[:, 34:].mean() - calm[:, :30].mean() > 130
    assert retouch.denoise(noisy, 0.0) is noisy


def test_sharpening_steepens_edges_and_leaves_planes() -> None:
    step = grey(80)
    step[:, 32:] = 160
    soft = cv2.GaussianBlur(step, (0, 0), 2)
    sharp = retouch.sharpen(np.asarray(soft, np.uint8), 1.0).astype(int)
    assert np.abs(np.diff(sharp[32, :, 0])).max() > 1.2 * np.abs(np.diff(soft[32, :, 0].astype(int))).max()
    assert (retouch.sharpen(grey(90), 1.0) == 90).all()
    assert retouch.sharpen(step, 0.0) is step


def test_contrast_turns_about_mid_grey_and_brightness_shifts() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert (retouch.adjust(levels, 0.5, 0.5) == levels).all()
    assert np.abs(retouch.adjust(levels, 1.0, 0.5) - ((levels - 127.5) * 1.5 + 127.5).clip(0, 255)).max() <= 0.5
    assert np.abs(retouch.adjust(levels, 0.0, 0.5) - ((levels - 127.5) * 0.5 + 127.5)).max() <= 0.5
    assert np.abs(retouch.adjust(levels, 0.5, 1.0) - (levels.astype(float) + 64).clip(0, 255)).max() <= 0.5
    assert np.abs(retouch.adjust(levels, 0.5, 0.0) - (levels.astype(float) - 64).clip(0, 255)).max() <= 0.5


def test_bands_give_the_same_picture_as_all_at_once() -> None:
    """The controls look no further than the margin: no seam every 256 rows."""
    picture = np.random.default_rng(0).integers(0, 256, (600, 40, 3), dtype=np.uint8)

    def work(band: Pixels) -> Pixels:
        return retouch.sharpen(retouch.denoise(band, 0.7), 0.6)

    assert (retouch.in_bands(picture, work, MARGIN_PX) == work(picture)).all()


STRIP = """
    import resource
    import numpy as np
    from engines.faces import retouch
    picture = np.zeros((8, 30_000, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, resource.RLIM_INFINITY))
    assert not retouch.to_square(picture, 256).any()
    held = retouch.in_bands(picture, lambda band: retouch.sharpen(retouch.denoise(band, 1.0), 1.0), 16).copy()
    retouch.hold_skin(picture, held)
    print("done", (retouch.mend_scratches(retouch.mend_fading(held, 1.0), 1.0) == picture).all())
"""


def test_a_long_strip_does_not_fill_the_memory() -> None:
    """30 000 x 8 pixels are a quarter of a megapixel, and a square of that side nearly a thousand."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STRIP)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "done True", done.stderr[-300:]
