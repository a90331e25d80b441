from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

import pytest

from replicad.host.threads import Threads
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """Return a pool of two."""
    pool = Threads("test", 2)
    yield pool
    await pool.close()


async def test_run_returns_and_raises(threads: Threads) -> None:
    """A call in a thread gives what the function returns or raises, in a named thread, in the caller's context."""
    variable.set("the caller's")

    def work(number: int, *, plus: int) -> tuple[int, str, str]:
        return number + plus, threading.current_thread().name, variable.get()

    assert await threads.run(work, 1, plus=2) == (3, "replicad-test_0", "the caller's")
    with pytest.raises(ValueError, match="invalid literal"):
        await threads.run(int, "x")


async def test_run_is_bounded(threads: Threads) -> None:
    """No more calls run at once than there are threads, and all of them run in the end."""
    running, most, lock = 0, 0, threading.Lock()
    pair = threading.Barrier(2)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        pair.wait(10)
        with lock:
            running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(threads.run(work))
    assert most == 2


async def test_cancelled_call_waits_for_its_function(threads: Threads) -> None:
    """A cancelled caller goes on only when the function has ended, however often it is cancelled.

    Seen to fail with a plain `await asyncio.wrap_future(...)`: the task was done while the function ran.
    """
    started, go_on = threading.Event(), threading.Event()
    steps: list[str] = []

    def work() -> None:
        started.set()
        go_on.wait(10)
        steps.append("function ended")

    async def call() -> None:
        try:
            await threads.run(work)
        finally:
            steps.append("caller went on")

    task = asyncio.create_task(call())
    await wait_until_async(started.is_set)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["function ended", "caller went on"]


async def test_error_of_a_cancelled_call(threads: Threads) -> None:
    """A function that fails after its caller was cancelled is not lost: it is the cancellation's cause."""
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(10)
        message = "the reason"
        raise ValueError(message)

    task = asyncio.create_task(threads.run(work))
    await wait_until_async(started.is_set)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert repr(cancelled.value.__cause__) == "ValueError('the reason')"


async def test_cancelled_while_all_threads_are_taken(threads: Threads) -> None:
    """A call that still waits for a thread can be cancelled at once, and its function never runs."""
    go_on = threading.Event()
    taken = [asyncio.create_task(threads.run(go_on.wait, 10)) for _ in range(2)]
    ran = threading.Event()
    waiting = asyncio.create_task(threads.run(ran.set))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await asyncio.gather(*taken) == [True, True]
    assert not ran.is_set()


async def test_close_waits_and_ends_the_threads() -> None:
    """Closing waits for calls that run, ends the threads, and refuses further calls."""
    pool = Threads("closing", 1)
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(10)
        ended.set()

    call = asyncio.create_task(pool.run(work))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert ended.is_set()
    await call
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("replicad-closing")]
    await pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(int)
