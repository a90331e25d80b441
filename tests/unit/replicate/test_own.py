from __future__ import annotations

import pytest

from replicad.errors import StoreUnreachable
from replicad.layout import claim_key, end_key, start_key
from replicad.ownership.claim import Me
from replicad.ownership.records import Claim, decode_claim, decode_end, decode_start, encode_record
from replicad.position import NO_WAL, TXID, Epoch, Position
from replicad.replicate.own import deferred, founding_records, highest_claim, new_start, store_end
from replicad.replicate.state_file import StateFile, state_of
from replicad.store.memory import MemoryStore
from tests.support.clock import ManualClock
from tests.support.faulty_store import FaultyStore

HERE = Me(id="a" * 32, instance="here")
FORMER_ID = "b" * 32
POSITION = Position(epoch=Epoch(1), txid=TXID(7), checksum=0xFEED, pages=3)


def state(epoch: int, claim_id: str = FORMER_ID) -> StateFile:
    """Return the state file of an instance that stopped in this epoch."""
    position = Position(epoch=Epoch(epoch), txid=TXID(7), checksum=0xFEED, pages=3)
    return state_of(position, NO_WAL, database_id="db", claim_id=claim_id)


async def claimed(store: MemoryStore, *epochs: int, claim_id: str = FORMER_ID) -> None:
    """Leave claims of another process."""
    for epoch in epochs:
        claim = Claim(id=claim_id, epoch=epoch, claimed_ms=1, instance="former")
        await store.put(claim_key(Epoch(epoch)), encode_record(claim))


async def keys(store: MemoryStore) -> list[str]:
    """Return all that is stored."""
    return [found.key async for found in store.list("")]


async def test_the_highest_claim() -> None:
    """Claims are compared as numbers, gaps and all; without any the answer is 0."""
    store = MemoryStore()
    assert await highest_claim(store) == 0
    await claimed(store, 1, 2, 0x10)
    assert await highest_claim(store) == 0x10


async def test_an_instance_that_comes_back_puts_its_claim_off() -> None:
    """The state file names the highest claim by its id and it was not ended: the next epoch is its own when needed."""
    store = MemoryStore()
    await claimed(store, 1, 2)
    before = await keys(store)
    owned = await deferred(store, state(2), HERE)
    assert owned is not None
    assert (owned.epoch, owned.claim_id, owned.continued, owned.deferred) == (3, HERE.id, True, True)
    assert await keys(store) == before


@pytest.mark.parametrize("reason", ["ended", "claimed by another since", "another id", "nothing claimed"])
async def test_nobody_else_may_put_a_claim_off(reason: str) -> None:
    """An ended epoch, a higher claim, a claim of another id: each time the claim is to be made before all else.

    Seen to fail for each with its comparison in `is_still_ours` taken out.
    """
    store = MemoryStore()
    recorded = state(1)
    if reason != "nothing claimed":
        await claimed(store, 1)
    if reason == "ended":
        await store_end(store, POSITION, clock=ManualClock())
    elif reason == "claimed by another since":
        await claimed(store, 2)
    elif reason == "another id":
        recorded = state(1, "0" * 32)
    assert await deferred(store, recorded, HERE) is None


async def test_an_unreachable_store_is_no_answer() -> None:
    """Whether the claim may be put off is not guessed while the store does not answer."""
    store = FaultyStore(MemoryStore())
    store.reachable = False
    with pytest.raises(StoreUnreachable):
        await deferred(store, state(1), HERE)


def test_a_start_says_where_an_epoch_continues() -> None:
    """The start names the parent's transaction; without a parent it names none."""
    clock = ManualClock()
    start = new_start("db", Epoch(2), POSITION, clock=clock)
    assert (start.position, start.database_id, start.epoch) == (POSITION, "db", 2)
    first = new_start("db", Epoch(1), None, clock=clock)
    assert (first.parent_epoch, first.parent_txid, first.started_ms) == (0, 0, clock.now_ms())


def test_the_records_an_epoch_rests_on() -> None:
    """Claim and start can be written again as they were: the same id, epoch and parent."""
    start = new_start("db", Epoch(2), POSITION, clock=ManualClock())
    records = founding_records(HERE.id, start, instance="here")
    assert decode_claim(records[claim_key(Epoch(2))], what="claim").id == HERE.id
    assert decode_start(records[start_key(Epoch(2))], what="start") == start
    assert len(records) == 2


async def test_an_end_says_where_an_epoch_ended() -> None:
    """The end names the last transaction of its epoch."""
    store = MemoryStore()
    await store_end(store, POSITION, clock=ManualClock())
    assert decode_end(await store.get(end_key(Epoch(1))), what="end").position == POSITION
