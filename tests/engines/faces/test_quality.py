"""What is measured of a photo grows with what is wrong with it, and the suggestion follows the measures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.faces import quality
from engines.messages import Enhance, parse

Picture = NDArray[np.uint8]


def textured(seed: int = 0, side: int = 256) -> Picture:
    """Detail at every scale, as sharp photographs have it: about the same between any two scales."""
    rng, total = np.random.default_rng(seed), np.zeros((side, side, 3), np.float32)
    for sigma in (0.6, 1.2, 2.4, 4.8, 9.6, 19.2):
        layer = cv2.GaussianBlur(rng.normal(0, 1, (side, side, 3)).astype(np.float32), (0, 0), sigma)
        total += layer / layer.std()
    return np.asarray((128 + 22 * total).clip(0, 255), dtype=np.uint8)


def blurred(picture: Picture, sigma: float) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture, dtype=np.uint8)


def noisy(picture: Picture, sigma: float) -> Picture:
    grain = np.random.default_rng(1).normal(0, sigma, picture.shape)
    return np.asarray(np.rint(picture + grain).clip(0, 255), dtype=np.uint8)


def test_blur_grows_with_blur() -> None:
    told = [quality.blur(blurred(textured(), sigma)) for sigma in (0, 0.7, 1.0, 1.5, 3)]
    assert told == sorted(told) and told[0] == 0 and told[-1] > 0.9 and 0 < told[1] < 1


def test_a_picture_that_was_small_once_is_blurred() -> None:
    small = cv2.resize(textured(), (64, 64), interpolation=cv2.INTER_AREA)
    assert quality.blur(np.asarray(cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC))) > 0.5


@pytest.mark.parametrize("sigma", [5, 12, 30])
def test_the_worst_blur_is_no_sharpness(sigma: float) -> None:
    """All that is left of such a face in the finest scale is rounding to levels."""
    assert quality.blur(blurred(textured(), sigma)) == 1 and not quality.is_sharp(blurred(textured(), sigma))


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0, 20.0])
def test_the_standard_deviation_of_noise_is_estimated(sigma: float) -> None:
    for picture in (np.full((256, 256, 3), 120, np.uint8), blurred(textured(), 4)):
        told = quality.noise_sigma(noisy(picture, sigma))
        assert told == pytest.approx(sigma * np.sqrt(0.299**2 + 0.587**2 + 0.114**2), rel=0.25), "of luma"


def test_noise_grows_with_noise_and_edges_are_none() -> None:
    clean = blurred(textured(), 3)
    told = [quality.noise(noisy(clean, sigma)) for sigma in (0, 8, 16, 40)]
    assert told == sorted(told) and told[0] == 0 and told[-1] == 1
    board = (np.indices((256, 256)) // 16).sum(0) % 2 * 200
    assert quality.noise(np.repeat(board[..., None], 3, 2).astype(np.uint8)) == 0


def test_a_sharp_face_is_sharp_and_neither_blur_nor_noise_is() -> None:
    sharp = textured()
    face = np.asarray(np.rint(128 + (sharp.astype(float) - 128) * 0.35), dtype=np.uint8)  # as calm as skin
    assert quality.is_sharp(face)
    assert not quality.is_sharp(blurred(face, 1.5))
    assert not quality.is_sharp(noisy(blurred(face, 2), 14)), "its finest detail is noise"
    assert not quality.is_sharp(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))


@pytest.mark.parametrize("side", [32, 64, 256, 512])
def test_a_face_without_anything_on_it_is_measured_too(side: int) -> None:
    flat = np.full((side, side, 3), 140, dtype=np.uint8)
    assert quality.blur(flat) == 1 and quality.noise(flat) == 0 and not quality.is_sharp(flat)


def suggested(blurs: list[float], noisy: float = 0.0, faded: float = 0.0) -> dict[str, Any]:
    return dict(quality.suggestion(blurs, noisy, faded))


@pytest.mark.parametrize("blurs", [[], [0.0], [0.4, 0.9], [1.0]])
@pytest.mark.parametrize("noisy", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("faded", [0.0, 1.0])
def test_whatever_is_suggested_can_be_asked_for(blurs: list[float], noisy: float, faded: float) -> None:
    settings = suggested(blurs, noisy, faded)
    request = parse(Enhance, {"image": "a.jpg", **settings})
    assert {name: getattr(request, name) for name in settings} == settings
    assert request.strength <= 80, "from there on the page warns"


def test_the_worse_the_photo_the_firmer_the_suggestion() -> None:
    strengths = [suggested([blur])["strength"] for blur in (0.0, 0.3, 0.7, 1.0)]
    assert strengths == sorted(strengths) and strengths[0] < strengths[-1]
    assert suggested([0.1, 1.0]) == suggested([1.0]), "the worst face counts"
    assert suggested([0.2])["mode"] == "natural" and suggested([1.0])["mode"] == "strong"
    denoised = [suggested([0.5], noise)["denoise"] for noise in (0.0, 0.4, 1.0)]
    assert denoised == sorted(denoised) and denoised[0] == 0 < denoised[-1]
    assert suggested([0.5], 0.9)["sharpen"] == 0 < suggested([0.5])["sharpen"], "noise is not sharpened"
    assert [suggested([0.5], 0, faded)["fading"] for faded in (0.0, 0.5, 1.0)] == [0, 50, 100]


def test_a_good_photo_and_one_without_people_are_left_alone() -> None:
    assert suggested([])["strength"] == 0
    good = suggested([0.0])
    assert (good["denoise"], good["sharpen"], good["fading"], good["mode"]) == (0, 0, 0, "natural")
