from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import CreateUndecided, StoreRefused, StoreUnreachable
from replicad.store.create import create_settled, probe_conditional_writes
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import Faults, FaultyStore

if TYPE_CHECKING:
    from collections.abc import Sequence

MINE, OTHER = b"mine", b"other"
FAULTS = Faults(lost_request=0.15, lost_answer=0.15, unavailable=0.1, conflict=0.1, late=0.15)


async def _create(store: FaultyStore | MemoryStore, body: bytes, attempts: int = 40) -> bool:
    return await create_settled(
        store, "claims/1", body, is_mine=body.__eq__, attempts=attempts, max_wait_seconds=0.0001
    )


async def test_yes_and_no() -> None:
    """The first contender is told True, the second False, and a repeated call of the first True again."""
    store = MemoryStore()
    assert await _create(store, MINE) is True
    assert await _create(store, OTHER) is False
    assert await _create(store, MINE) is True


async def _contend(stores: Sequence[FaultyStore]) -> list[bool | None]:
    """Let each store's contender create; None stands for one that was left undecided."""

    async def one(number: int, store: FaultyStore) -> bool | None:
        try:
            return await _create(store, f"contender {number}".encode())
        except (CreateUndecided, StoreUnreachable):
            return None

    return await asyncio.gather(*(one(number, store) for number, store in enumerate(stores)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_trap_never_two_winners(seed: int, contenders: int) -> None:
    """Over lost requests, lost answers, 409s and writes that land late: at most one contender is told True.

    When all are decided exactly one is, and it is the one whose body stands under the key.
    Seen to fail: with ObjectExists taken for False without reading back, none is told True; with a lost answer
    taken for True, two are.
    """

    async def run() -> None:
        truth = MemoryStore()
        stores = [FaultyStore(truth, FAULTS, seed=seed + number) for number in range(contenders)]
        told = await _contend(stores)
        for store in stores:
            await store.settle()
        standing = await truth.get("claims/1")
        assert told.count(True) <= 1
        if None not in told:
            assert told.count(True) == 1
        if True in told:
            assert standing == f"contender {told.index(True)}".encode()

    asyncio.run(run())


async def test_late_write_of_a_loser() -> None:
    """A create that was given up and lands late does not replace the winner's object."""
    truth = MemoryStore()
    late = FaultyStore(truth, Faults(late=1.0))
    with pytest.raises(CreateUndecided):
        await _create(late, OTHER, attempts=1)
    assert await _create(truth, MINE)
    await late.settle()
    assert await truth.get("claims/1") == MINE


class _LosesFirstAnswer(FaultyStore):
    """A store of which the answer to the first create is lost."""

    async def create(self, key: str, body: bytes) -> None:
        self.faults = Faults(lost_answer=1.0 if not self.count("create") else 0.0)
        try:
            await super().create(key, body)
        finally:
            self.faults = Faults()


@pytest.mark.parametrize(
    ("kind", "standing", "logged"),
    [
        (_LosesFirstAnswer, None, [True]),
        (_LosesFirstAnswer, OTHER, [False]),
        (FaultyStore, OTHER, []),  # a plain no
        (FaultyStore, None, []),
    ],
)
async def test_a_lost_answer_is_logged_when_it_is_settled(
    kind: type[FaultyStore], standing: bytes | None, logged: list[bool]
) -> None:
    """Who looks for why an instance did or did not start finds that its claim was settled by reading it back."""
    store = kind(MemoryStore())
    if standing is not None:
        await store.store.put("claims/1", standing)
    with structlog.testing.capture_logs() as lines:
        assert await _create(store, MINE) is (standing is None)
    assert [line["ours"] for line in lines if line["event"] == "lost_answer_settled"] == logged


async def test_store_that_is_away() -> None:
    """When the store was not reached at all, that is what is raised, after so many attempts."""
    store = FaultyStore(MemoryStore())
    store.reachable = False
    with pytest.raises(StoreUnreachable):
        await _create(store, MINE, attempts=3)
    assert store.count("create") == 3


async def test_undecided_at_last() -> None:
    """When the last attempt leaves it open, the caller is told that it is open."""
    with pytest.raises(CreateUndecided, match="not there afterwards"):
        await _create(FaultyStore(MemoryStore(), Faults(conflict=1.0)), MINE, attempts=3)


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_probe_through_faults(seed: int, *, ignores: bool) -> None:
    """The probe's verdict is right through faults, and nothing but its own key is touched.

    Seen to fail: with `create_settled` for the second create, a 409 from a store that ignores the condition passes
    for its refusal.
    """
    faults = Faults(lost_answer=0.3, conflict=0.2, ignores_condition=ignores)
    store = FaultyStore(MemoryStore(), faults, seed=seed)
    await store.store.put("app.db/x", b"")
    verdict = None
    while verdict is None:
        try:
            verdict = await probe_conditional_writes(store)
        except (CreateUndecided, StoreUnreachable):
            continue
    assert verdict is not ignores
    store.faults = Faults()
    left = [row.key async for row in store.list("")]
    assert [key for key in left if not key.startswith("probes/")] == ["app.db/x"]


async def test_probe_cleans_up() -> None:
    """Without faults the probe leaves nothing behind."""
    store = MemoryStore()
    assert await probe_conditional_writes(store)
    assert [row.key async for row in store.list("")] == []


async def test_probe_where_deleting_is_forbidden() -> None:
    """A store that lets us write and not delete still gets its verdict."""

    class Undeletable(MemoryStore):
        async def delete(self, keys: Sequence[str]) -> None:
            raise StoreRefused(store=self.url, operation=f"delete {keys}", found="403 AccessDenied")

    assert await probe_conditional_writes(Undeletable())


async def test_probe_keys_differ() -> None:
    """Two probes at once do not meet: each has a key that nobody else has."""
    random.seed(1)  # a host that seeds the ordinary generator must not make all instances choose alike
    store = FaultyStore(MemoryStore())
    random.seed(1)
    assert all(await asyncio.gather(*(probe_conditional_writes(store) for _ in range(5))))
    assert len({call.key for call in store.calls}) == 5
