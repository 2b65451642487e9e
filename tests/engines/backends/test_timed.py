"""How long the runs of sessions take: each is noted, with its role and the size of what it was fed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from engines.backends.timed import RoleRun, TimedSession, lower_quartiles, rounded_s
from engines.bundle import Role
from engines.errors import EngineError
from engines.roles.loaded import LoadedBundle
from tests.support.fakes import FakeEngine, FakeSession, write_restorer


def test_a_run_is_noted_with_what_it_took_and_what_it_was_fed() -> None:
    runs: list[RoleRun] = []
    session = TimedSession(FakeSession(FakeEngine(slow_s={"decoder": 0.02}), "decoder"), "decoder", runs.append)
    begun = time.perf_counter()
    image = session.run({"latents": np.zeros((1, 4, 3, 5), np.float32)})["image"]
    passed = time.perf_counter() - begun
    assert image.shape == (1, 3, 24, 40), "what it gives is the session's"
    (run,) = runs
    assert (run.role, run.cells) == ("decoder", 15) and 0.02 <= run.seconds <= passed


def test_of_words_the_tokens_are_counted() -> None:
    runs: list[RoleRun] = []
    session = TimedSession(FakeSession(FakeEngine(), "text_encoder"), "text_encoder", runs.append)
    session.run({"ids": np.zeros((1, 7), np.int64)})
    assert [run.cells for run in runs] == [7]


def test_a_run_that_fails_says_nothing_of_time() -> None:
    def refuse(result: np.ndarray) -> np.ndarray:
        raise EngineError("no", engine="fake")

    runs: list[RoleRun] = []
    session = TimedSession(FakeSession(FakeEngine(spoil={"restorer": refuse}), "restorer"), "restorer", runs.append)
    with pytest.raises(EngineError):
        session.run({"face": np.zeros((1, 3, 8, 8), np.float32)})
    assert runs == []


def test_it_closes_what_it_times() -> None:
    engine = FakeEngine()
    TimedSession(FakeSession(engine, "restorer"), "restorer", print).close()
    assert engine.closed == ["restorer"]


def test_a_loaded_bundle_tells_of_its_runs_if_somebody_asks(tmp_path: Path) -> None:
    runs: list[RoleRun] = []
    bundle, face = write_restorer(tmp_path / "restorer"), np.zeros((32, 32, 3), np.uint8)
    LoadedBundle(bundle, FakeEngine(), note=runs.append).restorer.restore(face)
    LoadedBundle(bundle, FakeEngine()).restorer.restore(face)
    assert [(run.role, run.cells) for run in runs] == [("restorer", 32 * 32)]


def test_the_lower_quartile_counts_for_each_role() -> None:
    roles: list[Role] = ["denoiser", "denoiser", "denoiser", "denoiser", "decoder"]
    runs = [RoleRun(role, 1, seconds) for role, seconds in zip(roles, (9.0, 1.0, 2.0, 3.0, 4.0), strict=True)]
    assert lower_quartiles(runs) == {"denoiser": 2.0, "decoder": 4.0}


def test_what_takes_no_time_to_speak_of_was_timed_all_the_same() -> None:
    assert (rounded_s(0.0000412349), rounded_s(0.55434), rounded_s(12.3456)) == (0.00004123, 0.5543, 12.35)
