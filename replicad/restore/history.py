"""Reading what the store holds of one database: LISTs, and the small documents that tie epochs together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import ObjectMissing
from replicad.layout import CLAIMS, EPOCHS, end_key, epoch_prefix, parse_chunk, start_key
from replicad.ownership.records import decode_end, decode_start
from replicad.plan.line import History
from replicad.plan.listing import read_listing
from replicad.position import Epoch
from replicad.restore.together import gather_bounded, task_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicad.ownership.records import EpochEnd, EpochStart
    from replicad.plan.listing import Listing
    from replicad.store.protocol import ObjectStore

_MAX_CHUNKS_IN_A_ROW = 1_000
"""A page of a LIST: reading on costs nothing up to here; asking again for what lies behind the chunks does."""

_BEHIND_CHUNKS = "chunks0"  # "0" follows "/": behind every chunk, before all else that an epoch's folder holds

_FIRST_EPOCH = Epoch(1)

_ATTEMPTS = 3
CONCURRENCY = 16


async def read_history(
    store: ObjectStore,
    *,
    epoch: Epoch | None = None,
    concurrency: int = CONCURRENCY,
    listed: Callable[[Listing], None] | None = None,
    listing: Awaitable[Listing] | None = None,
) -> History:
    """Return what the store holds of the database below its prefix.

    Costs a LIST per 1 000 segments and snapshots, one or two more per epoch with many chunks, a GET per epoch, and
    one for the end of the newest.

    Args:
        store: the database's own part of the store.
        epoch: an epoch whose end is to be read too.
        concurrency: how many GETs are under way at once.
        listed: is told what was listed, before anything else is asked for.
        listing: `list_history`, if that was begun before.

    Raises:
        StoreUnreachable: the store does not answer.
        StoreRefused: the store does not let us.
        ObjectMissing: a start that is listed cannot be read, however often it is tried.
        Damaged: a start or an end is not what it should be.
        NewerFormat: one was written by a later replicad.
    """
    attempts = _ATTEMPTS
    while True:
        attempts -= 1
        found = await (listing or list_history(store))
        if listed is not None:
            listed(found)
        try:
            return await history_of(store, found, epoch=epoch, concurrency=concurrency)
        except ObjectMissing:  # an epoch that nothing needs any more was deleted between LIST and GET
            if not attempts:
                raise
            listing = None


async def list_history(store: ObjectStore) -> Listing:
    """Return what is listed of the database, but for chunks, below its prefix; raises what `read_history` raises."""
    claims, objects = await gather_bounded((partial(_list_claims, store), partial(_list_epochs, store)), 2)
    return read_listing(claims + objects)


async def history_of(
    store: ObjectStore, listing: Listing, *, epoch: Epoch | None = None, concurrency: int = CONCURRENCY
) -> History:
    """Return the history that was listed, with its starts and ends; raises what `read_history` raises, at once."""
    ends = sorted(listing.ends & {max(listing.starts, default=None), epoch})
    starts = sorted(listing.starts)
    async with task_group() as group:
        finding_ends = group.create_task(gather_bounded((partial(_end, store, number) for number in ends), concurrency))
        found_starts = await gather_bounded((partial(_start, store, number) for number in starts), concurrency)
    found_ends = finding_ends.result()
    return History(
        label=store.url,
        listing=listing,
        starts=dict(zip(starts, found_starts, strict=True)),
        ends=dict(zip(ends, found_ends, strict=True)),
    )


async def _list_claims(store: ObjectStore) -> list[tuple[str, int]]:
    return [(found.key, found.size_bytes) async for found in store.list(CLAIMS)]


async def _list_epochs(store: ObjectStore) -> list[tuple[str, int]]:
    """List every epoch's folder, jumping over chunks: a plan needs none of them, and they are most of the keys.

    Nothing that counts stands before the chunks of the first epoch, so the first LIST begins behind them: that is all
    of them while a replica is young. Some servers read every object that they list, to hash it (`rclone serve s3`).
    """
    objects: list[tuple[str, int]] = []
    behind: str | None = f"{epoch_prefix(_FIRST_EPOCH)}{_BEHIND_CHUNKS}"
    while behind is not None:
        behind = await _list_on(store, behind, objects)
    return objects


async def _list_on(store: ObjectStore, after: str, objects: list[tuple[str, int]]) -> str | None:
    """Add what is listed behind `after`, up to the end (return None) or too many chunks (return where to go on)."""
    in_a_row = 0
    async for found in store.list(EPOCHS, after=after):
        objects.append((found.key, found.size_bytes))
        chunk = parse_chunk(found.key)
        in_a_row = 0 if chunk is None else in_a_row + 1
        if chunk is not None and in_a_row >= _MAX_CHUNKS_IN_A_ROW:
            return f"{epoch_prefix(chunk[0])}{_BEHIND_CHUNKS}"
    return None


async def _start(store: ObjectStore, epoch: Epoch) -> EpochStart:
    key = start_key(epoch)
    return decode_start(await store.get(key), what=key)


async def _end(store: ObjectStore, epoch: Epoch) -> EpochEnd:
    key = end_key(epoch)
    return decode_end(await store.get(key), what=key)
