"""One colour for each cell of latents, by a fit to what a decoder made of others."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from engines import images
from engines.bundle import BUILT_IN, Shelf
from engines.messages import Generate, Preview
from engines.studio import Studio
from engines.studio.rough_preview import RoughDecoder
from engines.studio.timings import Timings

LOT = np.random.default_rng(6)
MAP = LOT.uniform(-20, 20, (4, 3))


def latents(height: int = 6, width: int = 8) -> np.ndarray:
    return LOT.uniform(-1, 1, (1, 4, height, width)).astype(np.float32)


def colours(of: np.ndarray) -> np.ndarray:
    """What a decoder that is linear makes of them, in cells of 8 x 8."""
    levels = np.rint(np.einsum("chw,ck->hwk", of[0], MAP) + 128).astype(np.uint8)
    return levels.repeat(8, 0).repeat(8, 1)


def test_what_is_linear_is_found_again() -> None:
    rough, others = RoughDecoder.fitted(*(lambda z: (z, colours(z)))(latents())), latents(5, 9)
    picture = rough.decode(others, 9, 5)
    assert picture.shape == (5, 9, 3) and picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - colours(others)[::8, ::8]).max() <= 2


def test_a_picture_has_the_size_that_is_asked_for_and_stays_within_its_levels() -> None:
    rough = RoughDecoder.fitted(*(lambda z: (z, colours(z)))(latents()))
    assert rough.decode(latents(), 64, 48).shape == (48, 64, 3)
    far = rough.decode(100 * latents(), 8, 6)
    assert far.min() == 0 and far.max() == 255, "and not what is left of a level over 255"


def test_one_colour_everywhere_is_fitted_too() -> None:
    """There is no one best map then: the smallest is taken."""
    flat = np.ones((1, 16, 4, 4), np.float32)
    rough = RoughDecoder.fitted(flat, np.full((32, 32, 3), 99, np.uint8))
    assert np.abs(rough.decode(flat, 4, 4).astype(int) - 99).max() <= 1


class Slow(Timings):
    """A machine on which a look by the tiny decoder may be had at the ends alone."""

    def preview_steps(self, steps: int) -> frozenset[int]:
        return frozenset((1, steps))

    def rough_every(self) -> int:
        return 1


class Thorough(Timings):
    """One on which it may be had at each step."""

    def preview_every(self) -> int:
        return 1


def looks(pace: Timings, folder: Path) -> tuple[list[Preview], Timings]:
    studio = Studio(Shelf((BUILT_IN,)), folder / "state")
    studio.paces = defaultdict(lambda: pace)
    request = Generate("woman with glasses", seed=2, steps=6, width=256, height=256, backend="ort")
    events = list(studio.run(request, folder / "out"))
    return [event for event in events if isinstance(event, Preview) and event.kind == "step"], pace


def opened(folder: Path, preview: Preview) -> np.ndarray:
    return images.read(folder / "out" / preview.image).astype(float)


def test_between_two_previews_the_picture_does_not_stand_still(tmp_path: Path) -> None:
    """What is rough is much nearer to what the tiny decoder would show than its last picture is."""
    rough, pace = looks(Slow(), tmp_path / "a")
    tiny, _ = looks(Thorough(), tmp_path / "b")
    assert [(look.step, look.decoder) for look in rough] == [
        (1, "tiny"), *((step, "rough") for step in range(2, 6)), (6, "tiny"),
    ]  # fmt: skip
    assert [(look.step, look.decoder) for look in tiny] == [(step, "tiny") for step in range(1, 7)]
    still = opened(tmp_path / "a", rough[0])
    for look, truth in list(zip(rough, tiny, strict=True))[1:5]:
        wanted = opened(tmp_path / "b", truth)
        error, error_of_still = (np.sqrt(np.mean((it - wanted) ** 2)) for it in (opened(tmp_path / "a", look), still))
        assert error < 20 and error < 0.7 * error_of_still
    assert pace.rough_s > 0


def test_a_rough_look_costs_no_more_of_a_step_than_a_preview_may() -> None:
    pace = Timings(step_s=0.1, preview_s=1.0, rough_s=0.025)
    assert (pace.preview_every(), pace.rough_every()) == (100, 3)
