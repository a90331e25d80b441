from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from replicad.observe.metrics import DATABASE_ROWS, DatabaseMetrics, Metrics
from tests.unit.observe.promlint import problems

if TYPE_CHECKING:
    from prometheus_client import Metric

NOW = 1_800_000_000.0


def _metrics() -> Metrics:
    """Return metrics with every number set."""
    metrics = Metrics(version="1.2.3", wall_seconds=lambda: NOW)
    database = metrics.for_database("app.db")
    for row in DATABASE_ROWS:
        value = getattr(database, row.field)
        if row.kind == "histogram":
            value.observe(0.003)
        elif row.label is not None:
            value["a value"] = 3
        elif row.field != "lag_seconds":
            setattr(database, row.field, 3)
    metrics.request("put", "ok", 0.02, 100, 0)
    metrics.request("put", "refused", 0.02, 50, 0)
    metrics.request("get", "ok", 0.2, 0, 4096)
    metrics.for_mirror("s3://second").request("put", "ok", 0.02, 100, 0)
    return metrics


def _families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in parse_text(metrics.render()[0].decode())}


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in parse_text(metrics.render()[0].decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def test_names_follow_the_conventions() -> None:
    """Nothing is left for promtool to complain about."""
    families = list(_families(_metrics()).values())
    assert len(families) > 40
    assert problems(families) == []
    assert all(family.name.startswith(("replicad_", "process_")) for family in families)


@pytest.mark.parametrize(
    ("family", "complaint"),
    [
        (CounterMetricFamily("requests", "", value=1), "no help text"),
        (GaugeMetricFamily("requests_total", "Help.", value=1), "_total"),
        (GaugeMetricFamily("requests_count", "Help.", value=1), "reserved suffix"),
        (GaugeMetricFamily("lag_milliseconds", "Help.", value=1), 'use base unit "seconds"'),
        (GaugeMetricFamily("age_hours", "Help.", value=1), 'use base unit "seconds"'),
        (GaugeMetricFamily("wal_kibibytes", "Help.", value=1), 'use base unit "bytes"'),
        (GaugeMetricFamily("lag_ms", "Help.", value=1), "abbreviated"),
        (GaugeMetricFamily("lag_gauge", "Help.", value=1), "include type"),
        (GaugeMetricFamily("walSize", "Help.", value=1), "snake_case"),
    ],
)
def test_the_lint_itself_complains(family: Metric, complaint: str) -> None:
    """Each rule of the lint is broken by a name made to break it."""
    assert complaint in " ".join(problems([family]))


def test_every_number_of_a_database_is_exposed() -> None:
    """Every attribute of DatabaseMetrics is a row of the table and a family of the scrape."""
    fields = set(DatabaseMetrics.__struct_fields__)
    assert {row.field for row in DATABASE_ROWS} == fields
    families = _families(_metrics())
    for row in DATABASE_ROWS:
        family = families[row.name.removesuffix("_total")]
        assert family.type == row.kind
        assert family.documentation == row.help
        assert all(sample.labels["database"] == "app.db" for sample in family.samples)


def test_lag_is_asked_at_each_scrape() -> None:
    """The replication lag is what the callback says now; 0 without one."""
    metrics = Metrics(version="1", wall_seconds=lambda: NOW)
    database = metrics.for_database("app.db")
    assert _value(metrics, "replicad_replication_lag_seconds", database="app.db") == 0
    lag = iter([1.5, 2.5])
    database.lag_seconds = lambda: next(lag)
    assert _value(metrics, "replicad_replication_lag_seconds", database="app.db") == 1.5
    assert _value(metrics, "replicad_replication_lag_seconds", database="app.db") == 2.5


def test_what_is_not_known_is_not_exposed() -> None:
    """An instant that never was has no sample: 0 would be taken for 1970."""
    metrics = Metrics(version="1", wall_seconds=lambda: NOW)
    database = metrics.for_database("app.db")
    assert _value(metrics, "replicad_snapshot_timestamp_seconds", database="app.db") is None
    assert _value(metrics, "replicad_snapshot_age_seconds", database="app.db") is None
    database.snapshot_ms = round((NOW - 90) * 1000)
    assert _value(metrics, "replicad_snapshot_timestamp_seconds", database="app.db") == NOW - 90
    assert _value(metrics, "replicad_snapshot_age_seconds", database="app.db") == 90


def test_a_clock_that_jumped_back_gives_no_negative_age() -> None:
    """The snapshot's age is never below zero, whatever the wall clock does."""
    metrics = Metrics(version="1", wall_seconds=lambda: NOW)
    metrics.for_database("app.db").snapshot_ms = round((NOW + 3600) * 1000)
    assert _value(metrics, "replicad_snapshot_age_seconds", database="app.db") == 0


def test_requests_by_verb_and_outcome() -> None:
    """Requests are counted by verb and outcome, bytes and times by verb."""
    metrics = _metrics()
    assert _value(metrics, "replicad_store_requests_total", verb="put", outcome="ok") == 1
    assert _value(metrics, "replicad_store_requests_total", verb="put", outcome="refused") == 1
    assert _value(metrics, "replicad_store_sent_bytes_total", verb="put") == 150
    assert _value(metrics, "replicad_store_received_bytes_total", verb="get") == 4096
    assert _value(metrics, "replicad_store_request_duration_seconds_count", verb="put") == 2
    assert _value(metrics, "replicad_store_request_duration_seconds_bucket", verb="get", le="0.2") == 1


def test_mirrors_are_told_apart() -> None:
    """What is sent to a mirror counts for it alone, and its lag is asked at each scrape."""
    metrics = _metrics()
    assert _value(metrics, "replicad_mirror_requests_total", mirror="s3://second", verb="put", outcome="ok") == 1
    now = [5.0]
    metrics.for_database("app.db").mirror_lag_seconds["s3://second"] = lambda: now[0]
    assert _value(metrics, "replicad_mirror_lag_seconds", database="app.db", mirror="s3://second") == 5
    now[0] = 6
    assert _value(metrics, "replicad_mirror_lag_seconds", database="app.db", mirror="s3://second") == 6


def test_databases_are_told_apart() -> None:
    """Each database has numbers of its own; the same name is the same object; a forgotten one is gone."""
    metrics = Metrics(version="1", wall_seconds=lambda: NOW)
    metrics.for_database("a").durable_txid = 1
    metrics.for_database("b").durable_txid = 2
    assert metrics.for_database("a") is metrics.for_database("a")
    assert _value(metrics, "replicad_durable_txid", database="a") == 1
    assert _value(metrics, "replicad_durable_txid", database="b") == 2
    metrics.forget_database("a")
    assert _value(metrics, "replicad_durable_txid", database="a") is None


def test_readiness_and_build() -> None:
    """Readiness is asked at the scrape; the version is a label of a constant 1."""
    metrics = Metrics(version="1.2.3", wall_seconds=lambda: NOW)
    assert _value(metrics, "replicad_ready") == 0
    metrics.ready = lambda: True
    assert _value(metrics, "replicad_ready") == 1
    (sample,) = _families(metrics)["replicad_build_info"].samples
    assert sample.labels["version"] == "1.2.3"
    assert _value(metrics, "replicad_start_timestamp_seconds") == NOW


def test_a_name_with_quotes_is_escaped() -> None:
    """A database's name can hold whatever a file's name can."""
    name = 'a "quoted"\\ name'
    metrics = Metrics(version="1", wall_seconds=lambda: NOW)
    metrics.for_database(name).durable_txid = 5
    assert _value(metrics, "replicad_durable_txid", database=name) == 5


def test_openmetrics_is_served_to_those_who_ask() -> None:
    """With Prometheus' own Accept header the answer is OpenMetrics, and is well-formed."""
    body, content_type = _metrics().render("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert content_type.startswith("application/openmetrics-text")
    assert len(list(parse_openmetrics(body.decode()))) > 40  # type: ignore[no-untyped-call]


def test_the_client_library_is_loaded_by_the_first_scrape() -> None:
    """A daemon that nobody scrapes does not pay for the client library.

    Seen to fail with the exposition imported at the head of the module.
    """
    code = (
        "import sys, replicad.observe.metrics as m\n"
        "metrics = m.Metrics(version='1', wall_seconds=float)\n"
        "metrics.for_database('x')\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "assert b'replicad_durable_txid' in metrics.render()[0]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
