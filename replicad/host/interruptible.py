"""Long work in a thread that ends early when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.host.threads import Threads

T = TypeVar("T")


class Interrupted(Exception):
    """The caller was cancelled."""


async def interruptible(threads: Threads, function: Callable[[threading.Event], T]) -> T:
    """Call a long function in a thread; when the caller is cancelled, have it stop and wait until it has.

    Args:
        threads: where it runs.
        function: is given an event, looks at it now and then, and raises `Interrupted` when it is set.
    """
    stop = threading.Event()
    running = asyncio.ensure_future(threads.run(function, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen, and of no interest: the caller has gone
        raise
