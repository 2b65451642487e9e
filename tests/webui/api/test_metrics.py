"""What a Prometheus server reads: by its own parser, against what the queue and the worker say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from engines.jobs.sqlite_queue import SqliteQueue
from engines.messages import Enhance, Fetch, Final, Generate
from engines.messages.status import EngineStatus, Status
from engines.settings import Settings
from tests.support.http import SKETCH
from tests.support.queues import claimed
from webui.api.metrics import QUANTILES, StudioCollector

if TYPE_CHECKING:
    from tests.support.server import Rig

Sample = tuple[str, frozenset[tuple[str, str]]]


def sample(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def scraped(text: str) -> dict[Sample, float]:
    families = text_string_to_metric_families(text)
    return {sample(s.name, **s.labels): s.value for family in families for s in family.samples}


def collected(queue: SqliteQueue) -> dict[Sample, float]:
    families = StudioCollector(queue, Settings(queue.folder.parent, outputs_gb=2.5)).collect()
    return {sample(s.name, **s.labels): s.value for family in families for s in family.samples}


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    opened = SqliteQueue(tmp_path / "jobs.db", tmp_path / "outputs")
    yield opened
    opened.close()


def test_a_scrape_of_the_real_server(rig: Rig) -> None:
    rig.client.post("/generate", json={"prompt": "x", **SKETCH}).raise_for_status()
    answer = rig.client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    values = scraped(answer.text)
    assert values[sample("studio_worker_ready")] == 1
    assert values[sample("studio_engine_available", engine="ort")] == 1
    assert values[sample("studio_jobs_unfinished", lane="pictures")] == 0
    assert values[sample("studio_latest_job_seconds", kind="generate", quantile="0.5")] > 0
    assert values[sample("process_resident_memory_bytes")] > 50e6, "this process, with all it has loaded"
    assert 0 < values[sample("process_start_time_seconds")] <= time.time()
    assert str(rig.settings.home) not in answer.text


def test_it_is_asked_when_it_is_scraped(queue: SqliteQueue) -> None:
    """Nothing is remembered from the last time."""
    queue.announce(Status("loading"))
    assert collected(queue)[sample("studio_worker_ready")] == 0
    engines = (EngineStatus("ort", True, "CPU", "2 threads"), EngineStatus("torch", False, "", "not installed"))
    queue.announce(Status("ready", engines=engines))
    after = collected(queue)
    assert after[sample("studio_worker_ready")] == 1
    assert after[sample("studio_engine_available", engine="ort")] == 1
    assert after[sample("studio_engine_available", engine="torch")] == 0


def test_a_temperature_is_there_where_it_is_measured(queue: SqliteQueue) -> None:
    queue.announce(Status("ready"))
    values = collected(queue)
    assert values[sample("studio_worker_resting")] == 0 and sample("studio_temperature_celsius") not in values
    queue.announce(Status("ready", resting="too hot", temperature_c=85.5))
    values = collected(queue)
    assert values[sample("studio_worker_resting")] == 1 and values[sample("studio_temperature_celsius")] == 85.5


def test_a_pause_is_a_number(queue: SqliteQueue) -> None:
    assert collected(queue)[sample("studio_queue_paused")] == 0
    queue.pause()
    assert collected(queue)[sample("studio_queue_paused")] == 1


def test_what_pictures_take_is_there_beside_what_they_may(queue: SqliteQueue) -> None:
    values = collected(queue)
    assert values[sample("studio_outputs_limit_bytes")] == 2.5e9
    assert sample("studio_outputs_bytes") not in values, "there is no folder yet"
    queue.folder.mkdir()
    assert collected(queue)[sample("studio_outputs_bytes")] == 0
    (queue.folder / "outputs_20260101000000.png").write_bytes(bytes(700))
    (queue.folder / "outputs_20260101000000.negative.npz").write_bytes(bytes(50))
    (queue.folder / "link.png").symlink_to(queue.folder / "outputs_20260101000000.png")
    assert collected(queue)[sample("studio_outputs_bytes")] == 750


def test_jobs_are_counted_by_lane(queue: SqliteQueue) -> None:
    for request in (Generate("a"), Enhance("b"), Generate("c"), Fetch("gpen")):
        queue.submit(request)
    claimed(queue)
    values = collected(queue)
    assert values[sample("studio_jobs_unfinished", lane="pictures")] == 3, "one runs, two wait"
    assert values[sample("studio_jobs_unfinished", lane="builds")] == 1


@pytest.mark.parametrize(
    ("seconds", "median", "most"), [((4.0,), 4.0, 4.0), ((1.0, 3.0), 2.0, 3.0), (tuple(range(1, 101)), 50.5, 100.0)]
)
def test_durations_are_quantiles_by_kind(
    queue: SqliteQueue, seconds: tuple[float, ...], median: float, most: float
) -> None:
    for took in seconds:
        queue.submit(Generate("a"))
        queue.publish(claimed(queue), Final(("a.png",), 1, took, "ort"))
    values = collected(queue)
    half, almost = (values[sample("studio_latest_job_seconds", kind="generate", quantile=f"{q:g}")] for q in QUANTILES)
    assert half == pytest.approx(median)
    assert median <= almost <= most
    assert not [name for name, labels in values if ("kind", "enhance") in labels], "of none there is nothing to say"


def test_a_kind_that_is_slow_hides_no_other(queue: SqliteQueue) -> None:
    for request, took in ((Generate("a"), 100.0), (Enhance("b"), 2.0)):
        queue.submit(request)
        queue.publish(claimed(queue), Final(("a.png",), 1, took, "ort"))
    values = collected(queue)
    assert values[sample("studio_latest_job_seconds", kind="generate", quantile="0.5")] == 100
    assert values[sample("studio_latest_job_seconds", kind="enhance", quantile="0.5")] == 2


def test_the_librarys_own_registry_is_left_alone(rig: Rig) -> None:
    """Two servers in one process, as in these tests, would collide there."""
    rig.client.get("/metrics").raise_for_status()
    names = {family.name for family in REGISTRY.collect()}
    assert not [name for name in names if name.startswith("studio_")]


def test_an_engine_of_any_name_is_written_so_that_it_can_be_read(queue: SqliteQueue) -> None:
    odd = 'a"b\\c\nd'
    queue.announce(replace(Status("ready"), engines=(EngineStatus(odd, True, "", ""),)))
    registry = CollectorRegistry()
    registry.register(StudioCollector(queue, Settings(queue.folder.parent)))
    assert scraped(generate_latest(registry).decode())[sample("studio_engine_available", engine=odd)] == 1
