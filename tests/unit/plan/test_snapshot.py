from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from replicad.plan.snapshot import (
    FEW_SEGMENTS,
    FLOOR_BYTES,
    NO_SNAPSHOT,
    SEGMENT_WEIGHT_BYTES,
    LogSince,
    SnapshotLimits,
    SnapshotSize,
    due,
)

DAY = SnapshotLimits(interval_seconds=86_400, log_ratio=1.0)
MIB = 1 << 20
GIB = 1 << 30
LARGE = SnapshotSize(stored_bytes=GIB, image_bytes=2 * GIB, chunk_bytes=4 * MIB)
SMALL = SnapshotSize(stored_bytes=4 * MIB, image_bytes=10 * MIB, chunk_bytes=MIB)


def since(segments: int, stored_bytes: int, seconds: float = 0.0) -> LogSince:
    """Return a log."""
    return LogSince(segments=segments, stored_bytes=stored_bytes, seconds=seconds)


def test_a_log_that_outweighs_the_database() -> None:
    """A snapshot is due when the log outweighs the database as stored: a restore reads about twice that at most."""
    assert due(since(10, GIB), newest=LARGE, written_extents=512, limits=DAY) is None
    assert due(since(10, GIB + 1), newest=LARGE, written_extents=512, limits=DAY) == "log_outweighs_snapshot"
    half = replace(DAY, log_ratio=0.5)
    assert due(since(10, GIB // 2 + 1), newest=LARGE, written_extents=512, limits=half) == "log_outweighs_snapshot"


def test_a_small_log_is_never_too_heavy() -> None:
    """Of a small database, a log is read in no time: it is not followed by snapshots at every turn."""
    for size in (NO_SNAPSHOT, SMALL):
        assert due(since(2, FLOOR_BYTES), newest=size, written_extents=9, limits=DAY) is None
        assert due(since(2, FLOOR_BYTES + 1), newest=size, written_extents=9, limits=DAY) == "log_outweighs_snapshot"


def test_many_small_segments() -> None:
    """Segments so many that their requests take long make a snapshot due, though their bytes are few."""
    paid = SMALL.next_bytes(2)
    assert due(since(FEW_SEGMENTS, paid), newest=SMALL, written_extents=2, limits=DAY) is None
    assert due(since(FEW_SEGMENTS + 1, paid), newest=SMALL, written_extents=2, limits=DAY) == "many_segments"


def test_many_small_segments_beside_a_large_snapshot() -> None:
    """Segments whose requests take no longer than the snapshot itself make none due."""
    as_long = GIB // SEGMENT_WEIGHT_BYTES
    assert as_long > FEW_SEGMENTS
    assert due(since(as_long, GIB), newest=LARGE, written_extents=1, limits=DAY) is None
    assert due(since(as_long + 1, GIB), newest=LARGE, written_extents=1, limits=DAY) == "many_segments"


def test_many_small_segments_that_would_not_pay() -> None:
    """A snapshot is not taken for the number of segments as long as it would send more than they did.

    One page in each extent of a gigabyte is a few bytes of log, and the whole database as a snapshot. Seen to fail
    without the comparison: a database of which any page may be written to was sent again every hour.
    """
    everywhere = 2 * GIB // MIB
    assert due(since(10**6, GIB - 1), newest=LARGE, written_extents=everywhere, limits=DAY) is None
    assert LARGE.next_bytes(everywhere) > GIB - 1


def test_what_the_next_one_will_send() -> None:
    """A written extent costs a chunk, compressed as the newest snapshot was; of an empty one, not at all."""
    assert SMALL.next_bytes(3) == 3 * 4 * MIB // 10
    assert SnapshotSize(stored_bytes=0, image_bytes=0, chunk_bytes=MIB).next_bytes(3) == 3 * MIB
    assert SMALL.next_bytes(0) == 0


def test_the_interval() -> None:
    """After the interval a changed database is due, and one that did not change never is."""
    assert due(since(1, 1, 86_399), newest=LARGE, written_extents=1, limits=DAY) is None
    assert due(since(1, 1, 86_400), newest=LARGE, written_extents=1, limits=DAY) == "interval"
    assert due(since(0, 0, 1e9), newest=LARGE, written_extents=0, limits=DAY) is None


@given(segments=st.integers(0, 10**6), stored=st.integers(0, 1 << 40), snapshot=st.integers(0, 1 << 40))
def test_what_a_restore_reads_is_bounded(segments: int, stored: int, snapshot: int) -> None:
    """As long as no snapshot is due, the log has no more bytes than the database, or than what is read in no time."""
    newest = SnapshotSize(stored_bytes=snapshot, image_bytes=2 * snapshot, chunk_bytes=MIB)
    if segments and due(since(segments, stored), newest=newest, written_extents=1, limits=DAY) is None:
        assert stored <= max(snapshot, FLOOR_BYTES)


@given(
    segment_bytes=st.lists(st.integers(300, 8 * MIB), min_size=1, max_size=4),
    extents_each=st.integers(1, 64),
    newest=st.sampled_from((SMALL, LARGE)),
)
def test_snapshots_for_many_segments_double_what_is_sent_at_most(
    segment_bytes: list[int], extents_each: int, newest: SnapshotSize
) -> None:
    """However small segments are and wherever they write, snapshots for their number send no more than they did."""
    log_bytes = snapshot_bytes = segments = stored_bytes = written = 0
    extents = newest.image_bytes // MIB
    for number in range(3 * FEW_SEGMENTS):
        size = segment_bytes[number % len(segment_bytes)]
        segments, stored_bytes, log_bytes = segments + 1, stored_bytes + size, log_bytes + size
        written = min(extents, written + extents_each)
        reason = due(since(segments, stored_bytes), newest=newest, written_extents=written, limits=DAY)
        if reason == "many_segments":
            snapshot_bytes += newest.next_bytes(written)
            assert segments > FEW_SEGMENTS
        if reason is not None:
            segments = stored_bytes = written = 0
    assert snapshot_bytes <= log_bytes
