"""Reading everything that the store holds of one database: for deciding what of it may go."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged, NewerFormat, ObjectMissing
from replicad.plan.inventory import Inventory, Row
from replicad.plan.listing import read_listing
from replicad.restore.fetch import Fetch
from replicad.restore.history import CONCURRENCY, history_of
from replicad.restore.instant import UNIX_EPOCH
from replicad.restore.together import gather_bounded
from replicad.snapshot import decode_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.host.threads import Threads
    from replicad.snapshot import Manifest
    from replicad.store.protocol import ObjectStore, StoredObject


async def read_inventory(store: ObjectStore, threads: Threads, *, concurrency: int = CONCURRENCY) -> Inventory:
    """Return all that the store holds of the database below its prefix.

    Costs a LIST per 1 000 objects, a GET per epoch, and one per snapshot.

    Args:
        store: the database's own part of the store.
        threads: where manifests are decoded.
        concurrency: how many GETs are under way at once.

    Raises:
        StoreUnreachable: the store does not answer.
        StoreRefused: the store does not let us.
        ObjectMissing, Damaged, NewerFormat: of a start or an end.
    """
    rows = {found.key: row_of(found) async for found in store.list("")}
    listing = await threads.run(read_listing, ((row.key, row.size_bytes) for row in rows.values()))
    history = await history_of(store, listing, concurrency=concurrency)
    fetch = Fetch(store, threads, concurrency=concurrency)
    names = [found.name for found in history.listing.manifests]
    manifests = await gather_bounded((partial(_manifest, fetch, name) for name in names), concurrency)
    contents: Mapping[str, frozenset[str]] = {
        name: frozenset(chunk.key for chunk in manifest.chunks)
        for name, manifest in zip(names, manifests, strict=True)
        if manifest is not None
    }
    return Inventory(history=history, rows=rows, contents=contents)


def row_of(stored: StoredObject) -> Row:
    """Return a row of a listing as plans want it."""
    modified_ms = (stored.modified_at - UNIX_EPOCH) // timedelta(milliseconds=1)
    return Row(key=stored.key, size_bytes=stored.size_bytes, modified_ms=modified_ms)


async def _manifest(fetch: Fetch, name: str) -> Manifest | None:
    """Return a manifest; None when it cannot be read, now or ever."""
    try:
        return await fetch.proven(name, partial(decode_manifest, what=name))
    except (Damaged, NewerFormat, ObjectMissing):
        return None
