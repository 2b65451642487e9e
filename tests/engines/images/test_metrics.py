"""PSNR and SSIM against numbers that were reckoned by hand, or the slow way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines.images.metrics import SAME_DB, luma, psnr_db, ssim

Picture = Any


def picture(seed: int = 0, height: int = 40, width: int = 52) -> Picture:
    """Slopes with some noise: structure at every scale."""
    y, x = np.mgrid[0:height, 0:width]
    slopes = np.stack((3 * x + y, 200 - 2 * y, 60 + 2 * x), -1)
    noise = np.random.default_rng(seed).normal(0, 8, slopes.shape)
    return np.clip(slopes + noise, 0, 255).astype(np.uint8)


def plain(value: int) -> Picture:
    return np.full((32, 32, 3), value, np.uint8)


def test_a_picture_is_like_itself() -> None:
    assert psnr_db(picture(), picture()) == SAME_DB == 99.0
    assert ssim(picture(), picture()) == pytest.approx(1.0, abs=1e-12)
    assert ssim(plain(7), plain(7)) == pytest.approx(1.0, abs=1e-12)  # flat is no division by zero


@pytest.mark.parametrize(("a", "b", "expected"), [(0, 255, 0.0), (100, 101, 48.1308), (10, 20, 28.1308), (255, 0, 0.0)])
def test_psnr_of_plain_pictures(a: int, b: int, expected: float) -> None:
    """20 log10(255 / difference). The difference of 8-bit numbers must not wrap round."""
    assert psnr_db(plain(a), plain(b)) == pytest.approx(expected, abs=1e-3)
    assert psnr_db(plain(b), plain(a)) == pytest.approx(expected, abs=1e-3)


def test_psnr_is_over_all_channels() -> None:
    one_channel = plain(100)
    one_channel[..., 2] += 30
    assert psnr_db(plain(100), one_channel) == pytest.approx(10 * np.log10(255**2 / 300), abs=1e-9)


def test_one_pixel_in_a_million_still_counts() -> None:
    spot = plain(100)
    spot[3, 3, 0] += 1
    assert psnr_db(plain(100), spot) == pytest.approx(10 * np.log10(255**2 * 32 * 32 * 3), abs=1e-9)
    assert psnr_db(plain(100), spot) < SAME_DB


def test_ssim_of_plain_pictures_is_the_term_of_brightness() -> None:
    a, b, c1 = 100.0, 150.0, (0.01 * 255) ** 2
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert ssim(plain(100), plain(150)) == pytest.approx(expected, abs=1e-9)


def slow_ssim(a: Picture, b: Picture) -> float:
    """The formula of the paper window by window, as scikit-image does it with gaussian_weights and sigma 1.5."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    x, y = (image.astype(np.float64) @ [0.299, 0.587, 0.114] for image in (a, b))
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            both = (window * (p - mean_p) * (q - mean_q)).sum()
            brightness = (2 * mean_p * mean_q + 6.5025) / (mean_p**2 + mean_q**2 + 6.5025)
            found.append(brightness * (2 * both + 58.5225) / (var_p + var_q + 58.5225))
    return float(np.mean(found))


@pytest.mark.parametrize("other", [picture(1), 255 - picture(), np.roll(picture(), 3, 1), picture() // 2], ids=range(4))
def test_ssim_is_the_papers_formula(other: Picture) -> None:
    assert ssim(picture(), other) == pytest.approx(slow_ssim(picture(), other), abs=1e-6)


def test_ssim_is_symmetric_and_sees_structure() -> None:
    """A brighter picture is more alike than one whose parts were moved, though its error is larger."""
    brighter = np.clip(picture().astype(int) + 25, 0, 255).astype(np.uint8)
    shuffled = np.random.default_rng(0).permutation(picture().reshape(-1, 3)).reshape(picture().shape)
    assert ssim(picture(), brighter) == pytest.approx(ssim(brighter, picture()), abs=1e-12)
    assert ssim(picture(), brighter) > 0.9 > 0.3 > ssim(picture(), shuffled)


def test_luma_is_bt_601() -> None:
    assert luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))[0] == pytest.approx(
        [76.245, 149.685, 29.07]
    )
