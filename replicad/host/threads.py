"""Blocking work off the event loop: a fixed number of named threads, and no work without somebody waiting for it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def _step_back(niceness: int) -> None:
    """Lower the priority of this thread alone: on Linux, niceness belongs to a thread."""
    if niceness:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class Threads:
    """A bounded pool of threads for one event loop.

    Calls beyond its size wait on the loop, first come first served, so nothing queues up inside the pool.

    Args:
        name: what the threads are called in a debugger or profiler: `replicad-<name>_<n>`.
        size: how many calls run at once, at least 1.
        niceness: how far the threads step back behind other work on the machine, 0 to 19.
    """

    def __init__(self, name: str, size: int, *, niceness: int = 0) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(
            size,
            thread_name_prefix=f"replicad-{name}",
            initializer=partial(_step_back, niceness),
        )
        self._free = asyncio.Semaphore(size)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a thread, in the caller's context variables, and return what it returns.

        A cancelled caller does not get away while the function runs: it is held until the function has
        ended, and raises CancelledError then (with the function's own error, if any, as its cause). Otherwise
        the caller would go on to close a connection or a file that the thread is still using. So the function
        must end by itself; give it a timeout of its own. While all threads are taken, cancelling works at once.

        Raises:
            RuntimeError: the pool is closed.
            Exception: whatever the function raises.
        """
        async with self._free:
            context = contextvars.copy_context()
            future = asyncio.wrap_future(self._pool.submit(lambda: context.run(function, *args, **kwargs)))
            cancelled: asyncio.CancelledError | None = None
            while not future.done():
                try:
                    # asyncio.wait, unlike await, leaves the future alone when the waiter is cancelled
                    await asyncio.wait([future])
                except asyncio.CancelledError as error:
                    cancelled = error
            if cancelled is not None:
                raise cancelled from future.exception()
            return future.result()

    async def close(self) -> None:
        """End the threads once the calls that run have ended; further calls fail. Safe to repeat."""
        await asyncio.to_thread(self._pool.shutdown)
