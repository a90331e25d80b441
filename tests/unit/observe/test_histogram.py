from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.observe.histogram import STALL_SECONDS, Histogram


@given(st.lists(st.floats(0, 100)))
def test_buckets_count_what_is_not_above_them(values: list[float]) -> None:
    """Each bucket holds the observations up to its bound, the last one all of them."""
    histogram = Histogram(STALL_SECONDS)
    for value in values:
        histogram.observe(value)
    rows = histogram.cumulative()
    assert [float(bound) for bound, _ in rows] == [*STALL_SECONDS, float("inf")]
    for bound, count in rows:
        assert count == sum(value <= float(bound) for value in values)
    assert histogram.count == len(values)
    assert histogram.total == sum(values)
