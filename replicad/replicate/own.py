"""Claiming an epoch. The owner is whoever holds the highest claim (docs/format.md).

Claim before listing: whatever an earlier owner ever reported durable is then seen by the reader of the history.
An instance that comes back to its own unended epoch on the same disk goes on in it, and stores nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import ConditionalWritesUnsupported, OwnedByAnother
from replicad.host.machine import instance_name
from replicad.layout import CLAIMS, claim_key, end_key, parse_claim, start_key
from replicad.observe import events
from replicad.ownership.records import (
    Claim,
    EpochEnd,
    EpochStart,
    decode_claim,
    encode_record,
)
from replicad.position import Epoch, Position
from replicad.store.create import create_settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import FilteringBoundLogger

    from replicad.host.clock import Clock
    from replicad.replicate.state_file import StateFile
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """An epoch that this instance owns."""

    epoch: Epoch
    claim_id: str
    continued: bool  # it was ours before: nobody else wrote since, and nothing was stored for it now


async def own(
    store: ObjectStore,
    state: StateFile | None,
    *,
    environment: Mapping[str, str],
    clock: Clock,
    log: FilteringBoundLogger,
) -> Owned:
    """Go on in the epoch that the state file beside the database names, or claim the next one.

    Raises:
        StoreUnreachable, StoreRefused: nothing was decided, nothing was changed.
        OwnedByAnother: another instance was faster.
    """
    highest = await highest_claim(store)
    if state is not None and await is_still_ours(store, state, highest):
        return Owned(epoch=Epoch(state.epoch), claim_id=state.claim_id, continued=True)
    epoch = Epoch(highest + 1)
    claim_id = await claim(store, epoch, instance=instance_name(environment), clock=clock, log=log)
    log.info(events.CLAIM_CREATED, epoch=epoch)
    return Owned(epoch=epoch, claim_id=claim_id, continued=False)


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


async def claim(store: ObjectStore, epoch: Epoch, *, instance: str, clock: Clock, log: FilteringBoundLogger) -> str:
    """Become the owner of an epoch; return the id of the claim.

    Raises:
        OwnedByAnother: somebody else was first.
    """
    mine = Claim(id=uuid.uuid4().hex, epoch=epoch, claimed_ms=clock.now_ms(), instance=instance)
    key = claim_key(epoch)
    body = encode_record(mine)

    def is_mine(found: bytes) -> bool:
        return decode_claim(found, what=key).id == mine.id

    try:
        won = await create_settled(store, key, body, is_mine=is_mine)
    except ConditionalWritesUnsupported as error:
        log.warning(events.FENCING_ADVISORY, error=str(error))
        await store.put(key, body)
        won = is_mine(await store.get(key))
    if not won:
        other = decode_claim(await store.get(key), what=key)
        raise OwnedByAnother(
            database=store.url,
            found=f"epoch {epoch} was claimed by {other.instance} a moment ago",
            hint="Only one instance can follow a database; stop the other one, then start this one again.",
        )
    return mine.id


async def store_start(
    store: ObjectStore, database_id: str, epoch: Epoch, parent: Position | None, *, clock: Clock
) -> EpochStart:
    """Store from which transaction the epoch continues (None: from nothing); return what was stored."""
    start = EpochStart(
        database_id=database_id,
        epoch=epoch,
        parent_epoch=parent.epoch if parent else 0,
        parent_txid=parent.txid if parent else 0,
        checksum=f"{parent.checksum if parent else 0:016x}",
        pages=parent.pages if parent else 0,
        started_ms=clock.now_ms(),
    )
    await store.put(start_key(epoch), encode_record(start))
    return start


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
