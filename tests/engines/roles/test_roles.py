"""Roles: pixels and arrays in their ranges, and no blank picture gets through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle import Sampling
from engines.bundle.signatures import Array
from engines.errors import BlankPicture
from engines.families import FAMILIES
from engines.roles import Decoder, Denoiser, PreviewDecoder, Restorer, from_pixels, not_blank, to_pixels

SAMPLING = Sampling(8, 3.0, 3, 1, 1.0, 0.0)


@dataclass
class Canned:
    """A session that returns one array, and remembers what it was fed."""

    name: str
    result: Array

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.fed = dict(feeds)
        return {self.name: self.result}

    def close(self) -> None: ...


def test_every_level_survives_the_way_to_floats_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8)
    picture: NDArray[np.uint8] = np.stack((levels, levels[::-1], np.roll(levels, 99)), -1).reshape(16, 16, 3)
    image = from_pixels(picture)
    assert image.shape == (1, 3, 16, 16) and image.dtype == np.float32 and image.flags.c_contiguous
    assert image.min() == -1 and image.max() == 1
    assert (to_pixels(image) == picture).all()


def test_a_picture_keeps_its_orientation_and_its_channels() -> None:
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    picture[1, 5] = (255, 0, 128)
    image = from_pixels(picture)
    assert image.shape == (1, 3, 4, 6)
    assert image[0, :, 1, 5].round(2).tolist() == [1.0, -1.0, pytest.approx(0.0, abs=0.01)]
    assert (to_pixels(image) == picture).all()


def test_what_is_out_of_range_is_cut() -> None:
    image = np.array([-9.0, -1.001, 1.001, 9.0], dtype=np.float32).reshape(1, 1, 2, 2).repeat(3, 1)
    assert to_pixels(image)[:, :, 0].ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_a_number_is_enough(value: float) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    image[0, 1, 3, 3] = value
    with pytest.raises(BlankPicture):
        to_pixels(image)
    for role in (Decoder(Canned("image", image), SAMPLING), PreviewDecoder(Canned("image", image))):
        with pytest.raises(BlankPicture):
            role.decode(image)
    with pytest.raises(BlankPicture):
        Restorer(Canned("restored", image)).restore(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("colour", [(-1, -1, -1), (1, 1, 1), (0.2, 0.2, 0.2), (0.8, -0.8, 0.1), (-1, 1, -1)])
def test_one_flat_colour_is_blank_whatever_the_colour(colour: tuple[float, float, float]) -> None:
    flat = np.array(colour, dtype=np.float32).reshape(1, 3, 1, 1).repeat(16, 2).repeat(16, 3)
    with pytest.raises(BlankPicture):
        not_blank(Decoder(Canned("image", flat), SAMPLING).decode(flat))


def test_a_faint_picture_is_not_blank() -> None:
    faint = np.linspace(-0.05, 0.05, 16, dtype=np.float32).reshape(1, 1, 1, 16).repeat(3, 1).repeat(16, 2)
    assert not_blank(Decoder(Canned("image", faint), SAMPLING).decode(faint)).shape == (16, 16, 3)


def test_the_preview_decoder_takes_latents_as_they_are_and_may_be_flat() -> None:
    session = Canned("image", np.zeros((1, 3, 8, 8), np.float32))
    latents = np.full((1, 4, 8, 8), 0.3, np.float32)
    assert PreviewDecoder(session).decode(latents).shape == (8, 8, 3)
    assert session.fed["latents"] is latents


def test_the_denoiser_speaks_its_family() -> None:
    x = np.ones((1, 2, 2, 2), np.float32)
    session = Canned("velocity", x)
    assert (Denoiser(session, FAMILIES["zimage"]).velocity(x, 0.75, x) == -x).all()
    assert session.fed["time"].tolist() == [0.25]


def test_the_restorer_keeps_channels_in_order() -> None:
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (Restorer(Canned("restored", from_pixels(face))).restore(face) == face).all()
