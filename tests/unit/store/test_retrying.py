from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tenacity import RetryCallState

from replicad.errors import CreateUndecided, NoSpace, ObjectExists, ObjectMissing, StoreRefused, StoreUnreachable
from replicad.store.memory import MemoryStore
from replicad.store.options import StoreOptions
from replicad.store.retrying import RetryingStore, RetryPolicy
from tests.support.faulty_store import Faults, FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOON = RetryPolicy(attempts=4, budget_seconds=60, first_wait_seconds=0.0001, max_wait_seconds=0.001)


def _unreachable(**details: object) -> StoreUnreachable:
    return StoreUnreachable(store="memory://x", operation="get a", found="nothing", **details)


class Failing:
    """Raises what it is given, one at a time, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        """Make the next attempt."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_tried_until_it_works() -> None:
    """What did not reach the store is tried again, and then returns its result."""
    attempt = Failing(_unreachable(), _unreachable(), _unreachable())
    assert await SOON.run(attempt) == "done"
    assert attempt.calls == 4


async def test_given_up_after_the_attempts() -> None:
    """After the last attempt its own error is raised, not the retry library's."""
    attempt = Failing(*(_unreachable(number=number) for number in range(9)))
    with pytest.raises(StoreUnreachable) as caught:
        await SOON.run(attempt)
    assert caught.value.details["number"] == 3
    assert attempt.calls == 4


@pytest.mark.parametrize(
    "error",
    [
        StoreRefused(store="s", operation="o", found="f"),
        ObjectMissing(key="k", store="s"),
        ObjectExists(key="k", store="s"),
        CreateUndecided(key="k", store="s", found="f"),
        NoSpace(path="p", needed_bytes=1, free_bytes=0),
        ValueError("a defect"),
    ],
)
async def test_only_unreachable_is_tried_again(error: Exception) -> None:
    """Every other error comes through at once: it will not change, or must not be repeated."""
    attempt = Failing(error)
    with pytest.raises(type(error)):
        await SOON.run(attempt)
    assert attempt.calls == 1


async def test_given_up_when_the_time_is_used_up() -> None:
    """No attempt is begun that the time budget does not allow, however many attempts are left."""
    policy = RetryPolicy(attempts=1_000_000, budget_seconds=0.05, first_wait_seconds=0.01, max_wait_seconds=0.01)
    attempt = Failing(*(_unreachable() for _ in range(1_000)))
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnreachable):
            await policy.run(attempt)
    assert 2 <= attempt.calls < 1_000


async def test_the_first_attempt_counts() -> None:
    """An attempt that takes all of the time is the only one. Seen to fail with the budget begun after it."""
    calls = 0

    async def attempt() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.06)
        raise _unreachable()

    with pytest.raises(StoreUnreachable):
        await RetryPolicy(attempts=9, budget_seconds=0.05, first_wait_seconds=0.0001, max_wait_seconds=0.001).run(
            attempt
        )
    assert calls == 1


async def test_retry_after_beyond_the_budget() -> None:
    """A store that asks to come back after the budget's end is believed: the error is raised at once.

    Seen to fail: without Retry-After in `_wait_seconds`, four attempts are made.
    """
    attempt = Failing(_unreachable(retry_after_seconds=300.0), _unreachable())
    with pytest.raises(StoreUnreachable):
        await SOON.run(attempt)
    assert attempt.calls == 1


@pytest.mark.parametrize(("asked", "least"), [(None, 0.0), (7.0, 7.0)])
def test_waits(asked: float | None, least: float) -> None:
    """Waits grow with the attempts up to their limit, differ from each other, and respect Retry-After."""
    policy = RetryPolicy(attempts=9, budget_seconds=60, first_wait_seconds=0.1, max_wait_seconds=3.0)
    waits = []
    for attempt in range(1, 9):
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = attempt
        error = _unreachable(retry_after_seconds=asked)
        state.set_exception((StoreUnreachable, error, error.__traceback__))
        waits.append([policy._wait_seconds(state) for _ in range(50)])
        assert all(least <= wait <= max(least, min(3.0, 0.1 * 2**attempt)) for wait in waits[-1])
    assert asked is not None or len({wait for some in waits for wait in some}) > 100


def test_policy_of_options() -> None:
    """The policy is what the options ask for."""
    options = StoreOptions(attempts=3, retry_seconds=4, first_wait_seconds=5, max_wait_seconds=6)
    assert RetryPolicy.of(options) == RetryPolicy(
        attempts=3, budget_seconds=4, first_wait_seconds=5, max_wait_seconds=6
    )


async def test_trap_create_is_never_repeated() -> None:
    """A create reaches the store once, whatever becomes of it.

    Seen to fail: with `create` run by the policy, the store is called four times.
    """
    faulty = FaultyStore(MemoryStore(), Faults(unavailable=1.0))
    with pytest.raises(StoreUnreachable):
        await RetryingStore(faulty, SOON).create("claims/1", b"mine")
    assert faulty.count("create") == 1


async def test_stream_is_not_repeated() -> None:
    """A stream reaches the store once: what was taken from it cannot be had again."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"

    faulty = FaultyStore(MemoryStore(), Faults(unavailable=1.0))
    with pytest.raises(StoreUnreachable):
        await RetryingStore(faulty, SOON).put_stream("a", parts())
    assert faulty.count("put_stream") == 1


@pytest.mark.parametrize("fault", [{"unavailable": 0.5}, {"lost_request": 0.5}, {"lost_answer": 0.5}])
async def test_every_other_operation_is_repeated(fault: dict[str, float]) -> None:
    """Puts, gets, listings and deletions succeed through faults, and their results are right."""
    faulty = FaultyStore(MemoryStore(), Faults(**fault), seed=3)  # type: ignore[arg-type]
    patient = RetryPolicy(attempts=60, budget_seconds=60, first_wait_seconds=0.0001, max_wait_seconds=0.0001)
    store = RetryingStore(faulty, patient)
    keys = [f"key/{number:03}" for number in range(50)]
    for key in keys:
        await store.put(key, key.encode())
    assert [await store.get(key) for key in keys] == [key.encode() for key in keys]
    assert await store.get(keys[0], start=1, stop=3) == b"ey"
    assert [row.key async for row in store.list("key/", after=keys[4])] == keys[5:]
    await store.delete(keys)
    assert [row.key async for row in store.list("")] == []
    assert {call.fault for call in faulty.calls} == {"", next(iter(fault))}


async def test_listing_goes_on_where_it_broke_off() -> None:
    """After a fault a listing asks for what is behind the last row, and no row comes twice.

    Seen to fail: with the same listing begun again from `after`, rows come twice.
    """
    faulty = FaultyStore(MemoryStore())
    for number in range(64):
        await faulty.store.put(f"{number:02}", b"")
    faulty.faults = Faults(lost_answer=1.0)  # every listing breaks off half-way
    seen: list[str] = []

    async def read() -> None:
        async for row in RetryingStore(faulty, SOON).list(""):
            seen.append(row.key)
            if row.key == "62":
                faulty.faults = Faults()

    await read()
    assert seen == [f"{number:02}" for number in range(64)]


async def test_long_listing() -> None:
    """More rows than one batch come once each, in order."""
    store = MemoryStore()
    keys = [f"{number:05}" for number in range(2_500)]
    for key in keys:
        await store.put(key, b"")
    assert [row.key async for row in RetryingStore(store, SOON).list("")] == keys


async def test_url_and_close() -> None:
    """The wrapper is called what the store beneath is called, and closes it."""
    closed = []

    class Closing(MemoryStore):
        async def close(self) -> None:
            closed.append(self.url)

    store = RetryingStore(Closing("x"), SOON)
    await store.close()
    assert closed == [store.url] == ["memory://x"]
