"""
What each recipe costs in quality and gives in speed, with the built-in bundles: 32 portraits against PyTorch in float32
with the same seeds, and 48 photographs restored (those of STUDIO_TEST_SHARED, where there are any).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.timing import head, in_turn
from engines import backends, images
from engines.bundle import BUILT_IN, Shelf
from engines.bundle.signatures import Array
from engines.faces import retouch
from engines.images.metrics import Picture, psnr_db, ssim
from engines.roles.loaded import LoadedBundle
from engines.studio.proof import Case, make
from engines.toolchain import build
from engines.toolchain.quantize import calibration
from presets import load

LIKENESS = ("recipe, engine", "PSNR lowest", "mean", "SSIM lowest", "mean")
ENGINES = ("openvino", "ort")
RECIPES = ("edge-bf16", "edge-int8", "edge-int4")
PROMPTS = 32
PHOTOS = 48
REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models, scratch = Path(folder) / "models", Path(folder) / "scratch"
        models.mkdir()
        scratch.mkdir()
        for recipe in RECIPES:
            options = build.BuildOptions(prompts=_prompts())
            build.build_portrait(BUILT_IN / "portrait", None, models / recipe, recipe, options=options)
            build.build_restorer(BUILT_IN / "restorer", None, models / f"restorer-{recipe}", recipe)
        shelf = Shelf((models, BUILT_IN), Path(folder) / "compiled")
        _portraits(shelf, scratch)
        _restorer(shelf)


def _prompts() -> tuple[str, ...]:
    """All wordings of the presets, then enough others."""
    said = [preset.wording("attributes").prompt[language] for preset in load() for language in ("zh", "en")]
    return tuple((said + list(calibration.PROMPTS))[:PROMPTS])


def _portraits(shelf: Shelf, scratch: Path) -> None:
    cases = [Case("", prompt, 7000 + i) for i, prompt in enumerate(_prompts())]
    exact = LoadedBundle(shelf.open("edge-bf16"), backends.engine("torch"))
    wanted = [make(exact, case, scratch).picture for case in cases]
    loaded_bundles = {
        f"{recipe}, {name}": LoadedBundle(shelf.open(recipe), backends.engine(name))
        for recipe in RECIPES
        for name in ("openvino", "ort")
    }
    head(f"{len(cases)} portraits against PyTorch fp32", *LIKENESS)
    for name, loaded in loaded_bundles.items():
        _likeness(name, [make(loaded, case, scratch).picture for case in cases], wanted)
    _speed({"PyTorch": exact, **loaded_bundles})


def _likeness(name: str, made: list[Picture], wanted: list[Picture]) -> None:
    decibels = [psnr_db(a, b) for a, b in zip(made, wanted, strict=True)]
    alike = [ssim(a, b) for a, b in zip(made, wanted, strict=True)]
    figures = (min(decibels), statistics.mean(decibels)), (min(alike), statistics.mean(alike))
    print(f"| {name} | {figures[0][0]:.1f} dB | {figures[0][1]:.1f} dB | {figures[1][0]:.3f} | {figures[1][1]:.3f} |")


def _speed(loaded_bundles: Mapping[str, LoadedBundle]) -> None:
    """Eight steps and the full decoder; the words are read already, and no preview is drawn."""
    read = next(iter(loaded_bundles.values())).text_encoder.encode(calibration.PROMPTS[0])
    calls = {name: partial(_draw, loaded, read) for name, loaded in loaded_bundles.items()}
    seconds = in_turn(calls, 9)
    head("8 steps and the full decoder", "", "seconds", "times faster than PyTorch")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.3f} | {seconds['PyTorch'] / taken:.2f} |")


def _draw(loaded: LoadedBundle, words: Array) -> Picture:
    return loaded.decoder.decode(calibration.trajectory(loaded, words, 1))


def _restorer(shelf: Shelf) -> None:
    folder = Path(os.environ.get("STUDIO_TEST_SHARED", REPOSITORY.parent / "shared")) / "portraits" / "val"
    photos = sorted(folder.glob("*.jpg"))[:PHOTOS]
    if not photos:
        print(f"\nno photographs at {folder} (STUDIO_TEST_SHARED): the restorer was not measured")
        return
    faces = [calibration.damaged(retouch.to_square(images.read(path), 256), i) for i, path in enumerate(photos)]
    exact = LoadedBundle(shelf.open("restorer-edge-bf16"), backends.engine("torch"))
    wanted = [exact.restorer.restore(face) for face in faces]
    head(f"{len(faces)} photographs against PyTorch fp32", *LIKENESS)
    loaded_bundles = {
        f"{recipe}, {name}": LoadedBundle(shelf.open(f"restorer-{recipe}"), backends.engine(name))
        for recipe in RECIPES
        for name in ("openvino", "ort")
    }
    for name, loaded in loaded_bundles.items():
        _likeness(name, [loaded.restorer.restore(face) for face in faces], wanted)
    calls = {
        name: partial(loaded.restorer.restore, faces[0])
        for name, loaded in {"PyTorch": exact, **loaded_bundles}.items()
    }
    seconds = in_turn(calls, 15)
    head("one face", "", "seconds", "times faster than PyTorch")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.4f} | {seconds['PyTorch'] / taken:.1f} |")
