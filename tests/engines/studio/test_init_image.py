"""A photo as the start of a portrait: what of it is shown, what is refused, and what strength comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import images
from engines.bundle import Bundle, Shelf
from engines.errors import OptionError
from engines.faces.detection import Face
from engines.images.metrics import psnr_db
from engines.messages import Event, Failed, Final, Generate, Progress
from engines.roles import Decoder, Encoder
from engines.studio import Studio, init_image
from engines.studio.generate import GenerationPlan
from tests.support.fakes import PORTRAIT_ROLES, STRIDE, FakeEngine, waves, write_detector, write_portrait
from tests.support.http import encoded, people, private_photo

SIZES = ((64, 64), (96, 64), (64, 96))


def face(left: float, top: float, size: float) -> Face:
    return Face((left, top, left + size, top + size), np.zeros((5, 2), np.float32), 0.9)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_portrait(tmp_path / "shelf" / "portrait", (*PORTRAIT_ROLES, "encoder"), sizes=SIZES)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(bundle: Bundle, engine: FakeEngine, tmp_path: Path) -> Studio:
    write_detector(tmp_path / "shelf" / "detector")
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


def photo(tmp_path: Path, width: int = 128, height: int = 128) -> str:
    images.write_png(tmp_path / "photo.png", waves(width, height))
    return str(tmp_path / "photo.png")


def draw(studio: Studio, folder: Path, request: Generate) -> tuple[list[Event], Any]:
    events = list(studio.run(request, folder))
    final = events[-1]
    assert isinstance(final, Final), final
    return events, images.read(folder / final.images[0])


# ---- what of it is shown


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (64, 96), (200, 64)])
@pytest.mark.parametrize("shape", [(640, 480), (480, 640), (64, 64), (33, 47), (1, 1), (1, 500)])
def test_any_photo_covers_the_picture(shape: tuple[int, int], width: int, height: int) -> None:
    shown = init_image.fitted(waves(*shape), width, height, [])
    assert shown.shape == (height, width, 3) and shown.dtype == np.uint8


def test_a_photo_of_that_size_is_shown_as_it_is() -> None:
    assert (init_image.fitted(waves(96, 64), 96, 64, []) == waves(96, 64)).all()


@pytest.mark.parametrize(
    ("found", "left"),
    [([], 100), ([face(0, 10, 20)], 0), ([face(280, 10, 20)], 200), ([face(140, 30, 40)], 110),
     ([face(280, 10, 20), face(40, 0, 90)], 35)],
)  # fmt: skip
def test_the_largest_face_is_in_the_middle_as_far_as_there_is_photo(found: list[Face], left: int) -> None:
    """A square out of 300 x 100."""
    wide = waves(300, 100)
    assert (init_image.fitted(wide, 100, 100, found) == wide[:, left : left + 100]).all()
    tall = wide.transpose(1, 0, 2)
    turned = [face(one.box[1], one.box[0], one.size_px) for one in found]
    assert (init_image.fitted(tall, 100, 100, turned) == tall[left : left + 100]).all()


def test_a_smaller_photo_is_averaged() -> None:
    """Fine checks become grey, not a pattern of their own."""
    checks = np.indices((512, 512)).sum(0) % 2 * np.uint8(255)
    shown = init_image.fitted(np.repeat(checks[..., None], 3, 2).astype(np.uint8), 64, 64, [])
    assert np.abs(shown.astype(int) - 127).max() <= 1


def test_a_photo_comes_upright_in_srgb_and_without_its_secrets(bundle: Bundle, tmp_path: Path) -> None:
    for orientation, turn in ((1, 0), (6, 1), (8, 3)):
        (tmp_path / "p").write_bytes(private_photo("JPEG", orientation))
        shown = init_image.read(Generate("p", start=str(tmp_path / "p")), bundle)
        assert shown is not None and shown.shape == ((64, 96, 3) if turn == 0 else (96, 64, 3))
    assert init_image.read(Generate("p"), bundle) is None


# ---- plans


@pytest.mark.parametrize(
    ("shape", "size"), [((500, 500), (64, 64)), ((640, 480), (96, 64)), ((480, 640), (64, 96)), ((110, 100), (64, 64))]
)
def test_the_size_is_the_nearest_to_the_photos_shape(
    bundle: Bundle, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    plan = GenerationPlan.of(Generate("p", start="x"), bundle, waves(*shape))
    assert (plan.width, plan.height) == size
    plan = GenerationPlan.of(Generate("p", start="x", width=128, height=64), bundle, waves(*shape))
    assert (plan.width, plan.height) == (128, 64), "who asks for a size gets it"


def test_a_photo_leaves_steps_out(bundle: Bundle) -> None:
    for strength, steps in ((0.0, 1), (0.25, 2), (0.5, 4), (1.0, 8)):
        plan = GenerationPlan.of(Generate("p", steps=8, start="x", strength=strength), bundle, waves(64, 64))
        assert (plan.steps, plan.steps_to_run) == (8, steps)
    assert GenerationPlan.of(Generate("p", steps=8, strength=0.25), bundle).steps_to_run == 8, (
        "without a photo strength says nothing"
    )


def test_a_bundle_without_an_encoder_refuses_with_a_sentence(studio: Studio, tmp_path: Path) -> None:
    """Bundles of earlier days draw from words as ever."""
    write_portrait(tmp_path / "shelf" / "old")
    failed = list(studio.run(Generate("p", bundle="old", start=photo(tmp_path)), tmp_path))[-1]
    assert isinstance(failed, Failed) and failed.code == "bad_option"
    assert failed.facts == {"field": "start", "value": "photo", "allowed": "none with this model"}
    draw(studio, tmp_path, Generate("p", bundle="old"))


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"hello", "bad_image"), (None, "bad_image"), (encoded(people(), "PNG")[:500], "bad_image"),
     (encoded(Image.new("1", (8000, 7000)), "PNG"), "image_too_large")],
)  # fmt: skip
def test_what_is_no_photo_is_refused(studio: Studio, tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    failed = list(studio.run(Generate("p", start=str(tmp_path / "x")), tmp_path))[-1]
    assert isinstance(failed, Failed) and failed.code == code and str(tmp_path) not in failed.detail


def test_strength_is_within_its_range() -> None:
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(OptionError):
            Generate("p", strength=strength)


# ---- what comes of it


def test_full_strength_is_the_words_alone_bit_for_bit(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    plain = Generate("a man", "dark", 64, 64, 5, 1.0, 17)
    _, wanted = draw(studio, tmp_path, plain)
    _, found = draw(studio, tmp_path, replace(plain, start=photo(tmp_path), strength=1.0))
    assert (found == wanted).all() and "encoder" not in engine.calls
    _, other = draw(studio, tmp_path, replace(plain, start=photo(tmp_path), strength=0.6))
    assert (other != wanted).any() and engine.calls.count("encoder") == 1


def test_the_less_strength_the_nearer_the_photo(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    """Of a network that changes nothing, so that only the noise is left; it is told so little at the end."""
    engine.spoil = {"denoiser": np.zeros_like}
    start, distances = photo(tmp_path, 64, 64), []
    for strength in (0.02, 0.3, 0.6, 0.9):
        _, picture = draw(studio, tmp_path, Generate("p", seed=3, steps=50, start=start, strength=strength))
        distances.append(-psnr_db(picture, waves(64, 64)))
    assert distances == sorted(distances) and len(set(distances)) == 4


def test_a_perfect_network_gives_the_photo_back(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    """It tells the way from the noise to the photo, whatever the level is: every strength ends at the photo's cells."""
    start = photo(tmp_path, 64, 64)
    loaded, _ = studio.loaded_bundles.get("portrait", "auto")
    clean = loaded.encoder.encode(waves(64, 64))
    noise = np.random.default_rng(3).standard_normal(clean.shape, dtype=np.float32)
    engine.spoil = {"denoiser": lambda told: clean - noise}
    for strength in (0.1, 0.5, 0.9):
        _, picture = draw(studio, tmp_path, Generate("p", seed=3, steps=8, start=start, strength=strength))
        assert psnr_db(picture, loaded.decoder.decode(clean)) > 50


def test_every_picture_of_a_job_starts_from_the_photo(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    order = Generate("p", seed=40, count=3, steps=8, start=photo(tmp_path), strength=0.5)
    events, first = draw(studio, tmp_path, order)
    assert engine.calls.count("encoder") == 1 and engine.calls.count("denoiser") == 3 * 4
    progress = [event for event in events if isinstance(event, Progress) and event.stage == "denoise"]
    assert [(event.step, event.total) for event in progress] == [(i, 4) for i in (1, 2, 3, 4)] * 3
    final = events[-1]
    assert isinstance(final, Final) and len({(tmp_path / name).read_bytes() for name in final.images}) == 3
    assert (draw(studio, tmp_path, replace(order, count=1))[1] == first).all()


def test_the_encoder_is_let_go_of(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    """It is used for a moment, and by few."""
    studio.loaded_bundles.get("portrait", "auto")[0].load_all()
    assert "encoder" not in engine.opened
    draw(studio, tmp_path, Generate("p", start=photo(tmp_path)))
    assert engine.opened.count("encoder") == engine.closed.count("encoder") == 1


def test_the_picture_says_how_much_was_drawn_anew(studio: Studio, tmp_path: Path) -> None:
    for order, said in (
        (Generate("p", steps=8, start=photo(tmp_path), strength=0.35), True),
        (Generate("p", steps=8, strength=0.35), False),
    ):
        final = draw(studio, tmp_path, order)[0][-1]
        assert isinstance(final, Final)
        with Image.open(tmp_path / final.images[0]) as image:
            text = image.info["parameters"]
        assert ("Denoising strength: 0.35," in text) is said and "Steps: 8," in text
        assert str(tmp_path) not in text


def test_the_encoder_undoes_the_decoders_scaling(bundle: Bundle) -> None:
    loaded = studio_kit(bundle)
    latents = np.linspace(-0.3, 0.3, 4 * 64, dtype=np.float32).reshape(1, 4, 8, 8)
    again = loaded[0].encode(loaded[1].decode(latents))
    assert np.abs(again[:, :3] - latents[:, :3]).max() <= 0.5 / 127.5 * 0.5 + 1e-6


def studio_kit(bundle: Bundle) -> tuple[Encoder, Decoder]:
    engine, sampling = FakeEngine(), bundle.need(bundle.sampling, "sampling")
    assert (sampling.latent_scale, sampling.latent_shift, sampling.latent_stride) == (0.5, 0.1, STRIDE)
    sessions = [engine.load(bundle, bundle.part(role, engine.formats)) for role in ("encoder", "decoder")]  # type: ignore[arg-type]
    return Encoder(sessions[0], sampling), Decoder(sessions[1], sampling)
