from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.wal import Observations

LOOKS = st.lists(st.tuples(st.integers(1, 50), st.integers(-5_000, 5_000)), min_size=1, max_size=60)
"""Between two looks: so many frames more, and so many ms on a clock that may be set back."""


def seen(looks: list[tuple[int, int]], *, limit: int = 4096) -> tuple[Observations, list[tuple[int, int]]]:
    """Return the marks of a series of looks, and (frames, ms) as they were given."""
    observations, given_marks = Observations(limit=limit), []
    frames, ms = 0, 1_000_000
    for more, passed in looks:
        frames, ms = frames + more, ms + passed
        observations.see(frames, ms)
        given_marks.append((frames, ms))
    return observations, given_marks


def test_a_frame_has_the_time_of_the_first_look_that_saw_it() -> None:
    """A commit is as old as the first look at the index that counted its frames, not the last, nor the reading."""
    observations = Observations()
    observations.see(3, 1000)
    observations.see(3, 1500)  # nothing new: the frames are no younger for it
    observations.see(5, 2000)
    observations.see(5, 9000)
    assert [observations.time_ms(frame) for frame in range(1, 6)] == [1000, 1000, 1000, 2000, 2000]
    assert observations.oldest_ms() == 1000


def test_a_frame_nobody_saw_has_the_time_of_the_last_look() -> None:
    """A frame read before it was counted gets the newest time there is."""
    observations = Observations()
    observations.see(3, 1000)
    observations.see(3, 1500)
    assert observations.time_ms(4) == 1500


def test_the_clock_jumps_back() -> None:
    """TRAP: the wall clock is set back by an hour, and no commit is older than one before it.

    Seen to fail with the time of the look taken as it is.
    """
    observations = Observations()
    observations.see(1, 10_000_000)
    observations.see(2, 10_000_000 - 3_600_000)
    observations.see(3, 10_000_500)
    assert [observations.time_ms(frame) for frame in (1, 2, 3)] == [10_000_000, 10_000_000, 10_000_500]


def test_a_reset_forgets_numbers_and_keeps_time() -> None:
    """After a reset of the WAL frames count from 1 again; time does not."""
    observations = Observations()
    observations.see(100, 5000)
    observations.restart()
    assert observations.oldest_ms() is None
    observations.see(1, 4000)
    assert observations.time_ms(1) == 5000
    observations.see(2, 6000)
    assert observations.time_ms(2) == 6000


def test_what_was_read_is_forgotten() -> None:
    """The oldest mark is that of the oldest frame that was not read: it is the age of what waits."""
    observations = Observations()
    for frames in (2, 4, 6):
        observations.see(frames, frames * 1000)
    observations.drop_through(3)
    assert observations.oldest_ms() == 4000, "frame 4 was not read"
    observations.drop_through(4)
    assert observations.oldest_ms() == 6000
    assert observations.time_ms(5) == 6000
    observations.drop_through(6)
    assert observations.oldest_ms() is None


def test_looks_that_find_nothing_cost_nothing() -> None:
    """An outage in which nobody writes is looked at thousands of times, and no time that is known gets coarser for it.

    Seen to fail with every look noted.
    """
    observations = Observations(limit=4)
    for frames in (1, 2, 3):
        observations.see(frames, frames * 1000)
    for moment in range(100):
        observations.see(3, 4000 + moment)
    assert [observations.time_ms(frame) for frame in (1, 2, 3)] == [1000, 2000, 3000]


@given(LOOKS)
def test_times_never_go_back(looks: list[tuple[int, int]]) -> None:
    """Whatever the clock does, a later frame's time is not earlier, and no time was never on the clock."""
    observations, marks = seen(looks)
    times = [observations.time_ms(frame) for frame in range(1, marks[-1][0] + 1)]
    assert times == sorted(times)
    assert set(times) <= {ms for _, ms in marks}


@given(LOOKS, st.integers(2, 8))
def test_memory_is_bounded_and_no_frame_left_without_a_time(looks: list[tuple[int, int]], limit: int) -> None:
    """With few marks a time is that of a later look, never of an earlier one, and the two newest looks' are exact.

    Seen to fail with the marks thinned out from the front: the newest went, and its frames got the next look's time.
    """
    exact, marks = seen(looks)
    bounded, _ = seen(looks, limit=limit)
    last = marks[-1][0]
    for frame in range(1, last + 1):
        assert exact.time_ms(frame) <= bounded.time_ms(frame)
    for frames, _ in marks[-2:]:
        assert bounded.time_ms(frames) == exact.time_ms(frames)
    distinct = {bounded.time_ms(frame) for frame in range(1, last + 1)}
    assert len(distinct) <= limit


@given(LOOKS)
def test_many_times_at_once(looks: list[tuple[int, int]]) -> None:
    """Asked for many frames at once, each has the time it has alone."""
    observations, marks = seen(looks)
    frames = list(range(1, marks[-1][0] + 2))
    assert observations.times_ms(frames) == [observations.time_ms(frame) for frame in frames]
