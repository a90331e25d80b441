"""Epochs and their documents: whose the newest one is, where it continues from, where it ended (docs/format.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import CLAIMS, claim_key, end_key, parse_claim, start_key
from replicad.ownership.records import (
    Claim,
    EpochEnd,
    EpochStart,
    decode_claim,
    encode_record,
)
from replicad.position import Epoch, Position

if TYPE_CHECKING:
    from replicad.host.clock import Clock
    from replicad.ownership.claim import Me
    from replicad.replicate.state_file import StateFile
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """An epoch that this instance owns."""

    epoch: Epoch
    claim_id: str
    continued: bool  # nobody else has owned the database since the state file beside it was written
    deferred: bool = False  # it is not claimed yet: the first upload does that


async def deferred(store: ObjectStore, state: StateFile, me: Me) -> Owned | None:
    """Return the next epoch, to be claimed when there is something to store, if nobody else has owned since `state`.

    Raises:
        StoreUnreachable, StoreRefused: nothing was decided, nothing was changed.
    """
    highest = await highest_claim(store)
    if not await is_still_ours(store, state, highest):
        return None
    return Owned(epoch=Epoch(highest + 1), claim_id=me.id, continued=True, deferred=True)


async def highest_claim(store: ObjectStore) -> Epoch:
    """Return the newest epoch that was claimed, 0 when there is none."""
    highest = Epoch(0)
    async for found in store.list(CLAIMS):
        highest = max(highest, parse_claim(found.key) or highest)
    return highest


async def is_still_ours(store: ObjectStore, state: StateFile, highest: Epoch) -> bool:
    """Return whether the epoch in the state file is the highest, was claimed by us, and was not ended."""
    if state.epoch != highest:
        return False
    key = claim_key(highest)
    claim = decode_claim(await store.get(key), what=key)
    if claim.id != state.claim_id:
        return False
    async for found in store.list(end_key(highest)):
        if found.key == end_key(highest):
            return False
    return True


def new_start(database_id: str, epoch: Epoch, parent: Position | None, *, clock: Clock) -> EpochStart:
    """Return from where an epoch continues; `parent` None: from nothing."""
    return EpochStart(
        database_id=database_id,
        epoch=epoch,
        parent_epoch=parent.epoch if parent else 0,
        parent_txid=parent.txid if parent else 0,
        checksum=f"{parent.checksum if parent else 0:016x}",
        pages=parent.pages if parent else 0,
        started_ms=clock.now_ms(),
    )


def founding_records(claim_id: str, start: EpochStart, *, instance: str) -> dict[str, bytes]:
    """Return, by key, the documents that an epoch rests on, to be stored again should somebody delete them."""
    claim = Claim(id=claim_id, epoch=start.epoch, claimed_ms=start.started_ms, instance=instance)
    epoch = Epoch(start.epoch)
    return {claim_key(epoch): encode_record(claim), start_key(epoch): encode_record(start)}


async def store_end(store: ObjectStore, position: Position, *, clock: Clock) -> None:
    """Store that the epoch ended in order, at this transaction."""
    end = EpochEnd(
        epoch=position.epoch,
        txid=position.txid,
        checksum=f"{position.checksum:016x}",
        pages=position.pages,
        ended_ms=clock.now_ms(),
    )
    await store.put(end_key(position.epoch), encode_record(end))
