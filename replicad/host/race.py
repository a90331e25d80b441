"""Waiting for what comes first, with nothing left running behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


async def race(step: Coroutine[None, None, T], *others: Coroutine[None, None, object]) -> asyncio.Future[T] | None:
    """Run a step until it ends, or one of the others does.

    Returns:
        The step, ended, whose result or error the caller takes; None when another one came first. Whoever has not
        ended is cancelled, and has ended when this returns.
    """
    running = asyncio.ensure_future(step)
    everybody: list[asyncio.Future[object]] = [running, *map(asyncio.ensure_future, others)]  # type: ignore[list-item]
    try:
        await asyncio.wait(everybody, return_when=asyncio.FIRST_COMPLETED)
        return running if running.done() else None
    finally:
        for each in everybody:
            each.cancel()
        await asyncio.gather(*everybody, return_exceptions=True)
