"""A drawing that was broken off goes on where it was, to the picture that it would have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines import backends, images
from engines.bundle import Shelf
from engines.messages import Event, Final, Generate, Preview, Progress
from engines.roles.loaded import LoadedBundle
from engines.studio import Studio, snapshot
from engines.studio.snapshot import NoSnapshots, Saver, Snapshot
from tests.support.fakes import PORTRAIT_ROLES, FakeEngine, waves, write_detector, write_portrait
from tests.support.snapshots import Kept, attempt

STEPS = 4
ASKED = Generate("红发", seed=5, steps=STEPS, count=2)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Saver, "due", True)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def studio(engine: FakeEngine, tmp_path: Path) -> Studio:
    write_portrait(tmp_path / "shelf" / "portrait", (*PORTRAIT_ROLES, "encoder"))
    write_detector(tmp_path / "shelf" / "detector")
    return Studio(Shelf((tmp_path / "shelf",)), tmp_path / "state", engine.select)


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is short: all pictures are denoised, then all are decoded."""
    plan = LoadedBundle.memory_plan
    monkeypatch.setattr(LoadedBundle, "memory_plan", lambda loaded, *asked: replace(plan(loaded, *asked), turns=True))


def pictures(folder: Path, events: list[Event]) -> list[bytes]:
    final = events[-1]
    assert isinstance(final, Final), final
    return [images.read(folder / name).tobytes() for name in final.images]


def goes_on_anywhere(studio: Studio, engine: FakeEngine, folder: Path, asked: Generate, runs: int = 1) -> None:
    """
    Broken off after each of its events, it does no step twice that was kept, and ends in the same pictures. `runs`: of
    the network in a step.
    """
    whole = attempt(studio, asked, folder, Kept())
    expected, steps = pictures(folder, whole), engine.calls.count("denoiser")
    assert len(set(expected)) == asked.count and steps == STEPS * asked.count * runs
    for k in range(1, len(whole)):
        kept = Kept()
        engine.calls.clear()
        first = attempt(studio, asked, folder, kept, events=k)
        counted_on = kept.pictures
        second = attempt(studio, asked, folder, kept)
        assert pictures(folder, second) == expected, f"broken off after {whole[k - 1]}"
        assert engine.calls.count("denoiser") == steps
        done = [event for event in first if isinstance(event, Preview) and event.kind == "result"]
        names = [event.image for event in second if isinstance(event, Preview) and event.kind == "result"]
        assert names[: len(counted_on)] == counted_on == [event.image for event in done][: len(counted_on)]
        assert len(names) == asked.count, "who looks is shown all of them"


@pytest.mark.parametrize("preview", ["live", "off", "only"])
def test_it_goes_on_wherever_it_was(studio: Studio, engine: FakeEngine, tmp_path: Path, preview: str) -> None:
    goes_on_anywhere(studio, engine, tmp_path, replace(ASKED, preview=preview))


def test_it_goes_on_where_memory_is_short(studio: Studio, engine: FakeEngine, tmp_path: Path, in_turns: None) -> None:
    """A picture may be waiting for its decoder."""
    goes_on_anywhere(studio, engine, tmp_path, ASKED)


def test_it_goes_on_from_a_photo(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    images.write_png(tmp_path / "photo.png", waves(64, 64))
    asked = replace(ASKED, start=str(tmp_path / "photo.png"), steps=2 * STEPS, strength=0.5)
    goes_on_anywhere(studio, engine, tmp_path, asked)


def test_it_goes_on_with_weighted_words(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    goes_on_anywhere(studio, engine, tmp_path, replace(ASKED, prompt="(红发:1.5), [帽子]"), runs=3)


def test_it_goes_on_in_the_midst_of_the_steps_that_vary(studio: Studio, engine: FakeEngine, tmp_path: Path) -> None:
    """Some attempts are broken off before, and some after the last step that is drawn by the varied prompt."""
    whole = attempt(studio, replace(ASKED, steps=8), tmp_path, Kept())
    asked = replace(ASKED, steps=8, variety=60)
    varied = pictures(tmp_path, attempt(studio, asked, tmp_path, Kept()))
    assert varied != pictures(tmp_path, whole)
    for k in range(1, len(whole), 2):
        kept = Kept()
        attempt(studio, asked, tmp_path, kept, events=k)
        assert pictures(tmp_path, attempt(studio, asked, tmp_path, kept)) == varied


def test_a_seed_by_lot_stays_the_same(studio: Studio, tmp_path: Path) -> None:
    kept, asked = Kept(), replace(ASKED, seed=-1)
    attempt(studio, asked, tmp_path, kept, events=5)
    assert kept.body is not None
    final = attempt(studio, asked, tmp_path, kept)[-1]
    assert isinstance(final, Final) and final.seed == Snapshot.unpack(kept.body).seed


def test_time_that_was_worked_before_counts(studio: Studio, tmp_path: Path) -> None:
    kept = Kept()
    attempt(studio, ASKED, tmp_path, kept, events=5)
    assert kept.body is not None
    kept.body = replace(Snapshot.unpack(kept.body), seconds=100.0).pack()
    final = attempt(studio, ASKED, tmp_path, kept)[-1]
    assert isinstance(final, Final) and 100.0 < final.seconds < 160.0


@pytest.mark.parametrize("why", ["damaged", "cut", "another engine", "other numbers"])
def test_what_it_cannot_go_on_from_costs_time_alone(
    studio: Studio, engine: FakeEngine, tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, kept = pictures(tmp_path, attempt(studio, ASKED, tmp_path, Kept())), Kept()
    attempt(studio, ASKED, tmp_path, kept, events=5)
    assert kept.body is not None
    if why == "damaged":
        kept.body = b"no snapshot" + kept.body
    elif why == "cut":
        kept.body = kept.body[:100]
    elif why == "another engine":
        monkeypatch.setattr(engine, "name", "other")
    else:
        other = attempt(studio, replace(ASKED, steps=3), tmp_path, fresh := Kept(), events=5)
        assert other and fresh.body is not None
        kept.body = fresh.body
    engine.calls.clear()
    assert pictures(tmp_path, attempt(studio, ASKED, tmp_path, kept)) == expected
    assert engine.calls.count("denoiser") == STEPS * ASKED.count


def test_pictures_of_another_drawing_do_not_stay(
    studio: Studio,
    engine: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its first picture was done when it was broken off; another engine serves now, and draws all of them."""
    kept = Kept()
    whole = attempt(studio, ASKED, tmp_path / "elsewhere", Kept())
    done = next(k for k, event in enumerate(whole) if isinstance(event, Preview) and event.kind == "result") + 1
    attempt(studio, ASKED, tmp_path, kept, events=done)
    assert len(kept.pictures) == 1
    monkeypatch.setattr(engine, "name", "other")
    final = attempt(studio, ASKED, tmp_path, kept)[-1]
    assert isinstance(final, Final) and len(final.images) == ASKED.count
    assert sorted(path.name for path in tmp_path.glob("outputs_*")) == sorted(final.images)
    assert "anew" in caplog.text and ASKED.prompt not in caplog.text, "a log names no prompt"


def test_a_snapshot_is_what_it_was() -> None:
    latents = tuple(np.random.default_rng(k).standard_normal((1, 4, 8, 8), dtype=np.float32) for k in range(3))
    for snap in (
        Snapshot("of this", 7),
        Snapshot("of this", 7, 1.5, ("a.png", "b.png"), latents[:2]),
        Snapshot("of this", 7, 1.5, ("a.png",), latents[:2], latents[2], 3),
    ):
        again = Snapshot.unpack(snap.pack())
        assert replace(again, denoised=(), latents=None) == replace(snap, denoised=(), latents=None)
        assert [array.tobytes() for array in again.denoised] == [array.tobytes() for array in snap.denoised]
        assert (again.latents is None) == (snap.latents is None)
        assert snap.latents is None or np.array_equal(again.latents, snap.latents)


@pytest.mark.parametrize("backend", backends.names())
def test_every_engine_ends_in_the_same_picture(
    builtin: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, though its second attempt is by other sessions, as it would be in another process."""
    if not (probe := backends.engine(backend).probe()).ok:
        pytest.skip(f"{backend}: {probe.reason}")
    shelf, asked = Shelf((builtin,)), Generate("一位女士的肖像", "", 256, 256, STEPS, seed=3, backend=backend)
    whole = pictures(tmp_path, attempt(Studio(shelf, tmp_path / "state"), asked, tmp_path, Kept()))
    for k in range(1, STEPS + 1):
        kept = Kept()
        studio = Studio(shelf, tmp_path / f"state {k}")
        studio.snapshots = kept
        drawing = studio.run(asked, tmp_path)
        for event in drawing:
            if isinstance(event, Progress) and (event.stage, event.step) == ("denoise", k):
                break
        drawing.close()
        assert kept.body is not None and Snapshot.unpack(kept.body).step == k
        assert pictures(tmp_path, attempt(Studio(shelf, tmp_path / f"later {k}"), asked, tmp_path, kept)) == whole


def test_it_saves_rarely_what_is_slow_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory card takes its time: no more than a fiftieth of all goes into it."""
    monkeypatch.undo()
    now = [0.0]
    monkeypatch.setattr(snapshot.time, "perf_counter", lambda: now[0])

    class Slow(NoSnapshots):
        def save(self, body: bytes, pictures: object) -> None:
            now[0] += 0.5

    saver, saved = Saver(Slow()), []
    while now[0] < 200.0:
        now[0] += 0.1
        if saver.due:
            saver.save(Snapshot("d", 1))
            saved.append(now[0])
    assert saved[0] < 3.0 and 0.5 * len(saved) <= 0.025 * 200.0
    gaps = np.diff(saved)
    assert gaps.min() >= 25.0
