from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.plan.snapshot import FLOOR_BYTES, SEGMENT_WEIGHT_BYTES, LogSince, SnapshotLimits, due

DAY = SnapshotLimits(interval_seconds=86_400, log_ratio=1.0)
GIB = 1 << 30


def since(segments: int, stored_bytes: int, seconds: float = 0.0) -> LogSince:
    """Return a log."""
    return LogSince(segments=segments, stored_bytes=stored_bytes, seconds=seconds)


def test_a_log_that_outweighs_the_database() -> None:
    """A snapshot is due when the log outweighs the database as stored: a restore reads about twice that at most."""
    assert due(since(10, GIB), snapshot_stored_bytes=GIB, limits=DAY) is None
    assert due(since(10, GIB + 1), snapshot_stored_bytes=GIB, limits=DAY) == "log_outweighs_snapshot"
    half = SnapshotLimits(interval_seconds=86_400, log_ratio=0.5)
    assert due(since(10, GIB // 2 + 1), snapshot_stored_bytes=GIB, limits=half) == "log_outweighs_snapshot"


def test_a_small_log_is_never_too_heavy() -> None:
    """Of a small database, a log is read in no time: it is not followed by snapshots at every turn."""
    assert due(since(2, FLOOR_BYTES), snapshot_stored_bytes=100, limits=DAY) is None
    assert due(since(2, FLOOR_BYTES + 1), snapshot_stored_bytes=100, limits=DAY) == "log_outweighs_snapshot"


def test_many_small_segments_weigh_what_their_requests_cost() -> None:
    """A day of one small segment a second is too long a log, though its bytes are few."""
    few = FLOOR_BYTES // SEGMENT_WEIGHT_BYTES
    assert due(since(few, few), snapshot_stored_bytes=100, limits=DAY) is None
    assert due(since(few + 1, few), snapshot_stored_bytes=100, limits=DAY) == "log_outweighs_snapshot"


def test_the_interval() -> None:
    """After the interval a changed database is due, and one that did not change never is."""
    assert due(since(1, 1, 86_399), snapshot_stored_bytes=GIB, limits=DAY) is None
    assert due(since(1, 1, 86_400), snapshot_stored_bytes=GIB, limits=DAY) == "interval"
    assert due(since(0, 0, 1e9), snapshot_stored_bytes=GIB, limits=DAY) is None


@given(segments=st.integers(0, 10**6), stored=st.integers(0, 1 << 40), snapshot=st.integers(0, 1 << 40))
def test_what_a_restore_reads_is_bounded(segments: int, stored: int, snapshot: int) -> None:
    """As long as no snapshot is due, the log weighs no more than the database, or than what is read in no time."""
    if segments and due(since(segments, stored), snapshot_stored_bytes=snapshot, limits=DAY) is None:
        assert max(stored, segments * SEGMENT_WEIGHT_BYTES) <= max(snapshot, FLOOR_BYTES)
