"""An event loop on which nobody waits: when nothing is left to do, its clock jumps to the next timer.

    with_virtual_time(main())    # what sleeps for hours is done in a moment

Only for coroutines that use neither sockets nor threads. Its `monotonic` is the loop's time.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is made of its timers."""

    _scheduled: list[asyncio.TimerHandle]
    _ready: Any

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0

    def time(self) -> float:
        """Return seconds since the loop was made."""
        return self._seconds

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not self._ready and self._scheduled:
            self._seconds = max(self._seconds, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc] # asyncio's own, which its types do not show


class LoopClock:
    """The running loop's time; implements `replicad.host.clock.Clock`."""

    def now_ms(self) -> int:
        """Return Unix milliseconds, from an arbitrary day on."""
        return 1_700_000_000_000 + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        """Return the loop's seconds."""
        return asyncio.get_running_loop().time()


def with_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
