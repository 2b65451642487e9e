"""The built-in bundles as they are shipped: whole, licensed, the same on every engine, and drawing pictures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import presets
from engines import backends, images
from engines.bundle import Shelf
from engines.messages import Enhance, Final, Generate, Request
from engines.studio import Studio, init_image
from presets.blanks import choose
from tests.conftest import REPOSITORY

PROMPTS = (
    "portrait of a young woman, long red hair, blue t-shirt, grey background, realistic style",
    "an old man with a white beard and glasses, black and white film",
    "年轻女士，黑色长发，红色汉服，国风",
    "金色时刻，棕色卷发的女孩，水彩",
)
BESIDE = ("bundle.json", "card.md", "report.json", "tokenizer.json")
LICENCES = {"portrait": "Apache-2.0", "restorer": "Apache-2.0", "detector": "MIT"}
LARGEST_MB = 60  # they are part of the repository and of every installation


@pytest.fixture(scope="module")
def studio(builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Shelf((builtin,)), tmp_path_factory.mktemp("state"))


def engines_present() -> list[str]:
    return [engine.name for engine in backends.engines() if engine.probe().ok]


def result(studio: Studio, request: Request, folder: Path) -> tuple[Final, Any]:
    *_, last = studio.run(request, folder)
    assert isinstance(last, Final), last
    with Image.open(folder / last.images[0]) as image:
        return last, np.array(image).astype(np.float64)


def psnr_db(a: Any, b: Any) -> float:
    error = float(np.square(a - b).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize("name", LICENCES)
def test_a_bundle_is_whole(builtin: Path, name: str) -> None:
    bundle = Shelf((builtin,)).open(name)
    bundle.verify()
    assert bundle.name == name and {"zh", "en"} <= set(bundle.title) and bundle.lineage
    for formats in ({"onnx"}, {"diffusers", "safetensors"})[: 1 if name == "detector" else 2]:
        for role in bundle.roles:
            part = bundle.part(role, frozenset(formats))  # type: ignore[arg-type]
            assert part.licence == LICENCES[name] and re.fullmatch("[0-9a-f]{64}", part.sha256)
    named = {bundle.root / part.file for part in bundle.parts}
    for path in bundle.root.iterdir():
        assert path in named or path.name in (*BESIDE, *bundle.extras), f"{path.name} belongs to no part"
    card = (bundle.root / "card.md").read_text(encoding="utf-8")
    assert LICENCES[name] in card
    assert card == (REPOSITORY / "training" / name / "card.md").read_text(encoding="utf-8"), "two cards of one model"
    for config in bundle.root.rglob("config.json"):
        assert "_name_or_path" not in config.read_text(encoding="utf-8"), "a folder of the machine it was built on"


def test_all_bundles_are_small_enough_to_ship(builtin: Path) -> None:
    assert sum(path.stat().st_size for path in builtin.rglob("*") if path.is_file()) < LARGEST_MB * 1e6


def test_the_portrait_bundle_has_what_its_manifest_promises(builtin: Path) -> None:
    bundle = Shelf((builtin,)).open("portrait")
    assert bundle.roles == {"text_encoder", "denoiser", "decoder", "preview_decoder", "encoder"}
    assert bundle.family == "zimage"
    sampling = bundle.need(bundle.sampling, "sampling")
    assert sampling.latent_channels == 16 and sampling.steps == 8
    assert bundle.sizes and bundle.dialect == "attributes"


@pytest.mark.parametrize("name", backends.names())
def test_every_engine_draws_a_portrait_at_its_native_size(
    studio: Studio, builtin: Path, tmp_path: Path, name: str
) -> None:
    if name not in engines_present():
        pytest.skip(f"{name}: {backends.engine(name).probe().reason}")
    bundle = Shelf((builtin,)).open("portrait")
    final, picture = result(studio, Generate(PROMPTS[0], seed=7, steps=4, backend=name), tmp_path)
    assert final.engine == name and final.seed == 7
    assert picture.shape == (bundle.sizes[0][1], bundle.sizes[0][0], 3)
    assert picture.std() > 20
    # A picture, not noise: neighbours are alike.
    assert np.abs(np.diff(picture, axis=1)).mean() < 0.35 * picture.std()


def test_words_matter(studio: Studio, tmp_path: Path) -> None:
    """Same seed, another shirt: the middle of the lower third takes the colour that was asked for."""
    shirts = {}
    for colour in ("red", "blue"):
        prompt = f"portrait of a young woman, long black hair, {colour} t-shirt, grey background, realistic style"
        _, picture = result(studio, Generate(prompt, seed=3, steps=4, preview="off"), tmp_path)
        height, width = picture.shape[:2]
        shirts[colour] = picture[int(height * 0.85) :, width // 3 : width * 2 // 3].mean((0, 1))
    assert shirts["red"][0] - shirts["red"][2] > shirts["blue"][0] - shirts["blue"][2] + 20


def test_the_preview_decoder_draws_nearly_the_same_picture(studio: Studio, tmp_path: Path) -> None:
    _, tiny = result(studio, Generate(PROMPTS[0], seed=7, steps=4, preview="only"), tmp_path)
    _, full = result(studio, Generate(PROMPTS[0], seed=7, steps=4, preview="off"), tmp_path)
    assert psnr_db(tiny, full) > 18


DRAWN = (("portrait/proof/1.png", 38), ("portrait/proof/2.png", 38), ("restorer/proof/2-face.png", 29))


@pytest.mark.parametrize("name", engines_present())
@pytest.mark.parametrize(("picture", "least_db"), DRAWN)
def test_the_encoder_is_the_decoders_way_back(
    studio: Studio, builtin: Path, name: str, picture: str, least_db: float
) -> None:
    """What the decoder has drawn comes back; the last was blurred and made noisy meanwhile."""
    loaded, _ = studio.loaded_bundles.get("portrait", name)
    before = images.read(builtin / picture)
    latents = loaded.encoder.encode(before)
    assert latents.shape == (1, 16, before.shape[0] // 16, before.shape[1] // 16) and latents.dtype == np.float32
    assert psnr_db(loaded.decoder.decode(latents).astype(float), before) >= least_db


@pytest.mark.parametrize("i", [0, 7])
def test_a_photograph_goes_through_the_autoencoder(studio: Studio, shared: Path, i: int) -> None:
    """It has never seen one: 27.0 dB on average of the 48, 24.2 at least."""
    loaded, _ = studio.loaded_bundles.get("portrait", "ort")
    photo = images.read(photo_of(shared, i))
    before = init_image.fitted(photo, 256, 256, [])
    assert psnr_db(loaded.decoder.decode(loaded.encoder.encode(before)).astype(float), before) >= 24


@pytest.mark.parametrize("strength", [0.3, 0.6, 0.9])
def test_one_photo_and_one_seed_are_one_picture_on_every_engine(
    studio: Studio, builtin: Path, tmp_path: Path, strength: float
) -> None:
    photo = str(builtin / "restorer" / "proof" / "3-face.png")
    order = Generate(PROMPTS[0], seed=11, preview="off", start=photo, strength=strength)
    pictures = {name: result(studio, replace(order, backend=name), tmp_path)[1] for name in engines_present()}
    reference = pictures.pop("ort")
    _, again = result(studio, replace(order, backend="ort"), tmp_path)
    assert (again == reference).all()
    for name, picture in pictures.items():
        assert psnr_db(picture, reference) >= 40, name


def test_full_strength_is_the_words_alone(studio: Studio, builtin: Path, tmp_path: Path) -> None:
    photo = str(builtin / "restorer" / "proof" / "3-face.png")
    order = Generate(PROMPTS[0], seed=11, steps=4, preview="off", start=photo, strength=1.0, backend="ort")
    _, from_photo = result(studio, order, tmp_path)
    _, plain = result(studio, replace(order, start=""), tmp_path)
    assert (from_photo == plain).all()


def test_each_half_of_the_autoencoder_is_stored_once(builtin: Path) -> None:
    load_file = pytest.importorskip("safetensors.numpy", reason="reads the files with safetensors").load_file
    for half in ("encoder", "decoder"):
        names = load_file(builtin / "portrait" / half / "diffusion_pytorch_model.safetensors")
        assert names and all(name.startswith(f"{half}.") for name in names)


LORA_KEY = r"diffusion_model\.(layers\.\d+\.(?:attention\.to_(?:[qkv]|out\.0)|feed_forward\.w[123]))\.lora_[AB]\.weight"


def test_the_lora_has_the_layout_of_awportrait_z_and_fits_the_denoiser(builtin: Path) -> None:
    load_file = pytest.importorskip("safetensors.numpy", reason="reads the files with safetensors").load_file
    lora = load_file(builtin / "loras" / "studio_light.safetensors")
    weights = load_file(builtin / "portrait" / "denoiser" / "diffusion_pytorch_model.safetensors")
    keys = {name: re.fullmatch(LORA_KEY, name) for name in lora}
    assert all(keys.values()), [name for name, key in keys.items() if key is None]
    modules = {key[1] for key in keys.values() if key}
    assert len(lora) == 2 * len(modules) >= 2 * 7
    for module in modules:
        a, b = (lora[f"diffusion_model.{module}.lora_{side}.weight"] for side in "AB")
        assert b.shape[1] == a.shape[0] and (b.shape[0], a.shape[1]) == weights[f"{module}.weight"].shape
        assert np.abs(b.astype(np.float32) @ a.astype(np.float32)).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
def test_one_seed_is_one_picture_on_every_engine(studio: Studio, tmp_path: Path, prompt: str) -> None:
    """As near as its arithmetic allows; captions are encoded afresh by each, as each has its own cache."""
    if len(engines_present()) < 2:
        pytest.skip(f"only {', '.join(engines_present())} is here")
    pictures = {}
    for name in engines_present():
        alone = Studio(studio.loaded_bundles.shelf, tmp_path / name)
        alone.loaded_bundles.loaded = studio.loaded_bundles.loaded  # weights are loaded once
        _, pictures[name] = result(alone, Generate(prompt, seed=11, backend=name, preview="off"), tmp_path)
    reference = pictures.pop("ort")
    for name, picture in pictures.items():
        assert psnr_db(picture, reference) >= 40, name


def photo_of(shared: Path, i: int) -> Path:
    photos = sorted((shared / "portraits" / "val").glob("*.jpg"))
    if not photos:
        pytest.skip("no photographs among the shared data")
    return photos[i]


def blurred_photo(shared: Path, i: int, folder: Path) -> Path:
    """A real portrait that once was a quarter of its size: a sharp one is left alone."""
    with Image.open(photo_of(shared, i)) as image:
        small = image.convert("RGB").resize((image.width // 4, image.height // 4), Image.Resampling.BOX)
        small.resize(image.size, Image.Resampling.BICUBIC).save(folder / "photo.jpg", quality=60)
    return folder / "photo.jpg"


@pytest.mark.parametrize("i", [0, 7])
def test_a_good_photo_is_left_nearly_as_it_was(studio: Studio, shared: Path, tmp_path: Path, i: int) -> None:
    photo = photo_of(shared, i)
    with Image.open(photo) as image:
        before = np.array(image.convert("RGB")).astype(np.float64)
    _, after = result(studio, Enhance(str(photo)), tmp_path)
    assert psnr_db(after, before) >= 35


@pytest.mark.parametrize("i", [0, 7])
def test_a_photo_is_restored_alike_on_every_engine(studio: Studio, shared: Path, tmp_path: Path, i: int) -> None:
    photo = blurred_photo(shared, i, tmp_path)
    with Image.open(photo) as image:
        before = np.array(image.convert("RGB")).astype(np.float64)
    pictures = {}
    for name in engines_present():
        final, pictures[name] = result(studio, Enhance(str(photo), backend=name), tmp_path)
        assert final.engine == name and pictures[name].shape == before.shape
    reference = pictures.pop("ort")
    assert 20 < psnr_db(reference, before) < 60  # something was done, and it is still the same photo
    for name, picture in pictures.items():
        assert psnr_db(picture, reference) >= 40, name


@pytest.mark.parametrize("language", ["zh", "en"])
def test_what_is_chosen_in_a_blank_of_a_preset_is_drawn(studio: Studio, tmp_path: Path, language: str) -> None:
    """By the mean colours of a corner of the wall and of the crown of the head; both together, too."""
    preset = next(preset for preset in presets.load() if preset.name == "realistic")
    own = preset.attributes.prompt[language]

    def drawn(**choices: str) -> tuple[Any, Any]:
        prompt = own
        for blank, option in choices.items():
            prompt = choose(prompt, preset, blank, option)
        request = Generate(prompt, width=512, height=512, seed=preset.thumbnail_seed, preview="off")
        _, picture = result(studio, request, tmp_path)
        wall, crown = picture[:64, :64], picture[96:140, 224:288]
        return wall.mean(axis=(0, 1)), crown.mean(axis=(0, 1))  # RGB

    grey_wall, brown_hair = drawn()
    blue_wall, still_brown = drawn(background="blue")
    still_grey, fair_hair = drawn(hair_colour="blonde")
    both_wall, both_hair = drawn(background="blue", hair_colour="blonde")
    assert np.ptp(grey_wall) < 15 and np.ptp(still_grey) < 15
    assert blue_wall[2] - blue_wall[0] > 80 and both_wall[2] - both_wall[0] > 80
    assert fair_hair[1] - brown_hair[1] > 60 and both_hair[1] - still_brown[1] > 60, "fairer"
    assert fair_hair[0] - fair_hair[2] > 40 and both_hair[0] - both_hair[2] > 40, "and yellow, not white"
