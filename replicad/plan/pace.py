"""How often something is sent: once an interval, with one interval's leave saved up.

Without it a commit that comes a little before its time, in a rhythm of one an interval, would have to wait, and every
later one as long as it.
"""

from __future__ import annotations


class Pace:
    """When the next thing may be sent; times are seconds of one monotonic clock."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self.due_at = float("-inf")

    def spend(self, now: float) -> None:
        """Take note that something is sent now, whether it was due or not."""
        saved_up = now - self._interval_seconds
        self.due_at = min(max(self.due_at, saved_up) + self._interval_seconds, now + self._interval_seconds)
