"""Memory for what is in flight."""

from __future__ import annotations

import asyncio

from replicad.restore.budget import MemoryBudget


async def test_no_more_is_out_than_there_is() -> None:
    """However many ask, what they hold together stays within the limit, and all get their turn."""
    budget = MemoryBudget(100)
    served = 0

    async def use(n_bytes: int) -> None:
        nonlocal served
        taken = await budget.take(n_bytes)
        await asyncio.sleep(0)
        budget.give_back(taken)
        served += 1

    await asyncio.gather(*(use(n) for n in range(1, 80)))
    assert served == 79
    assert (budget.used_bytes, budget.peak_bytes <= 100) == (0, True)


async def test_what_is_larger_than_everything_gets_everything() -> None:
    """A request beyond the limit is served alone, instead of waiting for ever."""
    budget = MemoryBudget(100)
    assert await budget.take(1_000) == 100


async def test_a_large_one_is_not_overtaken() -> None:
    """Who waits for much room is served before those that came later and need little."""
    budget = MemoryBudget(100)
    order = []

    async def use(name: str, n_bytes: int) -> None:
        taken = await budget.take(n_bytes)
        order.append(name)
        budget.give_back(taken)

    first = await budget.take(60)
    async with asyncio.TaskGroup() as group:
        group.create_task(use("large", 90))
        await asyncio.sleep(0)
        group.create_task(use("small", 10))
        await asyncio.sleep(0)
        assert order == []
        budget.give_back(first)
    assert order == ["large", "small"]


async def test_a_cancelled_waiter_takes_nothing() -> None:
    """Whoever gives up while waiting leaves the room, and the turn, to the next."""
    budget = MemoryBudget(100)
    first = await budget.take(100)
    waiter = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    budget.give_back(first)
    assert await asyncio.wait_for(budget.take(100), 5) == 100
    assert budget.used_bytes == 100
