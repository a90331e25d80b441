"""Wait for a condition instead of for time: every wait has a deadline, none has a fixed length."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

DEADLINE_SECONDS = 10.0
"""Far beyond what a passing test needs, so that a machine under load does not fail one."""

_LOOK_AGAIN_SECONDS = 0.005


def wait_until(condition: Callable[[], T], deadline_seconds: float = DEADLINE_SECONDS) -> T:
    """Return the first true value of `condition`, called over and over in this thread.

    Raises:
        TimeoutError: the condition was still false at the deadline; the message quotes it.
        RuntimeError: called on an event loop, which it would block; use `wait_until_async`.
    """
    if _on_event_loop():
        message = "wait_until would block the event loop: await wait_until_async(...) instead"
        raise RuntimeError(message)
    deadline = time.monotonic() + deadline_seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(_complaint(condition, deadline_seconds, found))
        time.sleep(_LOOK_AGAIN_SECONDS)
    return found


async def wait_until_async(condition: Callable[[], T | Awaitable[T]], deadline_seconds: float = DEADLINE_SECONDS) -> T:
    """Return the first true value of `condition` (a function or a coroutine function); the loop goes on running.

    Raises:
        TimeoutError: the condition was still false at the deadline; the message quotes it.
    """
    deadline = time.monotonic() + deadline_seconds
    while True:
        answer = condition()
        found: T = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(_complaint(condition, deadline_seconds, found))
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _complaint(condition: Callable[[], object], deadline_seconds: float, found: object) -> str:
    try:
        source = inspect.getsource(condition).strip()
    except (OSError, TypeError):
        source = repr(condition)
    return f"still {found!r} after {deadline_seconds:g} s: {source}"
