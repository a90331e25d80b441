from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.errors import CreateUndecided, ObjectExists, ObjectMissing, StoreUnreachable
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import Call, Faults, FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def _story(seed: int) -> list[Call]:
    store = FaultyStore(MemoryStore(), Faults(lost_request=0.2, lost_answer=0.2, late=0.2, conflict=0.2), seed=seed)
    for number in range(40):
        for operation in (store.put(f"{number}", b"1"), store.create(f"c{number}", b"1"), store.get(f"{number}")):
            try:
                await operation
            except (StoreUnreachable, CreateUndecided, ObjectMissing, ObjectExists):
                continue
    return store.calls


async def test_seed_decides() -> None:
    """The same calls with the same seed go wrong in the same way, with another seed in another."""
    assert await _story(1) == await _story(1)
    assert await _story(1) != await _story(2)
    assert {call.fault for call in await _story(1)} >= {"", "lost_request", "lost_answer", "late", "conflict"}


@pytest.mark.parametrize(
    ("faults", "error", "stored"),
    [
        (Faults(lost_request=1), StoreUnreachable, False),
        (Faults(unavailable=1), StoreUnreachable, False),
        (Faults(lost_answer=1), StoreUnreachable, True),
        (Faults(late=1), StoreUnreachable, False),
    ],
)
async def test_puts(faults: Faults, error: type[Exception], stored: bool) -> None:  # noqa: FBT001
    """A put that fails was carried out or not, as its fault says; a late one is when it has settled."""
    store = FaultyStore(MemoryStore(), faults)
    with pytest.raises(error):
        await store.put("a", b"1")
    assert [row.key async for row in store.store.list("")] == ["a"] * stored
    await store.settle()
    assert [row.key async for row in store.store.list("")] == ["a"] * (stored or bool(faults.late))


@pytest.mark.parametrize("faults", [Faults(lost_request=1), Faults(lost_answer=1), Faults(conflict=1), Faults(late=1)])
async def test_creates_are_undecided(faults: Faults) -> None:
    """A create whose request, answer or verdict is lost is undecided, whatever is under the key."""
    store = FaultyStore(MemoryStore(), faults)
    for _ in range(2):
        with pytest.raises(CreateUndecided):
            await store.create("a", b"1")


async def test_ignored_condition() -> None:
    """A create that ignores its condition replaces what is there."""
    store = FaultyStore(MemoryStore(), Faults(ignores_condition=True))
    await store.create("a", b"1")
    await store.create("a", b"2")
    assert await store.get("a") == b"2"


async def test_bodies() -> None:
    """Bodies come short or with one bit changed, and no error says so."""
    store = FaultyStore(MemoryStore(), Faults(short_body=1))
    await store.put("a", bytes(100))
    assert await store.get("a") == bytes(50)
    store.faults = Faults(flipped_bit=1)
    assert sum(byte.bit_count() for byte in await store.get("a")) == 1


async def test_outage() -> None:
    """While the store is away no operation reaches it; afterwards all is as before."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"1"

    store = FaultyStore(MemoryStore())
    await store.put("a", b"1")
    store.reachable = False
    for operation in (
        store.get("a"),
        store.put("a", b"2"),
        store.create("b", b"2"),
        store.put_stream("c", parts()),
        store.delete(["a"]),
    ):
        with pytest.raises(StoreUnreachable):
            await operation
    with pytest.raises(StoreUnreachable):
        _ = [row async for row in store.list("")]
    store.reachable = True
    assert await store.get("a") == b"1"
    assert store.count() == 8
    assert store.count("put", "a") == 2
    await store.close()
