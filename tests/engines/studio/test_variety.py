"""Seeds that differ further: a varied prompt in the first steps, the same on every engine and at every attempt."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import presets
from engines import backends, images, sampler
from engines.bundle import Diffusion, Sampling, Shelf
from engines.images import kept_latents
from engines.images.metrics import psnr_db
from engines.messages import Final, Generate
from engines.studio import Studio
from tests.support.fakes import FakeEngine, target, write_portrait

STEPS = 8
SD = {"family": "sd", "sampling": asdict(Sampling(STEPS, 3.0, 4, 8, 1.0, 0.0, 0.0, Diffusion("ddim")))}
ASKED = Generate("a, (b:1.5)", "dark", 96, 64, STEPS, 2.0, 17, preview="only")


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_portrait(tmp_path / "shelf" / "sd", **SD)
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", FakeEngine().select)


def draw(studio: Studio, folder: Path, request: Generate) -> Final:
    final = list(studio.run(request, folder))[-1]
    assert isinstance(final, Final), final
    return final


def latents(studio: Studio, folder: Path, request: Generate) -> list[Any]:
    return [kept_latents.read(folder, name).latents for name in draw(studio, folder, request).images]


def test_the_first_quarter_is_drawn_by_a_varied_prompt(studio: Studio, tmp_path: Path) -> None:
    """The loop written out once more. The negative prompt is left as it is."""
    loaded, _ = studio.loaded_bundles.get("portrait", "auto")
    (drawn,) = latents(studio, tmp_path, replace(ASKED, variety=70))
    x = np.random.default_rng(17).standard_normal((1, 4, 8, 12), dtype=np.float32)
    levels = sampler.sigmas(STEPS, 3.0)
    for i in range(STEPS):
        v = {}
        for text in ("a, b", "a", "dark"):
            rows = loaded.embedding(text, studio.embeddings)
            if i < 2 and text != "dark":
                noise = np.random.default_rng((17, 0, 1)).standard_normal(rows.shape, dtype=np.float32)
                rows = rows + 1.05 * np.sqrt((rows**2).mean(-1, keepdims=True)) * noise
            v[text] = 0.9 * (x - target(x.shape, rows)) / levels[i]
        words = v["a, b"] + 0.5 * (v["a, b"] - v["a"])
        x = x + (levels[i + 1] - levels[i]) * (words + 2.0 * (words - v["dark"]))
    assert np.abs(drawn - x).max() <= 1e-4


@pytest.mark.parametrize("bundle", ["portrait", "sd"])
def test_each_seed_has_a_variety_of_its_own_and_keeps_it(studio: Studio, tmp_path: Path, bundle: str) -> None:
    asked = replace(ASKED, bundle=bundle, variety=50, seed=40)
    several = latents(studio, tmp_path, replace(asked, count=3))
    for k, picture in enumerate(several):
        (alone,) = latents(studio, tmp_path, replace(asked, seed=40 + k))
        (plain,) = latents(studio, tmp_path, replace(asked, seed=40 + k, variety=0))
        assert (alone == picture).all() and (alone != plain).any()
        (more,) = latents(studio, tmp_path, replace(asked, seed=40 + k, variety=51))
        assert (more != alone).any()


def test_the_recipe_says_it_where_there_is_some(studio: Studio, tmp_path: Path) -> None:
    for variety, written in ((0, False), (40, True)):
        final = draw(studio, tmp_path, replace(ASKED, variety=variety))
        with Image.open(tmp_path / final.images[0]) as image:
            assert (", Seed variety: 40," in image.info["parameters"]) == written


def test_every_engine_varies_alike(builtin: Path, tmp_path: Path) -> None:
    drawn = {}
    for backend in backends.names():
        if backends.engine(backend).probe().ok:
            studio = Studio(Shelf((builtin,)), tmp_path / f"state {backend}")
            asked = Generate("一位女士，戴眼镜", "", 256, 256, 4, seed=3, backend=backend, variety=80)
            drawn[backend] = images.read(tmp_path / draw(studio, tmp_path, asked).images[0])
            studio.loaded_bundles.close()
    assert len(drawn) >= 2, "nothing to compare"
    assert all(psnr_db(picture, drawn["ort"]) > 40 for picture in drawn.values())


def apart(pictures: list[Any]) -> float:
    """How far pictures are from each other on the whole: their mean distance at 32 px, in levels."""
    small = [np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX), float) for picture in pictures]
    return float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(small, 2)]))


@pytest.mark.parametrize("preset", ["business", "hanfu"])
def test_seeds_of_the_true_network_are_further_apart(builtin: Path, tmp_path: Path, preset: str) -> None:
    studio = Studio(Shelf((builtin,)), tmp_path / "state")
    prompt = next(p for p in presets.load() if p.name == preset).attributes.prompt["zh"]
    asked = Generate(prompt, "", 256, 256, 8, seed=1, count=6, backend="ort", preview="off")
    distances = []
    for variety in (0, 50, 100):
        final = draw(studio, tmp_path, replace(asked, variety=variety))
        distances.append(apart([images.read(tmp_path / name) for name in final.images]))
    assert distances == sorted(distances) and distances[2] > 1.08 * distances[0], distances
