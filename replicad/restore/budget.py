"""Memory for what is in flight: taken before a request is made, given back when its bytes are written."""

from __future__ import annotations

import asyncio


class MemoryBudget:
    """A number of bytes that is shared first come, first served; lives on one event loop.

    Whoever holds some must be able to finish without taking more from the same budget.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self._turn = asyncio.Lock()  # one waits for room at a time, so that a large one is not overtaken for ever
        self._freed = asyncio.Event()

    async def take(self, n_bytes: int) -> int:
        """Wait until there is room, take it, and return how much to give back.

        What asks for more than the whole budget gets all of it, alone.
        """
        n_bytes = min(n_bytes, self.limit_bytes)
        async with self._turn:
            while self.used_bytes + n_bytes > self.limit_bytes:
                self._freed.clear()
                await self._freed.wait()
            self.used_bytes += n_bytes
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Return what `take` gave."""
        self.used_bytes -= n_bytes
        self._freed.set()
