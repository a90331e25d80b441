"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

from replicad.host.clock import SystemClock


class ManualClock:
    """Wall and monotonic time under the test's control; implements `replicad.host.clock.Clock`.

    Args:
        now_ms: wall time at the start, Unix milliseconds, UTC.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = float(now_ms)
        self._monotonic = 1_000.0

    def now_ms(self) -> int:
        """Return the wall time, Unix milliseconds, UTC."""
        return int(self._now_ms)

    def monotonic(self) -> float:
        """Return seconds since an arbitrary instant; never less than before."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time go by, on both clocks."""
        if seconds < 0:
            message = f"time does not go back by {-seconds:g} s; to turn the wall clock use turn_wall"
            raise ValueError(message)
        self._monotonic += seconds
        self._now_ms += seconds * 1_000

    def turn_wall(self, seconds: float) -> None:
        """Set the wall clock forwards or (negative) backwards, as NTP or an operator does."""
        self._now_ms += seconds * 1_000


class TurnedClock:
    """The machine's own clock, whose wall time the test has turned forwards or back."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._turned_ms = 0

    def now_ms(self) -> int:
        """Return the wall time as it was turned, Unix milliseconds, UTC."""
        return self._clock.now_ms() + self._turned_ms

    def monotonic(self) -> float:
        """Return seconds since an arbitrary instant; never less than before."""
        return self._clock.monotonic()

    def turn_wall(self, seconds: float) -> None:
        """Set the wall clock forwards or (negative) backwards."""
        self._turned_ms += round(seconds * 1000)
