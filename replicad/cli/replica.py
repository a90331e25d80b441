"""The replica of one database, opened for a command, and what its listing says in short."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from replicad.plan.reach import reachable
from replicad.plan.target import format_ms
from replicad.store.database import contents, stored_objects
from replicad.store.open import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from replicad.config import DatabaseSettings, Settings
    from replicad.plan.line import Line
    from replicad.position import TXID
    from replicad.store.protocol import ObjectStore


@asynccontextmanager
async def open_replica(
    settings: Settings, database: DatabaseSettings, *, concurrency: int, only_to_read: bool = True
) -> AsyncIterator[ObjectStore]:
    """Open the database's own part of its store, and close it again.

    Raises:
        ReplicadError: the URL is wrong, or there are no usable credentials.
    """
    async with open_objects(settings, database, concurrency=concurrency, only_to_read=only_to_read) as objects:
        yield contents(objects, settings.encryption_keys)


@asynccontextmanager
async def open_objects(
    settings: Settings, database: DatabaseSettings, *, concurrency: int, only_to_read: bool = True
) -> AsyncIterator[ObjectStore]:
    """Open the database's own part of its store, with the objects as they are stored, and close it again.

    Raises:
        ReplicadError: the URL is wrong, or there are no usable credentials.
    """
    store = await open_store(
        database.replica, settings.store_options(concurrency=concurrency), only_to_read=only_to_read
    )
    try:
        yield stored_objects(store, database.name)
    finally:
        await store.close()


def summary(line: Line) -> Mapping[str, object]:
    """Return what a line of history holds, as JSON-like values."""
    times = instants(line)
    spans = reachable(line)
    newest = line.manifests[-1] if line.manifests else None
    return {
        "database_id": line.database_id,
        "epoch": line.head,
        "epochs": len(line.epochs),
        "last_txid": line.last_txid,
        "first_restorable_txid": spans[0].first if spans else None,
        "first_restorable_at": times.get(spans[0].first) if spans else None,
        "last_restorable_txid": spans[-1].last if spans else None,
        "last_restorable_at": times.get(spans[-1].last) if spans else None,
        "gaps": sum(later.first > earlier.last + 1 for earlier, later in pairwise(spans)),
        "segments": len(line.segments),
        "log_bytes": sum(part.stored.size_bytes for part in line.segments),
        "snapshots": len(line.manifests),
        "snapshot_txid": newest.key.txid if newest else None,
        "snapshot_at": format_ms(newest.key.ms) if newest else None,
        "orphaned_tails": [
            {
                "epoch": tail.epoch,
                "first_txid": tail.first,
                "last_txid": tail.last,
                "transactions": tail.last - tail.first + 1,
                "size_bytes": tail.size_bytes,
            }
            for tail in line.orphans
        ],
    }


def instants(line: Line) -> Mapping[TXID, str]:
    """Return the commit times that stand in keys, by TXID."""
    found = {part.until: part.until_ms for part in line.segments}
    found |= {one.key.txid: one.key.ms for one in line.manifests}
    return {txid: format_ms(ms) for txid, ms in found.items() if ms is not None}
