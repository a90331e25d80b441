"""Segments opened: small ones whole, large ones by their index, each proven to be what its key says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from replicad.errors import Damaged
from replicad.segment import HEAD_BYTES_HINT, TRAILER_BYTES, SegmentIndex, decode, read_index, read_trailer

if TYPE_CHECKING:
    from replicad.plan.line import LineSegment
    from replicad.plan.target import CommitTimes
    from replicad.position import TXID
    from replicad.restore.fetch import Fetch
    from replicad.segment import CompactTrailer, Trailer

WHOLE_BYTES = 4 << 20
"""A segment up to this size is fetched in one request; of a larger one only the blocks that are needed."""

_MIN_TAIL_BYTES = 64 << 10
_MAX_TAIL_BYTES = 1 << 20
_INDEX_SHARE = 8  # the page numbers are no more than this part of a segment
_TRANSACTION_BYTES = 256  # of memory, for each that was read
_TAIL_SHARE = 64  # an index is rarely more than this part of a segment


class State(NamedTuple):
    """What two neighbours in a chain have to agree on."""

    checksum: int
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSegment:
    """A segment whose index was read."""

    segment: LineSegment
    index: SegmentIndex
    body: bytes | None  # the whole object, when it is small

    def state_after(self, txid: TXID) -> State:
        """Return the state after one of its transactions, or before its first one."""
        header = self.index.header
        if txid == header.first_txid - 1:
            return State(header.checksum_before, header.pages_before)
        transaction = self.index.transactions[txid - header.first_txid]
        return State(transaction.checksum, transaction.pages)

    def commit_ms(self, txid: TXID) -> int:
        """Return when one of its transactions was committed."""
        return self.index.transactions[txid - self.index.header.first_txid].commit_ms

    @property
    def commit_times(self) -> CommitTimes:
        """When each of its transactions was committed."""
        return tuple((transaction.txid, transaction.commit_ms) for transaction in self.index.transactions)


def index_bytes(segment: LineSegment) -> int:
    """Return about how much memory an opened segment takes."""
    key, size_bytes = segment.stored.key, segment.stored.size_bytes
    held_bytes = size_bytes if size_bytes <= WHOLE_BYTES else 2 * _tail_bytes(size_bytes)
    return held_bytes + held_bytes // _INDEX_SHARE + (key.last + 1 - key.first) * _TRANSACTION_BYTES


async def open_segment(fetch: Fetch, segment: LineSegment, *, database_id: str) -> OpenSegment:
    """Return the segment opened.

    Raises:
        Damaged: it is not a segment, or another one than its key says.
        NewerFormat: it was written by a later replicad.
        ObjectMissing: it is not there (any more).
        StoreUnreachable: the store does not answer.
        StoreRefused: the store does not let us.
    """
    stored = segment.stored
    if stored.is_rollup:
        raise ValueError(f"{stored.what} is a roll-up: its segments are opened one by one")
    body: bytes | None = None
    if stored.size_bytes <= WHOLE_BYTES:
        begin, stop = stored.offset, None if stored.inside is None else stored.offset + stored.size_bytes
        index, body = await fetch.proven(segment.name, partial(_decode_whole, stored.what), start=begin, stop=stop)
    else:
        index = await _open_large(fetch, segment)
    opened = OpenSegment(segment=segment, index=index, body=body)
    _check_identity(opened, database_id)
    return opened


def decode_member(segment: LineSegment, rollup: bytes, offset: int, database_id: str | None) -> OpenSegment:
    """Return a segment of a roll-up opened; `rollup` is the object from `offset` on, `database_id` None any one's.

    Raises:
        Damaged: it is not a segment, or another one than the directory says.
        NewerFormat: it was written by a later replicad.
    """
    stored = segment.stored
    body = rollup[stored.offset - offset : stored.offset - offset + stored.size_bytes]
    opened = OpenSegment(segment=segment, index=decode(body, what=stored.what), body=body)
    _check_identity(opened, database_id)
    return opened


def _decode_whole(what: str, body: bytes) -> tuple[SegmentIndex, bytes]:
    return decode(body, what=what), body


def _tail_bytes(size_bytes: int) -> int:
    return min(max(size_bytes // _TAIL_SHARE, _MIN_TAIL_BYTES), _MAX_TAIL_BYTES)


async def _open_large(fetch: Fetch, segment: LineSegment) -> SegmentIndex:
    """Read the trailer, what it says of the index, and the head."""
    name, what, size_bytes, begin = (
        segment.name,
        segment.stored.what,
        segment.stored.size_bytes,
        segment.stored.offset,
    )
    tail_offset = size_bytes - _tail_bytes(size_bytes)

    def read_tail(tail: bytes) -> tuple[Trailer | CompactTrailer, bytes]:
        return read_trailer(tail[-TRAILER_BYTES:], object_bytes=size_bytes, what=what), tail

    trailer, tail = await fetch.proven(name, read_tail, start=begin + tail_offset, stop=begin + size_bytes)
    stop = trailer.index_offset + trailer.index_bytes
    held = (
        tail[trailer.index_offset - tail_offset :][: trailer.index_bytes]
        if trailer.index_offset >= tail_offset
        else b""
    )

    async def whole_index() -> SegmentIndex:
        head = await fetch.read(name, start=begin, stop=begin + max(HEAD_BYTES_HINT, trailer.data_offset))
        stored = held or await fetch.read(name, start=begin + trailer.index_offset, stop=begin + stop)
        return await fetch.threads.run(read_index, head, stored, trailer, what=what)

    try:
        return await whole_index()
    except Damaged:  # a second look, as in `Fetch.proven`
        held = b""
        return await whole_index()


def _check_identity(opened: OpenSegment, database_id: str | None) -> None:
    """A sound object under another's key is as bad as a broken one."""
    key, header = opened.segment.stored.key, opened.index.header
    newest = opened.index.transactions[-1]
    for where, expected, found in (
        ("database_id", header.database_id if database_id is None else database_id, header.database_id),
        ("epoch", key.epoch, header.epoch),
        ("first TXID", key.first, header.first_txid),
        ("last TXID", key.last, newest.txid),
        ("last commit time", key.last_ms, newest.commit_ms),
    ):
        if expected != found:
            raise Damaged(what=opened.segment.stored.what, where=where, expected=expected, found=found)
