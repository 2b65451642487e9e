"""Pictures for screens: as large as they are shown, cut about what matters, in the format and the colours asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines import images
from engines.errors import ImageError, ImageTooLarge
from engines.images.decoder import Decoder
from engines.images.scaling import INKS, Fit, Palette, Scaling, ScreenFormat, crop, scaled, share


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 99)], -1).astype(np.uint8))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("size", "fit", "shown"),
    [
        ((4000, 3000), "contain", (800, 600)),
        ((3000, 4000), "contain", (450, 600)),
        ((3000, 4000), "cover", (1024, 600)),
        ((3000, 4000), "auto", (450, 600)),  # most of it would be lost
        ((1600, 1000), "auto", (1024, 600)),
        ((300, 200), "contain", (300, 200)),  # nothing is made larger
        ((300, 200), "cover", (300, 176)),
        ((9000, 300), "contain", (1024, 34)),
        ((2, 5000), "contain", (1, 600)),
    ],
)
def test_what_is_shown(tmp_path: Path, size: tuple[int, int], fit: Fit, shown: tuple[int, int]) -> None:
    gradient(*size).save(path := tmp_path / "a.png")
    assert opened(scaled(path, Scaling(1024, 600, fit))).size == shown


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_upright_and_as_sharp_as_from_its_whole_size(tmp_path: Path, orientation: int) -> None:
    """It is decoded at a quarter: which of its sides is which its orientation says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient(1600, 900).save(path := tmp_path / "a.jpg", quality=95, exif=exif)
    whole = Image.fromarray(images.read(path))
    data = opened(scaled(path, Scaling(400, 400, "contain", format="png")))
    wanted = whole.resize(data.size, Image.Resampling.LANCZOS)
    assert data.size == ((400, 225) if orientation < 5 else (225, 400))
    assert np.abs(np.asarray(data, int) - np.asarray(wanted, int)).max() <= 6


def test_a_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    gradient(3200, 1600).save(path := tmp_path / "a.jpg")
    assert images.read_shrunk(path, lambda width, height: 0.2).shape == (400, 800, 3)
    assert images.read_shrunk(path, lambda width, height: 1 / 8).shape == (200, 400, 3)


@pytest.mark.parametrize(("focus", "left"), [((0.5, 0.5), 250), ((0.0, 0.5), 0), ((1.0, 0.5), 500), ((0.4, 0.9), 150)])
def test_it_is_cut_about_what_matters(focus: tuple[float, float], left: float) -> None:
    assert crop(1000, 500, Scaling(100, 100, "cover", focus)) == (left, 0, 500, 500)


def test_a_cut_is_the_part_that_it_says(tmp_path: Path) -> None:
    gradient(1000, 500).save(path := tmp_path / "a.png")
    data = np.asarray(opened(scaled(path, Scaling(100, 100, "cover", (1.0, 0.5), "png"))), int)
    assert abs(data[50, 0, 0] - 127) <= 2 and data[50, -1, 0] >= 253


def test_no_more_pixels_than_the_screen_has() -> None:
    rng = np.random.default_rng(0)
    for width, height in rng.integers(1, 9000, (500, 2)):
        for fit in ("contain", "cover", "auto"):
            how = Scaling(1920, 1080, fit)  # type: ignore[arg-type]
            *_, shown_width, shown_height = crop(width, height, how)
            factor = share(width, height, how)
            assert shown_width * factor <= 1920.5 and shown_height * factor <= 1080.5 and factor <= 1


@pytest.mark.parametrize(("format", "name"), [("avif", "AVIF"), ("webp", "WEBP"), ("jpeg", "JPEG"), ("png", "PNG")])
def test_formats(tmp_path: Path, format: ScreenFormat, name: str) -> None:
    gradient(640, 480).save(path := tmp_path / "a.png")
    image = opened(scaled(path, Scaling(320, 240, format=format)))
    assert (image.format, image.size) == (name, (320, 240))
    wanted = np.asarray(gradient(640, 480).resize((320, 240)), int)
    assert np.abs(np.asarray(image.convert("RGB"), int) - wanted).mean() < 3


@pytest.mark.parametrize(
    ("palette", "colours"), [("mono", 2), ("grey4", 4), ("grey16", 16), ("spectra6", 6), ("acep7", 7)]
)
def test_a_panel_is_sent_its_own_colours(tmp_path: Path, palette: Palette, colours: int) -> None:
    """And on the whole as light as it was: what one dot is too dark, its neighbours are too light."""
    gradient(640, 480).save(path := tmp_path / "a.png")
    image = opened(scaled(path, Scaling(320, 240, format="png", palette=palette))).convert("RGB")
    present = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}
    assert 2 <= len(present) <= colours
    assert palette not in INKS or present <= set(INKS[palette])
    lightness = [float(np.asarray(each.convert("L"), float).mean()) for each in (image, gradient(640, 480))]
    assert abs(lightness[0] - lightness[1]) < 12


@pytest.mark.parametrize("format", ["jpeg", "webp", "png"])
def test_it_gets_coarser_and_smaller_until_it_is_short_enough(tmp_path: Path, format: ScreenFormat) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    Image.fromarray(noise).save(path := tmp_path / "a.png")
    data = scaled(path, Scaling(900, 700, format=format, most_bytes=30_000))
    assert 10_000 < len(data) <= 30_000
    with pytest.raises(ImageError, match="small"):
        scaled(path, Scaling(900, 700, format=format, most_bytes=20))


def test_the_process_for_strangers_files_does_it(tmp_path: Path, decoder: Decoder) -> None:
    gradient(1600, 900).save(path := tmp_path / "a.jpg")
    how = Scaling(300, 200, "cover", (0.2, 0.5))
    assert decoder.scaled(path, how) == scaled(path, how)
    assert decoder.read(path).shape == (900, 1600, 3)  # it still does the other


def test_what_cannot_be_read_is_said(tmp_path: Path, decoder: Decoder) -> None:
    (broken := tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError):
        decoder.scaled(broken, Scaling(100, 100))
    Image.new("L", (9000, 6000)).save(huge := tmp_path / "b.png")
    with pytest.raises(ImageTooLarge):
        decoder.scaled(huge, Scaling(100, 100))
