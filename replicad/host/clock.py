"""The one place that reads the time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is, twice: for people and for arithmetic."""

    def now_ms(self) -> int:
        """Return the wall time, Unix milliseconds, UTC. It may jump, backwards too."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary instant; never less than before."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return the wall time, Unix milliseconds, UTC. It may jump, backwards too."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds since an arbitrary instant; never less than before."""
        return time.monotonic()
