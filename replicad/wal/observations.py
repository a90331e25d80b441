"""When commits were seen, for frames that are read later.

A commit's time is the moment its frames were first seen in the WAL's index. While the store is away
nothing is read, but the index is still looked at; these marks keep the times of what piles up. Their
number is bounded: when it is reached, every second mark goes, and a time becomes the next later mark's.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Observations:
    """(committed frames, Unix ms) pairs of one WAL, both never going backwards."""

    def __init__(self, *, limit: int = 4096) -> None:
        self._limit = limit
        self._frames: list[int] = []
        self._times_ms: list[int] = []
        self._latest_ms = 0

    def see(self, frames: int, now_ms: int) -> None:
        """Note that this many frames were committed at this moment."""
        self._latest_ms = max(self._latest_ms, now_ms)  # the wall clock may jump back, commit times never do
        if self._frames and frames <= self._frames[-1]:
            return
        if len(self._frames) >= self._limit:
            # From the back, so that the newest mark stays: no frame may be left without a time.
            self._frames = self._frames[::-2][::-1]
            self._times_ms = self._times_ms[::-2][::-1]
        self._frames.append(frames)
        self._times_ms.append(self._latest_ms)

    def time_ms(self, frame: int) -> int:
        """Return when this frame was first seen to be committed, Unix ms."""
        number = bisect_left(self._frames, frame)
        return self._times_ms[number] if number < len(self._times_ms) else self._latest_ms

    def times_ms(self, frames: Sequence[int]) -> list[int]:
        """Return when each of these frames, in rising order, was first seen to be committed, Unix ms."""
        first, last = self.time_ms(frames[0]), self.time_ms(frames[-1])
        return [first] * len(frames) if first == last else [self.time_ms(frame) for frame in frames]

    def restart(self) -> None:
        """Forget the frame numbers: the WAL was reset. Time still never goes backwards."""
        self._frames.clear()
        self._times_ms.clear()

    def drop_through(self, frame: int) -> None:
        """Forget the marks of frames that have been read."""
        number = bisect_left(self._frames, frame + 1)
        del self._frames[:number]
        del self._times_ms[:number]

    def oldest_ms(self) -> int | None:
        """Return the time of the oldest mark, or None when there is none."""
        return self._times_ms[0] if self._times_ms else None
