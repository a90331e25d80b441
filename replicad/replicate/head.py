"""The newest transactions of a line of history, with all that is needed to go on from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.errors import NoBackup
from replicad.host.threads import Threads
from replicad.plan.line import line_of_history
from replicad.position import TXID, Epoch, Position
from replicad.replicate.continuity import Known
from replicad.restore.fetch import Fetch
from replicad.restore.history import read_history
from replicad.restore.rollups import open_at
from replicad.segment import HEAD_BYTES_HINT, TRAILER_BYTES, SegmentIndex, decode, read_index, read_trailer
from replicad.snapshot import Manifest, decode_manifest

if TYPE_CHECKING:
    from replicad.plan.line import Line, LineSegment
    from replicad.plan.listing import Listing
    from replicad.store.protocol import ObjectStore

_WHOLE_BYTES = 1 << 20  # a segment up to this size is fetched in one request


async def read_line(store: ObjectStore) -> tuple[Listing, Line | None]:
    """Return what is listed, and the line of history in it; None: nothing that could be restored was ever stored.

    Raises:
        StoreUnreachable, StoreRefused: the store cannot be read.
        Damaged, NewerFormat: what ties the epochs together cannot be.
    """
    history = await read_history(store)
    try:
        line = line_of_history(history)
    except NoBackup:
        return history.listing, None
    return history.listing, line if line.segments or line.manifests else None


async def read_heads(store: ObjectStore, line: Line) -> list[Known]:
    """Return the newest stored transactions, newest first: what a snapshot, the log and a start say.

    There is more than one when a snapshot was stored ahead of the segment that leads to it, in one epoch. What an
    earlier epoch ended with is no head: whoever went on from there would leave the newest state off the line.

    Raises:
        Damaged, ObjectMissing, StoreUnreachable: one of them cannot be read.
    """
    found: list[Known] = []
    if line.segments:
        newest = max(line.segments, key=lambda part: (part.until, part.first))
        found.append(await _segment_end(store, newest, line.database_id))
    if line.manifests and line.manifests[-1].key.txid >= max((known.position.txid for known in found), default=TXID(0)):
        manifest = await read_manifest(store, line.manifests[-1].name)
        found = _with_snapshot(found, Known(position=manifest.position, ms=manifest.commit_ms))
    start = line.epochs[-1].start.position
    if start.txid > max((known.position.txid for known in found), default=TXID(0)):
        found.append(Known(position=start, ms=0))
    found.sort(key=lambda known: known.position.txid, reverse=True)
    return [known for known in found if known.position.epoch == found[0].position.epoch]


def _with_snapshot(found: list[Known], snapshot: Known) -> list[Known]:
    """Return the heads with what the newest snapshot says.

    An epoch in which nothing was committed may hold a snapshot of the state that it began with. That state is this
    epoch's, then, and not its parent's, whose segment knows where in the WAL it ends: whoever went on from the parent
    would leave the snapshot off the line, and retention has perhaps deleted what stood before it.
    """
    same = next((known for known in found if known.position.txid == snapshot.position.txid), None)
    if same is None:
        return [*found, snapshot]
    if replace(same.position, epoch=snapshot.position.epoch) != snapshot.position:
        return found
    return [replace(known, position=snapshot.position) if known is same else known for known in found]


async def read_manifest(store: ObjectStore, key: str) -> Manifest:
    """Fetch and check a snapshot's manifest."""
    return decode_manifest(await store.get(key), what=key)


async def _segment_end(store: ObjectStore, part: LineSegment, database_id: str) -> Known:
    index = await _read_index(store, part, database_id)
    last = next(transaction for transaction in index.transactions if transaction.txid == part.until)
    position = Position(epoch=Epoch(part.stored.key.epoch), txid=last.txid, checksum=last.checksum, pages=last.pages)
    if part.until != part.stored.key.last:
        return Known(position=position, ms=last.commit_ms)  # a child continues from its middle: no WAL position
    return Known(position=position, ms=last.commit_ms, wal=index.wal_end)


async def _read_index(store: ObjectStore, part: LineSegment, database_id: str) -> SegmentIndex:
    key, size_bytes = part.name, part.stored.size_bytes
    if part.stored.is_rollup:  # in which the line ends: nothing of its last segment's own epoch is behind that
        return await _read_member(store, part, database_id)
    if size_bytes <= _WHOLE_BYTES:
        return decode(await store.get(key), what=key)
    trailer = read_trailer(await store.get(key, start=size_bytes - TRAILER_BYTES), object_bytes=size_bytes, what=key)
    head = await store.get(key, stop=HEAD_BYTES_HINT)
    index = await store.get(key, start=trailer.index_offset, stop=trailer.index_offset + trailer.index_bytes)
    return read_index(head, index, trailer, what=key)


async def _read_member(store: ObjectStore, part: LineSegment, database_id: str) -> SegmentIndex:
    threads = Threads("head", 1)
    try:
        fetch = Fetch(store, threads, concurrency=1)
        return (await open_at(fetch, part, part.until, database_id=database_id)).index
    finally:
        await threads.close()
