"""Writing pictures: names never collide, a disk that refuses is a StorageError, and the text comes back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines import images
from engines.errors import NotFoundError, StorageError, StudioError
from engines.images import infotext, kept_latents
from engines.images.kept_latents import KeptLatents
from engines.messages import CREDIT, Enhance, Generate
from tests.conftest import REPOSITORY

NAME = re.compile(r"outputs_(\d{14})(_\d{3})?\.png")


def picture(seed: int = 0, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def parameters_of(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.info["parameters"])


def test_names_within_one_second_are_numbered(tmp_path: Path) -> None:
    """Six pictures take less than a second; where the clock turns meanwhile, the count begins again."""
    names = [images.write_output(tmp_path, picture(i), "") for i in range(6)]
    stems = [name[:22] for name in names]
    assert len(set(stems)) < len(stems)
    numbers = [stems[:i].count(stem) for i, stem in enumerate(stems)]
    assert names == [f"{stem}_{i:03}.png" if i else f"{stem}.png" for stem, i in zip(stems, numbers, strict=True)]
    assert all((pixels_of(tmp_path / name) == picture(i)).all() for i, name in enumerate(names))


def test_threads_never_take_each_others_names(tmp_path: Path) -> None:
    """Every picture is there under the name that was returned for it, whole."""
    written: dict[str, int] = {}

    def work(first: int) -> None:
        for i in range(first, first + 50):
            name = images.write_output(tmp_path, picture(i), str(i))
            assert name not in written
            written[name] = i

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written.values()) == list(range(100))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)
    for name, i in written.items():
        assert NAME.fullmatch(name)
        assert (pixels_of(tmp_path / name) == picture(i)).all() and parameters_of(tmp_path / name) == str(i)


def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    now = time.time()
    taken = [tmp_path / time.strftime("outputs_%Y%m%d%H%M%S.png", time.localtime(now + i)) for i in range(60)]
    for path in taken:
        path.write_text("somebody else's")
    assert images.write_output(tmp_path, picture(), "").endswith("_001.png")
    assert {path.read_text() for path in taken} == {"somebody else's"}


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    name = images.write_output(tmp_path / "a" / "b", picture(), "")
    assert (tmp_path / "a" / "b" / name).is_file()


NEGATIVE = KeptLatents(
    np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32), "portrait", 7, "提示词\nSeed: 7"
)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        images.write_output(tmp_path / "file", picture(), "")
    assert caught.value.facts["why"]
    with pytest.raises(StorageError):
        images.write_preview(tmp_path / "file" / "below", picture())
    with pytest.raises(StorageError):
        kept_latents.write(tmp_path / "file" / "x.png", NEGATIVE)


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from engines import images
    from engines.images import kept_latents
    from engines.errors import StorageError
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    kept = kept_latents.KeptLatents(np.zeros((1, 16, 64, 64), np.float32), "b", 1, "t")
    folder = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for write in (
        lambda: images.write_output(folder, noise, "t"),
        lambda: images.write_preview(folder, noise),
        lambda: kept_latents.write(folder / "x.png", kept),
    ):
        try:
            print("wrote", write())
        except StorageError as exc:
            print(exc.code, exc.facts["why"])
"""


def test_a_full_disk_is_a_storage_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails half-way, as there."""
    code = textwrap.dedent(FULL_DISK)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["storage_failed"] * 3
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "一位女士的肖像, 8 岁\nNegative prompt: 模糊\nSteps: 8",
        "café ½",
        "🙂",
        "",
        "tab\tand \u2028",
        "x" * 9000,
        "字" * 4000,
    ],
)
def test_the_text_of_a_picture_comes_back(tmp_path: Path, text: str) -> None:
    assert parameters_of(tmp_path / images.write_output(tmp_path, picture(), text)) == text


def test_parameters_are_in_a1111s_form() -> None:
    request = Generate("一位女士, 油画\n第二行", "模糊, 文字", bundle="portrait")
    text = infotext.describe(request, 42, (96, 64), 8, 1.5, "ort", "fp32")
    *prompt, negative, last = text.split("\n")
    assert "\n".join(prompt) == request.prompt
    assert negative == "Negative prompt: 模糊, 文字"
    values = dict(item.split(": ") for item in last.split(", "))
    assert values["Steps"] == "8" and values["CFG scale"] == "1.5" and values["Seed"] == "42"
    assert values["Size"] == "96x64" and values["Engine"] == "ort" and values["Model"] == "portrait"
    assert values["Credit"] == CREDIT


def test_without_a_negative_prompt_there_is_no_line_for_it() -> None:
    assert "Negative" not in infotext.describe(Generate("p"), 1, (64, 64), 8, 0, "ort", "fp32")


def test_a_restored_photo_says_how_and_names_no_path() -> None:
    text = infotext.describe_restoration(Enhance("/srv/uploads/secret.jpg", 70, "detail"), "ort", "int8")
    assert "secret" not in text
    for part in ("Strength: 70", "Mode: detail", "Engine: ort", "Model: restorer", f"Credit: {CREDIT}"):
        assert part in text


def test_a_kept_negative_comes_back(tmp_path: Path) -> None:
    name = images.write_output(tmp_path, picture(), "")
    kept_latents.write(tmp_path / name, NEGATIVE)
    back = kept_latents.read(tmp_path, name)
    assert back.latents.dtype == np.float32 and (back.latents == NEGATIVE.latents).all()
    assert (back.bundle, back.seed, back.text) == (NEGATIVE.bundle, NEGATIVE.seed, NEGATIVE.text)


@pytest.mark.parametrize(
    "name", ["../x.png", "x.png/", "/x.png", "..", ".", "", "a\0b.png", "y.png", "a" * 300 + ".png", "\ud800"]
)
def test_the_name_of_a_negative_is_never_a_path(tmp_path: Path, name: str) -> None:
    kept_latents.write(tmp_path / "x.png", NEGATIVE)
    kept_latents.write(tmp_path / "out" / "x.png", NEGATIVE)
    kept_latents.write(tmp_path / "out.png", NEGATIVE)
    with pytest.raises(NotFoundError):
        kept_latents.read(tmp_path / "out", name)
    with pytest.raises(NotFoundError):
        kept_latents.read(tmp_path / "out", str(tmp_path / "out" / "x.png"))


@pytest.mark.parametrize("damage", ["empty", "junk", "short", "zip"])
def test_a_damaged_negative_is_one_of_our_errors(tmp_path: Path, damage: str) -> None:
    kept_latents.write(tmp_path / "x.png", NEGATIVE)
    path = tmp_path / f"x{kept_latents.KEPT_SUFFIX}"
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "junk": b"junk", "short": whole[: len(whole) // 2], "zip": whole[:4] + bytes(200)}[damage]
    )
    with pytest.raises(StudioError):
        kept_latents.read(tmp_path, "x.png")


def test_a_preview_shows_the_picture(tmp_path: Path) -> None:
    slope = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    name = images.write_preview(tmp_path, slope)
    assert name.startswith(images.PREVIEW_PREFIX) and os.listdir(tmp_path) == [name]
    assert np.abs(pixels_of(tmp_path / name).astype(int) - slope).mean() < 4


def test_only_old_previews_are_removed(tmp_path: Path) -> None:
    old, new = (images.write_preview(tmp_path, picture()) for _ in range(2))
    output = images.write_output(tmp_path, picture(), "")
    for name in (old, output):
        os.utime(tmp_path / name, (1, 1))
    images.remove_old_previews(tmp_path, older_than_s=60)
    assert sorted(os.listdir(tmp_path)) == sorted([new, output])
    images.remove_old_previews(tmp_path / "missing", older_than_s=60)


@pytest.mark.parametrize(("size", "expected"), [((100, 50), (40, 20)), ((30, 40), (30, 40)), ((2000, 1), (40, 1))])
def test_fit_keeps_the_shape_and_never_enlarges(size: tuple[int, int], expected: tuple[int, int]) -> None:
    width, height = size
    fitted = images.fit(np.zeros((height, width, 3), dtype=np.uint8), 40)
    assert fitted.shape == (expected[1], expected[0], 3)
