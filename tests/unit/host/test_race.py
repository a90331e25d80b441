"""Waiting for what comes first."""

from __future__ import annotations

import asyncio

import pytest

from replicad.host.race import race


class Runner:
    """A step that goes on until it is told to end, or cancelled."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cancelled = False

    async def run(self, result: int = 1) -> int:
        """Wait to be told."""
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # takes a moment to clear up
            self.cancelled = True
            raise
        return result


async def test_the_step_comes_first() -> None:
    """The step's result is there, and the other one was cancelled and has ended."""
    step, other = Runner(), Runner()
    step.go.set()
    found = await race(step.run(7), other.run())
    assert found is not None
    assert (found.result(), step.cancelled, other.cancelled) == (7, False, True)


async def test_another_one_comes_first() -> None:
    """None says so, and the step was cancelled and has ended."""
    step, other = Runner(), Runner()
    other.go.set()
    assert await race(step.run(), other.run()) is None
    assert step.cancelled


async def test_both_at_once() -> None:
    """A step that has ended is never thrown away."""
    step, other = Runner(), Runner()
    step.go.set()
    other.go.set()
    assert await race(step.run(), other.run()) is not None


async def test_the_step_fails() -> None:
    """Its error is the caller's to take."""

    async def fail() -> None:
        raise ZeroDivisionError

    found = await race(fail(), asyncio.sleep(60))
    assert found is not None
    with pytest.raises(ZeroDivisionError):
        found.result()


async def test_cancelled_from_outside() -> None:
    """Both have ended when it has."""
    step, other = Runner(), Runner()
    racing = asyncio.create_task(race(step.run(), other.run()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert (step.cancelled, other.cancelled) == (True, True)
