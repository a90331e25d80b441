"""How often something is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.plan.pace import Pace

gaps = st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=60)


@given(gaps, st.sampled_from([0.0, 0.25, 1.0]))
def test_no_more_than_one_an_interval(gaps: list[float], interval_seconds: float) -> None:
    """Whatever wants to be sent, and when: in any stretch of time there is one thing an interval, and two more."""
    pace, now, sent = Pace(interval_seconds), 100.0, list[float]()
    for gap in gaps:
        now = max(now + gap, pace.due_at)
        pace.spend(now)
        sent.append(now)
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            allowed = (sent[last] - sent[first] + 1e-6) / interval_seconds + 2 if interval_seconds else len(sent)
            assert last - first + 1 <= allowed


@given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=60))
def test_a_rhythm_is_not_held_up(jitters: list[float]) -> None:
    """What comes once an interval, a little early or late, does not wait. Seen to fail without the leave saved up."""
    pace = Pace(1.0)
    for number, jitter in enumerate(jitters):
        now = 100.0 + number + jitter
        assert pace.due_at <= now
        pace.spend(now)


@given(st.integers(1, 100))
def test_what_is_sent_in_a_hurry_puts_off_one_interval(times: int) -> None:
    """However much was sent before it was due, the wait behind it is one interval."""
    pace = Pace(1.0)
    for _ in range(times):
        pace.spend(100.0)
    assert pace.due_at <= 101.0
