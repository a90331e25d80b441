"""Tasks that belong to one caller: all end before it goes on, and the first error comes out as itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable

T = TypeVar("T")


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Open a group of tasks that raises its first task's error, not a group of errors that callers must search.

    Raises:
        BaseException: what the first failed task raised; the others were cancelled, and what they raised is its note.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        first, *others = _leaves(errors)
        for other in {id(other): other for other in others if other is not first}.values():
            first.add_note(f"and at the same time: {other!r}")
        raise first from first.__cause__


async def gather_bounded(functions: Iterable[Callable[[], Coroutine[object, object, T]]], limit: int) -> list[T]:
    """Return what the functions return when awaited, in order, with at most `limit` of them running at once."""
    room = asyncio.Semaphore(limit)

    async def run(function: Callable[[], Coroutine[object, object, T]]) -> T:
        async with room:
            return await function()

    async with task_group() as group:
        tasks = [group.create_task(run(function)) for function in functions]
    return [task.result() for task in tasks]


async def apart(work: Coroutine[object, object, T]) -> T:
    """Return what `work` returns, awaited in a task of its own, so that the caller's cancellation is never lost.

    Before Python 3.13 a TaskGroup that is cancelled in the moment in which one of its tasks fails raises that error
    alone. Who goes on after errors would go on for ever.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,))
    finally:
        task.cancel()
        await asyncio.wait((task,))
    return task.result()


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in errors.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
