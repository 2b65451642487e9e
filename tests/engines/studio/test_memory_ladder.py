"""Memory that runs out in the middle of a job costs time, and in the end a few words; never the picture that fits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engines import backends, images
from engines.backends import Engine
from engines.bundle import Bundle, Role, Shelf
from engines.bundle.signatures import Array
from engines.errors import EngineError, OutOfMemory, engine_failed
from engines.messages import Develop, Enhance, Event, Failed, Final, Generate, Request
from engines.roles import tiled_decode
from engines.studio import Studio
from engines.studio.snapshot import Saver
from tests.conftest import REPOSITORY
from tests.support.fakes import FakeEngine, waves, write_detector, write_portrait, write_restorer
from tests.support.restoration import person, scene, seeing
from tests.support.snapshots import Kept, attempt

ASKED = Generate("红发", seed=5, steps=3, count=3, width=64, height=64, preview="off")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(engine: FakeEngine, tmp_path: Path) -> Studio:
    write_portrait(tmp_path / "shelf" / "portrait")
    write_detector(tmp_path / "shelf" / "detector")
    write_restorer(tmp_path / "shelf" / "restorer")
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


def short(engine: FakeEngine, role: Role, calls: range, error: type[Exception] = MemoryError) -> None:
    """Let these calls of a role find no memory."""
    count = iter(range(10**6))

    def spoil(result: Array) -> Array:
        if next(count) in calls:
            raise error("std::bad_alloc")
        return result

    engine.spoil[role] = spoil


def run(studio: Studio, request: Request, folder: Path) -> list[Event]:
    return list(studio.run(request, folder))


def pictures(folder: Path, last: Event) -> list[bytes]:
    assert isinstance(last, Final), last
    return [images.read(folder / name).tobytes() for name in last.images]


@pytest.mark.parametrize("error", [MemoryError, OutOfMemory])
@pytest.mark.parametrize("role", ["text_encoder", "denoiser", "decoder"])
@pytest.mark.parametrize("call", [0, 1, 2])
def test_it_goes_on_with_less_to_the_same_pictures(
    studio: Studio, engine: FakeEngine, tmp_path: Path, role: Role, call: int, error: type[Exception]
) -> None:
    whole = pictures(tmp_path, run(studio, ASKED, tmp_path)[-1])
    for path in tmp_path.glob("outputs_*"):
        path.unlink()
    asked = replace(ASKED, prompt="another") if role == "text_encoder" else ASKED
    short(engine, role, range(call, call + 1), error)
    last = run(studio, asked, tmp_path)[-1]
    assert isinstance(last, Final)
    if role != "text_encoder":
        assert pictures(tmp_path, last) == whole, "one part after the other is the same to the bit"
        assert "one part after the other" in last.reason
    assert sorted(path.name for path in tmp_path.glob("outputs_*")) == sorted(last.images), "and nothing twice"


def test_what_is_loaded_is_freed_first(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    studio.loaded_bundles.get("restorer", "auto")[0].load_all()
    short(engine, "decoder", range(1))
    run(studio, ASKED, tmp_path)
    assert "restorer" in engine.closed and engine.closed.count("denoiser") >= 2


def test_then_the_picture_is_decoded_in_pieces(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    big = replace(ASKED, width=8 * (tiled_decode.SIDE + 16), count=1)

    def no_room(picture: Array) -> Array:
        if picture.shape[3] > 8 * tiled_decode.SIDE:
            raise MemoryError
        return picture

    engine.spoil["decoder"] = no_room
    last = run(studio, big, tmp_path)[-1]
    assert isinstance(last, Final) and "decoded in pieces" in last.reason
    engine.calls.clear()
    assert isinstance(run(studio, big, tmp_path)[-1], Final)
    assert engine.calls.count("denoiser") == big.steps, "the rung that worked is where the next one begins"
    assert "decoded in pieces" not in str(run(studio, ASKED, tmp_path)[-1]), "of that size"


def test_then_in_smaller_ones(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    big = replace(ASKED, width=8 * (tiled_decode.SIDE + 16), height=8 * tiled_decode.SIDE, count=1)
    sides: list[int] = []

    def no_room(picture: Array) -> Array:
        sides.append(max(picture.shape[2:]))
        if sides[-1] > 8 * tiled_decode.SIDE // 2:
            raise MemoryError
        return picture

    whole = pictures(tmp_path, run(studio, big, tmp_path)[-1])
    engine.spoil["decoder"] = no_room
    last = run(studio, big, tmp_path)[-1]
    assert isinstance(last, Final) and "decoded in pieces" in last.reason
    assert len(set(sides)) == 3 and min(sides) == 8 * tiled_decode.SIDE // 2
    assert len(pictures(tmp_path, last)[0]) == len(whole[0])


@pytest.mark.parametrize("request_", [replace(ASKED, count=1), Enhance("photo.png"), Develop("")])
def test_at_last_another_engine_does_it_and_the_next_one_at_once(
    engine: FakeEngine, tmp_path: Path, request_: Request
) -> None:
    """Unless one was asked for by its name: tests/engines/backends/test_selection.py."""
    other = FakeEngine(name="other")
    engines = [engine, other]

    def select(bundle: Bundle, wanted: str, *, passed_over: int = 0) -> tuple[Engine, str]:
        return engines[passed_over], f"{engines[passed_over].name} serves"

    for write in (write_portrait, write_detector, write_restorer):
        write(tmp_path / "shelf" / write.__name__.removeprefix("write_"))
    studio = Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", select)
    images.write_png(tmp_path / "photo.png", scene(240, 400))
    if isinstance(request_, Enhance):
        engine.sees = other.sees = seeing(person(60, 90, 70))
        request_ = replace(request_, image=str(tmp_path / "photo.png"))
    if isinstance(request_, Develop):
        sketch = run(studio, replace(ASKED, preview="only", count=1), tmp_path)[-1]
        assert isinstance(sketch, Final)
        request_ = Develop(sketch.images[0])
    roles: dict[str, Role] = {"Generate": "denoiser", "Enhance": "restorer", "Develop": "decoder"}
    role = roles[type(request_).__name__]
    short(engine, role, range(10**6))
    last = run(studio, request_, tmp_path)[-1]
    assert isinstance(last, Final), last
    assert last.engine == "other" and "other serves" in last.reason
    engine.calls.clear()
    assert isinstance(run(studio, request_, tmp_path)[-1], Final)
    assert role not in engine.calls, "the rung that worked is where the next one begins"


@pytest.mark.parametrize("role", ["denoiser", "decoder"])
def test_where_nothing_helps_it_is_said_in_words_and_nothing_stays(
    studio: Studio, engine: FakeEngine, tmp_path: Path, role: Role
) -> None:
    short(engine, role, range(10**6))
    last = run(studio, ASKED, tmp_path)[-1]
    assert isinstance(last, Failed) and last.code == "out_of_memory" and last.detail
    assert list(tmp_path.glob("outputs_*")) == []
    del engine.spoil[role]
    assert isinstance(run(studio, ASKED, tmp_path)[-1], Final), "and the next job is drawn"


def test_it_goes_on_from_its_snapshot(
    studio: Studio, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Saver, "due", True)
    whole = pictures(tmp_path, run(studio, ASKED, tmp_path)[-1])
    engine.calls.clear()
    short(engine, "decoder", range(1, 2))
    events = attempt(studio, ASKED, tmp_path, Kept())
    assert pictures(tmp_path, events[-1]) == whole
    assert engine.calls.count("denoiser") == ASKED.steps * ASKED.count, "no step is done twice"


def test_an_attempt_after_another_begins_with_less(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    """The process before it may have been ended for want of memory."""
    last = attempt(studio, ASKED, tmp_path, Kept(attempt=2))[-1]
    assert isinstance(last, Final) and "one part after the other" in last.reason
    assert "one part" not in str(attempt(studio, replace(ASKED, seed=6, width=128), tmp_path, Kept())[-1])


def test_a_seed_by_lot_is_drawn_once(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    by_lot = replace(ASKED, seed=-1, count=1)
    short(engine, "decoder", range(1))
    last = run(studio, by_lot, tmp_path)[-1]
    assert isinstance(last, Final)
    again = run(studio, replace(by_lot, seed=last.seed), tmp_path)[-1]
    assert pictures(tmp_path, last) == pictures(tmp_path, again)


def test_other_faults_are_no_want_of_memory(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    short(engine, "decoder", range(1), EngineError)
    engine.calls.clear()
    last = run(studio, ASKED, tmp_path)[-1]
    assert isinstance(last, Failed) and last.code == "engine_failed"
    assert engine.calls.count("decoder") == 1


def test_a_photo_is_restored_with_less(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    images.write_png(tmp_path / "photo.png", waves(64, 64))
    studio.loaded_bundles.get("portrait", "auto")[0].load_all()
    short(engine, "face_detector", range(1))
    last = run(studio, Enhance(str(tmp_path / "photo.png"), whole_picture=True), tmp_path)[-1]
    assert isinstance(last, Final), last
    assert "denoiser" in engine.closed


def test_a_preview_is_developed_with_less(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    last = run(studio, replace(ASKED, preview="only", count=1), tmp_path)[-1]
    assert isinstance(last, Final)
    short(engine, "decoder", range(2))
    assert isinstance(run(studio, Develop(last.images[0]), tmp_path)[-1], Final)


# ---- what libraries say


SHORT = """
import resource, sys
import numpy as np
from engines import backends
from engines.bundle import BUILT_IN, Shelf
from engines.errors import OutOfMemory
bundle = Shelf((BUILT_IN,), {compiled!r} and __import__("pathlib").Path({compiled!r})).open("portrait")
engine = backends.engine({name!r})
session = engine.load(bundle, bundle.part("decoder", engine.formats))
channels = bundle.sampling.latent_channels
session.run({{"latents": np.zeros((1, channels, 16, 16), np.float32)}})
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 150_000_000,) * 2)
try:
    session.run({{"latents": np.zeros((1, channels, 320, 320), np.float32)}})
except OutOfMemory as exc:
    print("out of memory")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ort", "openvino", "torch"])
def test_each_engine_that_has_no_memory_says_so(tmp_path: Path, name: str) -> None:
    if not (probe := backends.engine(name).probe()).ok:
        pytest.skip(f"{name}: {probe.reason}")
    script = SHORT.format(name=name, compiled=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "out of memory", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("words", "memory"),
    [
        ("[ONNXRuntimeError] : 6 : bfc_arena.cc:360 Failed to allocate memory for requested buffer", True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True), ("std::bad_alloc", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 41943040 bytes.", True),
        ("Check 'ptr' failed: Failed to allocate 83886080 bytes of memory", True),
        ("shapes (3,4) and (5,6) not aligned", False), ("memory format is not supported", False),
        ("the allocator is unknown", False), ("", False),
    ],
)  # fmt: skip
def test_what_means_that_there_was_no_memory(words: str, memory: bool) -> None:
    assert isinstance(engine_failed("ort", "portrait/decoder", RuntimeError(words)), OutOfMemory) is memory
    assert engine_failed("ort", "x", MemoryError()).facts == {"engine": "ort"}
