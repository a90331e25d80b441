"""Tasks that belong to one caller."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from functools import partial

import pytest

from replicad.errors import Damaged, ObjectMissing
from replicad.restore.together import apart, gather_bounded, task_group


async def test_the_first_error_comes_out_as_itself() -> None:
    """A failed task's own error is raised, the others are cancelled, and a second error is noted on it."""
    cancelled = asyncio.Event()

    async def fail(error: Exception) -> None:
        raise error

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def run() -> None:
        async with task_group() as group:
            group.create_task(stay())
            await asyncio.sleep(0)
            group.create_task(fail(ObjectMissing(key="a", store="s")))
            group.create_task(fail(Damaged(what="b", where="w", expected=1, found=2)))

    with pytest.raises(ObjectMissing) as caught:
        await run()
    assert cancelled.is_set()
    assert "Damaged" in caught.value.__notes__[0]


async def test_an_error_that_the_body_waited_for_is_told_once() -> None:
    """When the body itself awaits the task that fails, its error is raised without a note about itself."""

    async def fail() -> None:
        raise ObjectMissing(key="a", store="s")

    with pytest.raises(ObjectMissing) as caught:
        async with task_group() as group:
            await group.create_task(fail())
    assert not getattr(caught.value, "__notes__", [])


async def test_results_come_in_order_and_few_run_at_once() -> None:
    """`gather_bounded` returns results in the order given and never runs more than its limit."""
    running = 0
    most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    assert await gather_bounded((partial(work, number) for number in range(20)), 3) == list(range(20))
    assert most == 3


async def test_what_never_began_is_not_missed() -> None:
    """When one fails, those that still wait for their turn are never begun, and nobody warns about them."""
    begun = []

    async def fail(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0)
        raise ObjectMissing(key=str(number), store="s")

    with pytest.raises(ObjectMissing):
        await gather_bounded((partial(fail, number) for number in range(9)), 1)
    gc.collect()
    assert len(begun) < 9


async def test_a_cancellation_is_not_lost_in_an_error() -> None:
    """A caller that goes on after errors ends when it is cancelled, also in the moment in which a task fails.

    Seen to fail with the work awaited directly: the loop goes on.
    """
    rounds = 0

    async def fail(caller: asyncio.Task[None]) -> None:
        caller.cancel()
        raise ZeroDivisionError

    async def go_on() -> None:
        nonlocal rounds
        caller = asyncio.current_task()
        assert caller is not None
        while rounds < 3:
            rounds += 1
            with contextlib.suppress(ZeroDivisionError):
                await apart(gather_bounded([partial(fail, caller)], 1))

    going = asyncio.create_task(go_on())
    await asyncio.wait((going,))
    assert (going.cancelled(), rounds) == (True, 1)


async def test_work_apart_gives_its_result_its_error_and_ends_with_its_caller() -> None:
    """It returns and raises as if it was awaited directly, and never runs on by itself."""

    async def divide(number: int) -> int:
        return 6 // number

    assert await apart(divide(2)) == 3
    with pytest.raises(ZeroDivisionError):
        await apart(divide(0))
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    caller = asyncio.create_task(apart(wait()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
