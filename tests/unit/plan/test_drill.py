from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.plan.drill import FIRST_SECONDS, LastDrill, due_in_seconds, needs_snapshot

HOUR_MS = 3_600_000
DAY = 86_400.0


@pytest.mark.parametrize(
    ("last", "now_ms", "expected"),
    [
        (None, 0, FIRST_SECONDS),
        (LastDrill(at_ms=0, ran=True), 0, DAY),
        (LastDrill(at_ms=0, ran=True), 20 * HOUR_MS, 4 * 3600.0),
        (LastDrill(at_ms=0, ran=True), 100 * HOUR_MS, 0.0),
        (LastDrill(at_ms=0, ran=False), 0, FIRST_SECONDS),
        (LastDrill(at_ms=50 * HOUR_MS, ran=True), 0, DAY),  # the clock went back
    ],
)
def test_when_it_is_due(last: LastDrill | None, now_ms: int, expected: float) -> None:
    """An interval after the last one; within the hour when none is known, or when the last one could not be run."""
    assert due_in_seconds(last, interval_seconds=DAY, now_ms=now_ms) == expected


@given(
    interval_seconds=st.floats(0.1, 365 * DAY),
    at_ms=st.integers(0, 1 << 50),
    now_ms=st.integers(0, 1 << 50),
    ran=st.booleans(),
)
def test_never_longer_than_the_interval(*, interval_seconds: float, at_ms: int, now_ms: int, ran: bool) -> None:
    """However the clock jumps, the next drill is at most an interval away, and never in the past."""
    last = LastDrill(at_ms=at_ms, ran=ran)
    assert 0.0 <= due_in_seconds(last, interval_seconds=interval_seconds, now_ms=now_ms) <= interval_seconds


def test_when_a_snapshot_is_taken() -> None:
    """For a state that cannot be restored always; for faulty objects once."""
    assert needs_snapshot(restored=False, faulty=frozenset(), known=frozenset())
    assert needs_snapshot(restored=True, faulty={"a"}, known=frozenset())
    assert needs_snapshot(restored=True, faulty={"a", "b"}, known={"a"})
    assert not needs_snapshot(restored=True, faulty={"a"}, known={"a", "b"})
    assert not needs_snapshot(restored=True, faulty=frozenset(), known=frozenset())
