"""One scrape: the plain numbers of `metrics.py` as Prometheus' client library wants them."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from replicad.observe.metrics import DATABASE_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from replicad.observe.metrics import DatabaseMetrics, Metrics, Row

SNAPSHOT_AGE = "replicad_snapshot_age_seconds"


class Exposition:
    """A registry of its own: what other code registers in the global one is not shown, and nothing is shown twice."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its content type, in the format the Accept header asks for."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Return nothing: the registry need not know the names beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Iterate over the families of one scrape."""
        yield from self._process()
        yield from self._requests()
        # A copy: the loop may add a database while a scrape runs in its thread.
        databases = list(self._metrics.databases.items())
        for row in DATABASE_ROWS:
            yield _family(row, databases)
        age = GaugeMetricFamily(SNAPSHOT_AGE, "Age of the newest snapshot's transaction.", labels=["database"])
        for name, database in databases:
            if database.snapshot_ms is not None:
                age.add_metric([name], max(0.0, self._metrics.wall_seconds() - database.snapshot_ms / 1000))
        yield age

    def _process(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "replicad_build_info", "1, with the versions as labels.", labels=["version", "python"]
        )
        build.add_metric([self._metrics.version, platform.python_version()], 1)
        yield build
        ready = GaugeMetricFamily("replicad_ready", "1 when the application was started and capture runs.")
        ready.add_metric([], float(self._metrics.ready()))
        yield ready
        started = GaugeMetricFamily("replicad_start_timestamp_seconds", "When replicad was started.")
        started.add_metric([], self._metrics.started_seconds)
        yield started

    def _requests(self) -> Iterator[Metric]:
        count = CounterMetricFamily("replicad_store_requests", "Requests to the store.", labels=["verb", "outcome"])
        sent = CounterMetricFamily("replicad_store_sent_bytes", "Bytes sent to the store.", labels=["verb"])
        received = CounterMetricFamily(
            "replicad_store_received_bytes", "Bytes received from the store.", labels=["verb"]
        )
        duration = HistogramMetricFamily(
            "replicad_store_request_duration_seconds", "How long requests to the store took.", labels=["verb"]
        )
        for verb, requests in list(self._metrics.requests.items()):
            for outcome, number in list(requests.outcomes.items()):
                count.add_metric([verb, outcome], number)
            sent.add_metric([verb], requests.sent_bytes)
            received.add_metric([verb], requests.received_bytes)
            duration.add_metric([verb], requests.duration.cumulative(), requests.duration.total)
        yield from (count, sent, received, duration)
        yield self._mirror_requests()

    def _mirror_requests(self) -> Metric:
        count = CounterMetricFamily(
            "replicad_mirror_requests", "Requests to the mirrors.", labels=["mirror", "verb", "outcome"]
        )
        for label, mirror in list(self._metrics.mirror_requests.items()):
            for verb, requests in list(mirror.requests.items()):
                for outcome, number in list(requests.outcomes.items()):
                    count.add_metric([label, verb, outcome], number)
        return count


def _family(row: Row, databases: list[tuple[str, DatabaseMetrics]]) -> Metric:
    labels = ["database"] if row.label is None else ["database", row.label]
    if row.kind == "histogram":
        histogram = HistogramMetricFamily(row.name, row.help, labels=labels)
        for name, database in databases:
            value = getattr(database, row.field)
            histogram.add_metric([name], value.cumulative(), value.total)
        return histogram
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = kind(row.name.removesuffix("_total"), row.help, labels=labels)
    for name, database in databases:
        value = getattr(database, row.field)
        if row.label is not None:
            for label, each in list(value.items()):
                family.add_metric([name, label], each() if callable(each) else each)
        elif (number := value() if callable(value) else value) is not None:
            family.add_metric([name], number * row.scale)
    return family
