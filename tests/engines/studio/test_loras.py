"""Pictures with LoRAs: named and never a path, drawn by PyTorch, and drawn without one that cannot be loaded."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import backends
from engines.bundle import Shelf
from engines.bundle.loras import Loras
from engines.errors import OptionError
from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Event, Failed, Final, Generate, Lora, Progress, parse
from engines.studio import Studio
from engines.worker.inventory import survey
from engines.worker.loop import Worker
from tests.conftest import Within
from tests.support.fakes import FakeEngine, write_portrait

REPEATED: dict[str, Any] = {"steps": 2, "seed": 5, "preview": "off"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "loras").mkdir()
    return tmp_path / "loras"


def test_names_are_those_of_files(folder: Path, tmp_path: Path) -> None:
    for name in ("b.safetensors", "A-Z v1.0.safetensors", ".hidden.safetensors", "note.txt", "deep.safetensors/x"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert Loras((folder, tmp_path / "not there")).names() == ("A-Z v1.0", "b")
    assert Loras(()).names() == ()


def test_an_earlier_folder_wins(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shipped").mkdir()
    for where, name in ((folder, "one"), (tmp_path / "shipped", "one"), (tmp_path / "shipped", "two")):
        (where / f"{name}.safetensors").write_bytes(b"")
    picked = Loras((folder, tmp_path / "shipped")).pick([Lora("two", 0.5), Lora("one", -1)])
    assert [(file.path.parent, file.name, file.strength) for file in picked] == [
        (tmp_path / "shipped", "two", 0.5),
        (folder, "one", -1),
    ]


@pytest.mark.parametrize(
    "name", ["", "nobody", "one.safetensors", "../loras/one", "/etc/passwd", "o*", "a\0b", "x" * 300]
)
def test_another_name_is_refused_and_never_a_path(folder: Path, name: str) -> None:
    (folder / "one.safetensors").write_bytes(b"")
    with pytest.raises(OptionError) as caught:
        Loras((folder,)).pick([Lora("one"), Lora(name)])
    assert caught.value.facts == {"field": "loras", "value": name[:60], "allowed": "one"}


def test_there_is_a_limit_to_how_many() -> None:
    parse(Generate, {"prompt": "p", "loras": [{"name": "a"}] * 8})
    with pytest.raises(OptionError, match="loras"):
        parse(Generate, {"prompt": "p", "loras": [{"name": "a"}] * 9})


@pytest.mark.parametrize(("wanted", "taken"), [("auto", "pytorch"), ("pytorch", "pytorch"), ("torch", "torch")])
def test_what_is_selected_for_loras(wanted: str, taken: str) -> None:
    assert backends.for_loras(wanted) == taken


@pytest.mark.parametrize("wanted", ["edge", "ort", "openvino", "tensorrt", "quantum", ""])
def test_an_engine_that_takes_none_is_refused_and_told_the_other_way(wanted: str) -> None:
    with pytest.raises(OptionError, match="--lora") as caught:
        backends.for_loras(wanted)
    assert caught.value.facts["field"] == "backend"


def test_a_bundle_without_its_source_takes_none(builtin: Path, tmp_path: Path) -> None:
    write_portrait(tmp_path / "shelf" / "portrait")
    studio = Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", FakeEngine().select)
    *_, last = studio.run(Generate("p", loras=(Lora("studio_light"),)), tmp_path)
    assert isinstance(last, Failed) and last.code == "bad_option"
    assert last.facts == {"field": "loras", "value": "studio_light", "allowed": "none with this model"}


def test_the_worker_says_which_are_here(tmp_path: Path, folder: Path, within: Within[None]) -> None:
    (folder / "mine.safetensors").write_bytes(b"")
    write_portrait(tmp_path / "shelf" / "portrait")
    shelf, queue = Shelf((tmp_path / "shelf",)), SqliteQueue(tmp_path / "queue.db", tmp_path / "outputs")
    studio = Studio(shelf, tmp_path / "state", FakeEngine().select, Loras((folder,)))
    worker = Worker(queue, studio, shelf, "auto")
    settled = threading.Event()
    announce = queue.announce

    def told(status: Any) -> None:
        announce(status)
        if status.state != "loading":
            settled.set()

    queue.announce = told  # type: ignore[method-assign]
    worker.start()
    assert settled.wait(20)
    assert queue.status().loras == ("mine",)
    worker.stop(20)
    queue.close()


def test_a_survey_needs_no_lora(tmp_path: Path) -> None:
    write_portrait(tmp_path / "shelf" / "portrait")
    assert len(survey(Shelf((tmp_path / "shelf",)), "auto")) == 2


# ---- with PyTorch, on the shipped portrait


@pytest.fixture(scope="module")
def torch_here() -> None:
    probe = backends.engine("torch").probe()
    if not probe.ok:
        pytest.skip(probe.reason)


@pytest.fixture(scope="module")
def kept(torch_here: None, builtin: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    home = tmp_path_factory.mktemp("home")
    (home / "loras").mkdir()
    (home / "loras" / "broken.safetensors").write_bytes(b"this is no LoRA")
    return Studio(Shelf((builtin,)), home / "state", loras=Loras((home / "loras", builtin / "loras")))


def run(studio: Studio, folder: Path, *loras: Lora, **more: Any) -> list[Event]:
    return list(studio.run(Generate("portrait of a man, side light", loras=loras, **{**REPEATED, **more}), folder))


def result(studio: Studio, folder: Path, *loras: Lora, **more: Any) -> tuple[Final, Any, str]:
    *_, last = run(studio, folder, *loras, **more)
    assert isinstance(last, Final), last
    with Image.open(folder / last.images[0]) as image:
        return last, np.array(image), str(image.info["parameters"])


def test_auto_takes_pytorch_for_a_lora_and_says_why(kept: Studio, tmp_path: Path) -> None:
    final, with_it, text = result(kept, tmp_path, Lora("studio_light", 1.0))
    assert final.engine == "torch" and "; a LoRA needs PyTorch; " in final.reason and final.without == ()
    assert "LoRA: studio_light 1," in text
    plain, without, text = result(kept, tmp_path, backend="pytorch")
    assert plain.reason and "LoRA" not in plain.reason and "LoRA" not in text
    assert np.abs(with_it.astype(float) - without).mean() > 1, "it changes the picture"


def test_a_lora_is_for_one_job_alone(kept: Studio, tmp_path: Path) -> None:
    before = result(kept, tmp_path, backend="torch")[1]
    once = result(kept, tmp_path, Lora("studio_light", 0.8))[1]
    for strength in (-1.0, 0.3, 2.0):
        result(kept, tmp_path, Lora("studio_light", strength), steps=1)
    assert (result(kept, tmp_path, Lora("studio_light", 0.8))[1] == once).all()
    assert (result(kept, tmp_path, backend="torch")[1] == before).all()


def test_two_halves_are_one_whole(kept: Studio, tmp_path: Path) -> None:
    whole = result(kept, tmp_path, Lora("studio_light", 0.8))[1].astype(int)
    halves, _, text = (
        result(kept, tmp_path, Lora("studio_light", 0.5), Lora("studio_light", 0.3))[i] for i in (1, 0, 2)
    )
    assert np.abs(halves.astype(int) - whole).max() <= 1
    assert "LoRA: studio_light 0.5 + studio_light 0.3," in text


def test_a_lora_that_cannot_be_loaded_costs_no_picture(kept: Studio, tmp_path: Path) -> None:
    final, picture, text = result(kept, tmp_path, Lora("broken"), backend="torch")
    assert final.without == ("broken",) and "LoRA broken: it cannot be read" in final.reason
    assert (picture == result(kept, tmp_path, backend="torch")[1]).all() and "LoRA" not in text
    final, picture, text = result(kept, tmp_path, Lora("broken"), Lora("studio_light", 1.0))
    assert final.without == ("broken",) and "LoRA: studio_light 1," in text
    assert (picture == result(kept, tmp_path, Lora("studio_light", 1.0))[1]).all()


def test_every_picture_of_a_job_wears_it(kept: Studio, tmp_path: Path) -> None:
    events = run(kept, tmp_path, Lora("studio_light", 1.0), count=2)
    assert isinstance(events[-1], Final) and len(events[-1].images) == 2
    assert sum(isinstance(event, Progress) and event.stage == "denoise" for event in events) == 4
    alone = result(kept, tmp_path, Lora("studio_light", 1.0), seed=6)[1]
    with Image.open(tmp_path / events[-1].images[1]) as image:
        assert (np.array(image) == alone).all()


@pytest.mark.parametrize("backend", ["ort", "edge"])
def test_an_edge_engine_is_refused_before_anything_is_loaded(kept: Studio, tmp_path: Path, backend: str) -> None:
    *_, last = run(kept, tmp_path, Lora("studio_light"), backend=backend)
    assert isinstance(last, Failed) and last.code == "bad_option" and "--lora" in last.detail
    assert last.facts["field"] == "backend" and last.facts["value"] == backend
