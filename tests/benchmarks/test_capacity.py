"""That what measures a studio's ends measures something: real jobs, real machines at the door, real throughput."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import capacity, workers
from benchmarks.workers import House
from tests.support.redis_server import MISSING, PROGRAM


def test_the_database_and_the_disk(tmp_path: Path) -> None:
    assert capacity.database_rate(tmp_path / "jobs.db", 50, seconds=0.2) > 0
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        assert db.execute("SELECT COUNT(*) FROM job WHERE state='done'").fetchone()[0] > 50
    assert capacity.disk_rate(tmp_path / "pictures", seconds=0.1) > 0
    assert {path.stat().st_size for path in (tmp_path / "pictures").iterdir()} == {capacity.PICTURE_BYTES}


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_calls(tmp_path: Path) -> None:
    with workers.redis_server(tmp_path) as url:
        assert capacity.call_rate(url, seconds=0.2) > 0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with workers.a_house(tmp_path_factory.mktemp("house") / "studio", "") as house:
        yield house


@pytest.mark.slow
def test_the_door_of_a_real_studio(house: House) -> None:
    assert capacity.heartbeat_rate(house, clients=2, seconds=0.5) > 0
    assert capacity.door_rate(house, clients=2, seconds=1.0) > 0
    states, pictures = house.states(), list(house.home.glob("outputs/outputs_*.png"))
    assert states.get("done", 0) == len(pictures) > 0 and not states.get("failed")


@pytest.mark.slow
def test_throughput_of_a_joined_machine(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "JOBS", 2)
    monkeypatch.setattr(workers, "STEPS", 2)
    before = house.states().get("done", 0)
    assert house.rate("portrait") > 0
    with house.joined(tmp_path, ["desk"], ""):
        assert house.rate("joined") > 0
    assert house.states()["done"] == before + 6
