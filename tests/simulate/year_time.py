"""A year that passes as fast as its work is done: one thread, one clock, made of the event loop's timers.

What the product does in threads is done where it is called, so nothing is ever under way when the clock jumps to the
next timer, and a seed gives the same year each time. That files are flushed is not waited for: no power is lost here.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from unittest.mock import patch

from replicad.host.threads import Threads
from replicad.host.watcher import Watch, Watcher
from tests.support.virtual_time import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")

HOUR_SECONDS = 3600.0
DAY_SECONDS = 24 * HOUR_SECONDS
BEGIN_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


class YearClock:
    """The running loop's time, from the first of January on; implements `replicad.host.clock.Clock`."""

    def now_ms(self) -> int:
        """Return Unix milliseconds, UTC."""
        return BEGIN_MS + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        """Return the loop's seconds."""
        return asyncio.get_running_loop().time()


class _YearLoop(VirtualLoop):
    """A loop in virtual time that does in itself what it is asked to do in a thread."""

    def __init__(self) -> None:
        super().__init__()
        # Half a year in seconds has no room for the nanosecond by which a timer has to lie ahead: it would never fire.
        self._clock_resolution = 1e-6

    def run_in_executor(
        self,
        executor: object,  # noqa: ARG002 - there is none
        func: Callable[..., T],
        *args: object,
    ) -> asyncio.Future[T]:
        """Call at once."""
        future: asyncio.Future[T] = self.create_future()
        future.set_result(func(*args))
        return future


async def _run_here(self: Threads, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Take the place of `Threads.run`: others have their turn first, as with a thread."""
    del self
    await asyncio.sleep(0)
    return function(*args, **kwargs)


class OwnWatch(Watch):
    """Is told by the simulated application that it wrote, instead of by the kernel."""

    def __init__(self, watches: set[OwnWatch], changed: asyncio.Event) -> None:
        self._watches = watches
        self._changed = changed
        self.armed = False

    def arm(self) -> bool:
        """Have the next change set the event, once."""
        self.armed = True
        self._watches.add(self)
        return True

    def disarm(self) -> None:
        """Ask for no more events."""
        self.armed = False
        self._watches.discard(self)


class OwnWatcher(Watcher):
    """Passes on that the application wrote; without the kernel's descriptor and the thread that reads it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._watches: set[OwnWatch] = set()

    def watch(self, folder: Path, names: Iterable[str], changed: asyncio.Event) -> Watch:
        """Return a watch, disarmed; there is one database only."""
        del folder, names
        return OwnWatch(self._watches, changed)

    def written(self) -> None:
        """Say that the database was written to."""
        for watch in list(self._watches):
            watch.fire()


@contextmanager
def _in_one_thread() -> Iterator[None]:
    with patch.object(Threads, "run", _run_here), patch.object(os, "fsync"), patch.object(os, "fdatasync"):
        yield


def in_a_year(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in time of its own."""
    with _in_one_thread(), asyncio.Runner(loop_factory=_YearLoop) as runner:
        return runner.run(main)
