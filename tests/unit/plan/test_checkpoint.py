from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from replicad.plan.checkpoint import Checkpoint, CheckpointLimits, WALState, decide

LIMITS = CheckpointLimits(room_bytes=1 << 20, room_interval_seconds=0.15, idle_seconds=1.0, shrink_factor=4)
BUSY = WALState(
    frames=10, backfilled=0, page_size=4096, file_bytes=50_000, idle_seconds=0.0, since_room_seconds=float("inf")
)
MANY = (1 << 20) // 4096


def test_a_small_wal_is_left_alone_while_it_is_written() -> None:
    """Below the limit nothing is done about a WAL that somebody writes to."""
    assert decide(BUSY, LIMITS) is None
    assert decide(replace(BUSY, frames=MANY - 1), LIMITS) is None


def test_room_is_made_at_the_limit() -> None:
    """At the limit room is made, whatever of the WAL is copied already: only a reset gives its space back."""
    assert decide(replace(BUSY, frames=MANY), LIMITS) is Checkpoint.ROOM
    assert decide(replace(BUSY, frames=MANY, backfilled=MANY), LIMITS) is Checkpoint.ROOM


def test_an_attempt_is_not_repeated_at_once() -> None:
    """After an attempt, also one that a busy writer won, there is a pause."""
    assert decide(replace(BUSY, frames=MANY, since_room_seconds=0.1), LIMITS) is None
    assert decide(replace(BUSY, frames=MANY, since_room_seconds=0.15), LIMITS) is Checkpoint.ROOM


def test_an_idle_database_is_brought_to_rest() -> None:
    """What is left when nobody writes is copied, so that an application's own TRUNCATE succeeds at once."""
    assert decide(replace(BUSY, idle_seconds=1.0), LIMITS) is Checkpoint.REST
    assert decide(replace(BUSY, idle_seconds=1.0, backfilled=10), LIMITS) is None


def test_the_space_of_a_burst_is_given_back() -> None:
    """A file several times the limit is truncated, but only at rest, when nothing can be lost by it."""
    burst = replace(BUSY, file_bytes=4 << 20)
    assert decide(replace(burst, idle_seconds=1.0, backfilled=10), LIMITS) is Checkpoint.SHRINK
    assert decide(burst, LIMITS) is None
    assert decide(replace(burst, idle_seconds=1.0), LIMITS) is Checkpoint.REST


@given(
    frames=st.integers(0, 10_000),
    copied=st.integers(0, 10_000),
    file_bytes=st.integers(0, 1 << 30),
    idle_seconds=st.floats(0, 10),
    since_room_seconds=st.floats(0, 10),
)
def test_a_wal_is_shortened_only_at_rest(
    frames: int, copied: int, file_bytes: int, idle_seconds: float, since_room_seconds: float
) -> None:
    """Whatever is measured: SHRINK only when all is copied and nobody writes, ROOM only above the limit."""
    state = WALState(
        frames=frames,
        backfilled=min(frames, copied),
        page_size=4096,
        file_bytes=file_bytes,
        idle_seconds=idle_seconds,
        since_room_seconds=since_room_seconds,
    )
    what = decide(state, LIMITS)
    if what is Checkpoint.SHRINK:
        assert state.frames == state.backfilled
        assert idle_seconds >= 1.0
    if what is Checkpoint.ROOM:
        assert frames * 4096 >= LIMITS.room_bytes
    if since_room_seconds < LIMITS.room_interval_seconds:
        assert what is None
