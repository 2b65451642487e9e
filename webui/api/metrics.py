"""
What a Prometheus server scrapes. Everything is read when it asks, so nothing is counted twice or forgotten at a
restart; what the queue cannot tell cheaply is not told.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import get_args

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from engines.jobs import Finished, JobQueue, Lane, lane_of
from engines.messages.status import Status
from engines.settings import Settings
from webui import outputs_cap

LATEST = 100  # jobs that durations are taken of
QUANTILES = (0.5, 0.95)


def add(routes: APIRouter, queue: JobQueue, settings: Settings) -> None:
    registry = CollectorRegistry()
    registry.register(StudioCollector(queue, settings))
    ProcessCollector(registry=registry)  # of this process: memory, processor time, files, and when it started

    @routes.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Numbers in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class StudioCollector(Collector):
    def __init__(self, queue: JobQueue, settings: Settings) -> None:
        self.queue, self.settings = queue, settings

    def describe(self) -> Iterable[Metric]:
        """Return none: the registry would look at a queue that nobody has asked about."""
        return ()

    def collect(self) -> Iterator[Metric]:
        status = self.queue.status()
        yield GaugeMetricFamily(
            "studio_worker_ready", "1: the worker takes jobs.", value=float(status.state == "ready")
        )
        yield GaugeMetricFamily(
            "studio_worker_resting", "1: the worker is too hot, or pauses.", value=float(bool(status.resting))
        )
        yield GaugeMetricFamily(
            "studio_queue_paused", "1: the owner has paused it.", value=float(self.queue.is_paused())
        )
        if status.temperature_c is not None:
            yield GaugeMetricFamily(
                "studio_temperature_celsius", "Of the hottest processor.", value=status.temperature_c
            )
        yield from self._outputs()
        yield _engines(status)
        yield self._unfinished()
        yield _seconds(self.queue.finished(LATEST))

    def _outputs(self) -> Iterator[Metric]:
        """Nothing is said of a folder that the disk does not show."""
        most = outputs_cap.most_bytes(self.settings)
        yield GaugeMetricFamily(
            "studio_outputs_limit_bytes", "What pictures may take, STUDIO_OUTPUTS_GB; 0: no limit.", value=float(most)
        )
        with suppress(OSError):
            taken = outputs_cap.sizes(self.settings.outputs).total()
            yield GaugeMetricFamily("studio_outputs_bytes", "What pictures take.", value=float(taken))

    def _unfinished(self) -> Metric:
        """Those that wait and those that run together: the queue tells no state of theirs."""
        count = Counter(map(lane_of, self.queue.unfinished()))
        family = GaugeMetricFamily("studio_jobs_unfinished", "Jobs that wait or run.", labels=["lane"])
        for lane in get_args(Lane):
            family.add_metric([lane], count[lane])
        return family


def _engines(status: Status) -> Metric:
    family = GaugeMetricFamily("studio_engine_available", "1: the engine can be used here.", labels=["engine"])
    for engine in status.engines:
        family.add_metric([engine.name], float(engine.ok))
    return family


def _seconds(finished: list[Finished]) -> Metric:
    """
    Quantiles of a window, which is why this is no Prometheus summary: count and sum of one may only grow, and jobs
    leave the window.
    """
    family = GaugeMetricFamily(
        "studio_latest_job_seconds",
        f"How long the latest {LATEST} jobs took that went well.",
        labels=["kind", "quantile"],
    )
    took: dict[str, list[float]] = {}
    for entry in finished:
        took.setdefault(type(entry.job.request).__name__.lower(), []).append(entry.final.seconds)
    for kind, seconds in sorted(took.items()):
        for quantile in QUANTILES:
            family.add_metric([kind, f"{quantile:g}"], _quantile(seconds, quantile))
    return family


def _quantile(values: list[float], share: float) -> float:
    """Return the value below which this share of the others lies; of two values, between them."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
