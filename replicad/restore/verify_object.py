"""One stored object held against its key: whether it is what it says, whole, and of this database.

What is found here is what can be found from one object alone: every stored byte is covered by a hash or by a typed
document. That neighbours agree on the state between them is found by whoever reads them in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad import zstd
from replicad.errors import Damaged
from replicad.layout import (
    ObjectKind,
    kind_of,
    parse_chunk,
    parse_claim,
    parse_end,
    parse_manifest,
    parse_mark,
    parse_segment,
    parse_start,
)
from replicad.ownership.records import decode_claim, decode_end, decode_start
from replicad.plan.line import LineSegment
from replicad.plan.listing import SegmentObject
from replicad.plan.mark import decode_mark
from replicad.plan.restore import PlannedSegment
from replicad.position import TXID
from replicad.restore.faults import Unusable
from replicad.restore.pieces import opened_newest_first
from replicad.restore.rows import rows
from replicad.restore.segments import WHOLE_BYTES, OpenSegment, State, open_segment
from replicad.segment import read_block
from replicad.snapshot import PLAIN_NAMES, ChunkNames, Manifest, decode_manifest, decompress_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicad.layout import ManifestKey, SegmentKey
    from replicad.ownership.records import EpochEnd, EpochStart
    from replicad.position import Epoch
    from replicad.restore.fetch import Fetch
    from replicad.segment import SegmentIndex

UNREAD = frozenset({ObjectKind.KEYRING, ObjectKind.NOTE, ObjectKind.PROBE, ObjectKind.FOREIGN})
"""Objects that belong to no history; the keyring was read by whoever decrypts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A piece of the log, and the states that it tells of: in front of its first transaction, and behind those it has.

    `at` returns None for a transaction whose state it does not tell.
    """

    key: SegmentKey
    at: Callable[[TXID], State | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A sound object, and what was read of it; notes, foreign objects and the keyring are not looked at."""

    key: str
    kind: ObjectKind
    log: LogPart | None = None
    manifest: Manifest | None = None
    start: EpochStart | None = None
    end: EpochEnd | None = None


async def verify_object(fetch: Fetch, key: str, size_bytes: int, *, database_id: str) -> Verified:
    """Fetch one object and check all of it; a large segment is fetched piece by piece and never held whole.

    Args:
        fetch: reads from the database's own part of the store.
        key: the object's, relative to the database's prefix.
        size_bytes: as it was listed.
        database_id: of the history that it must belong to.

    Raises:
        Damaged: it is not what its key says, not whole, or another database's.
        NewerFormat: it was written by a later replicad.
        ObjectMissing: it is not there (any more).
        WrongKey: it cannot be decrypted.
        StoreUnreachable, StoreRefused: the store cannot be read.
    """
    kind = kind_of(key)
    if kind in UNREAD:
        return Verified(key=key, kind=kind)
    if kind is ObjectKind.SEGMENT:
        return await _verify_segment(fetch, key, size_bytes, database_id)
    names = await fetch.chunk_names() if kind is ObjectKind.CHUNK else PLAIN_NAMES
    return await fetch.proven(key, partial(_check_listed, key, size_bytes, database_id, names))


def check_body(key: str, body: bytes, *, database_id: str | None, names: ChunkNames = PLAIN_NAMES) -> Verified:
    """Check the whole body of any object but a segment, which `verify_object` checks. Pure, and takes processor time.

    `names` is how the replica names its chunks, `database_id` None stands for any database.

    Raises:
        Damaged: it is not what its key says, or another database's.
        NewerFormat: it was written by a later replicad.
    """
    kind = kind_of(key)
    match kind:
        case ObjectKind.CHUNK:
            _check_chunk(key, body, names)
        case ObjectKind.MANIFEST:
            manifest = decode_manifest(body, what=key)
            check_manifest_identity(manifest, parse_manifest(key), database_id, what=key)
            return Verified(key=key, kind=kind, manifest=manifest)
        case ObjectKind.CLAIM:
            _must_equal(key, "epoch", parse_claim(key), decode_claim(body, what=key).epoch)
        case ObjectKind.START:
            start = decode_start(body, what=key)
            _must_equal(key, "epoch", parse_start(key), start.epoch)
            _must_be_of(key, database_id, start.database_id)
            return Verified(key=key, kind=kind, start=start)
        case ObjectKind.END:
            end = decode_end(body, what=key)
            _must_equal(key, "epoch", parse_end(key), end.epoch)
            return Verified(key=key, kind=kind, end=end)
        case ObjectKind.MARK:
            _must_equal(key, "key", parse_mark(key), decode_mark(body, what=key).key)
        case ObjectKind.SEGMENT | ObjectKind.KEYRING | ObjectKind.NOTE | ObjectKind.PROBE | ObjectKind.FOREIGN:
            pass
    return Verified(key=key, kind=kind)


def check_manifest_identity(manifest: Manifest, key: ManifestKey | None, database_id: str | None, *, what: str) -> None:
    """Refuse a sound manifest under another's key; `database_id` None stands for any database.

    Raises:
        Damaged: it is one.
    """
    _must_be_of(what, database_id, manifest.database_id)
    if key is not None:
        _must_equal(what, "epoch", key.epoch, manifest.epoch)
        _must_equal(what, "txid", key.txid, manifest.txid)
        _must_equal(what, "commit_ms", key.ms, manifest.commit_ms)


def _check_listed(key: str, size_bytes: int, database_id: str, names: ChunkNames, body: bytes) -> Verified:
    check_size(key, size_bytes, body)
    return check_body(key, body, database_id=database_id, names=names)


def _check_chunk(key: str, body: bytes, names: ChunkNames) -> None:
    parsed: tuple[Epoch, str] | None = parse_chunk(key)
    raw_bytes = zstd.content_bytes(body, what=key, where="zstd frame")
    decompress_chunk(body, raw_bytes=raw_bytes, name=parsed[1] if parsed else "", what=key, names=names)


async def _verify_segment(fetch: Fetch, key: str, size_bytes: int, database_id: str) -> Verified:
    parsed = parse_segment(key)
    if parsed is None:
        raise AssertionError(key)
    stored = LineSegment(stored=SegmentObject(key=parsed, size_bytes=size_bytes), until=parsed.last)
    if parsed.level:
        return await _verify_rollup(fetch, stored, database_id)
    opened = await open_segment(fetch, stored, database_id=database_id)
    if opened.body is not None:
        check_size(key, size_bytes, opened.body)
    await _check_pages(fetch, opened)
    return Verified(key=key, kind=ObjectKind.SEGMENT, log=LogPart(key=parsed, at=partial(_state_at, opened.index)))


async def _check_pages(fetch: Fetch, opened: OpenSegment) -> None:
    """Unpack the blocks of a segment, which may stand in a roll-up; those of a large one are fetched piece by piece."""
    stored, index = opened.segment.stored, opened.index
    if opened.body is not None:
        await fetch.threads.run(_check_blocks, stored.what, index, range(len(index.blocks)), 0, opened.body)
        return
    for row in rows(range(len(index.blocks)), lambda number: index.blocks[number].stored_bytes, most_bytes=WHOLE_BYTES):
        first, last = index.blocks[row[0]], index.blocks[row[-1]]
        check = partial(_check_blocks, stored.what, index, row, first.offset)
        stop = stored.offset + last.offset + last.stored_bytes
        await fetch.proven(stored.name, check, start=stored.offset + first.offset, stop=stop)


async def _verify_rollup(fetch: Fetch, stored: LineSegment, database_id: str) -> Verified:
    """Check every segment in a roll-up, and that they follow one another; it tells of the states between them."""
    key = stored.stored.key
    states: dict[TXID, State] = {}
    whole = PlannedSegment(stored=stored, after=TXID(key.first - 1), through=key.last)
    try:
        async for part, opened in opened_newest_first(fetch, (whole,), database_id=database_id):
            member = opened or await open_segment(fetch, part.stored, database_id=database_id)
            await _check_pages(fetch, member)
            before, after = TXID(part.key.first - 1), member.state_after(part.key.last)
            if states.setdefault(part.key.last, after) != after:
                newer = states[part.key.last]
                expected, found = (f"checksum {one.checksum:016x}, {one.pages} pages" for one in (newer, after))
                where = f"state after TXID {part.key.last}"
                raise Damaged(what=stored.name, where=where, expected=expected, found=found)
            states[before] = member.state_after(before)
    except Unusable as fault:
        raise fault.error from None
    return Verified(key=stored.name, kind=ObjectKind.SEGMENT, log=LogPart(key=key, at=states.get))


def _state_at(index: SegmentIndex, txid: TXID) -> State | None:
    header = index.header
    if txid == header.first_txid - 1:
        return State(header.checksum_before, header.pages_before)
    if not header.first_txid <= txid <= index.last_txid:
        return None
    transaction = index.transactions[txid - header.first_txid]
    return State(transaction.checksum, transaction.pages)


def _check_blocks(what: str, index: SegmentIndex, numbers: Sequence[int], offset: int, body: bytes) -> None:
    """Check blocks; `body` is the object from `offset` on. One that refers to older pages has only its hash looked at.

    That hash was compared when the index was read: such a segment is small, and was opened whole.
    """
    if index.references:
        return
    view = memoryview(body)
    for number in numbers:
        block = index.blocks[number]
        stored = view[block.offset - offset : block.offset - offset + block.stored_bytes]
        read_block(index, number, stored, what=what)


def check_size(what: str, size_bytes: int, body: bytes) -> None:
    """Refuse a body of another size than was listed.

    Raises:
        Damaged: it is.
    """
    if len(body) != size_bytes:
        raise Damaged(what=what, where="size", expected=f"{size_bytes} bytes, as listed", found=f"{len(body)} bytes")


def _must_be_of(what: str, database_id: str | None, found: str) -> None:
    if database_id is not None:
        _must_equal(what, "database_id", database_id, found)


def _must_equal(what: str, where: str, expected: object, found: object) -> None:
    if expected != found:
        raise Damaged(what=what, where=where, expected=expected, found=found)
