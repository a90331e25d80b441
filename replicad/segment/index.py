"""What a segment holds, without its pages: transactions, page numbers, where the blocks are."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from replicad.document import MAX_MS, MAX_PAGES
from replicad.errors import Damaged
from replicad.position import TXID, WALPosition, lock_page
from replicad.segment.form import BLOCK, MAX_BLOCK_BYTES, PGNO, TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replicad.segment.header import SegmentHeader
    from replicad.segment.trailer import Trailer


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One committed transaction of a segment."""

    txid: TXID
    commit_ms: int  # Unix time in ms, UTC; never lower than the transaction's before
    pages: int  # size of the database after it
    checksum: int  # of the state after it
    frames: int  # page images it wrote, a page written twice counted twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One zstd frame of page images."""

    offset: int  # in the object
    stored_bytes: int
    first_frame: int  # number of its first page image in the segment, from 0
    frames: int
    hash: int  # xxh3_64 of the stored bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentIndex:
    """A segment without its pages."""

    header: SegmentHeader
    transactions: tuple[Transaction, ...]  # at least one
    pgnos: array[int]  # typecode "I": the page number of each frame, in WAL order
    blocks: tuple[Block, ...]  # in order, each frame in exactly one
    wal_end: WALPosition
    references: array[int] = field(default_factory=lambda: array("I"))  # typecode "I": older pages, see `read_block`
    reference_hash: int = 0  # xxh3_64 of their contents, one after another

    @property
    def checksum_before(self) -> int:
        """Checksum of the state that the first transaction changes."""
        return self.header.checksum_before

    @property
    def checksum_after(self) -> int:
        """Checksum of the state after the last transaction."""
        return self.transactions[-1].checksum

    @property
    def last_txid(self) -> TXID:
        """The last transaction's number."""
        return self.transactions[-1].txid


def little_endian(numbers: array[int]) -> bytes:
    """Return the numbers as they are stored."""
    if sys.byteorder == "big":  # pragma: no cover - no such machine in CI
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def parse_index(raw: bytes, header: SegmentHeader, trailer: Trailer, *, what: str) -> SegmentIndex:
    """Return the index of version 1 from its unpacked bytes, `trailer.raw_index_bytes` of them.

    Raises:
        Damaged: a number contradicts the others, the header or the trailer.
    """
    pgnos_offset = trailer.transactions * TRANSACTION.size
    blocks_offset = pgnos_offset + trailer.frames * PGNO.size
    view = memoryview(raw)
    blocks = tuple(BLOCK.iter_unpack(view[blocks_offset:]))
    index = SegmentIndex(
        header=header,
        transactions=transactions_of(TRANSACTION.iter_unpack(view[:pgnos_offset]), trailer.first_txid),
        pgnos=numbers_of(view[pgnos_offset:blocks_offset]),
        blocks=blocks_of(blocks, trailer.data_offset),
        wal_end=trailer.wal_end,
    )
    check_index(index, frames=trailer.frames, data_bytes=trailer.index_offset - trailer.data_offset, what=what)
    if index.checksum_after != trailer.checksum_after:
        expected = f"{trailer.checksum_after:016x}"
        raise Damaged(what=what, where="checksum after", expected=expected, found=f"{index.checksum_after:016x}")
    return index


def transactions_of(records: Iterable[tuple[int, int, int, int]], first_txid: int) -> tuple[Transaction, ...]:
    """Return the transactions of (commit_ms, checksum, pages, frames) in order."""
    return tuple(
        Transaction(txid=TXID(txid), commit_ms=commit_ms, pages=pages, checksum=checksum, frames=frames)
        for txid, (commit_ms, checksum, pages, frames) in enumerate(records, start=first_txid)
    )


def numbers_of(stored: memoryview) -> array[int]:
    """Return numbers from the form that `little_endian` gives them."""
    numbers = array("I")
    numbers.frombytes(stored)
    if sys.byteorder == "big":  # pragma: no cover - no such machine in CI
        numbers.byteswap()
    return numbers


def blocks_of(records: Sequence[tuple[int, int, int]], data_offset: int) -> tuple[Block, ...]:
    """Return the blocks of (stored bytes, frames, hash), one behind the other from `data_offset` on."""
    starts = accumulate((stored for stored, _, _ in records), initial=data_offset)
    firsts = accumulate((frames for _, frames, _ in records), initial=0)
    return tuple(
        Block(offset=offset, stored_bytes=stored, first_frame=first, frames=frames, hash=digest)
        for (stored, frames, digest), offset, first in zip(records, starts, firsts, strict=False)
    )


def check_index(index: SegmentIndex, *, frames: int, data_bytes: int, what: str) -> None:
    """Refuse an index whose numbers contradict one another.

    Args:
        index: what was read.
        frames: how many there are, by count of page numbers.
        data_bytes: from the end of the head to the index, which the blocks fill.
        what: names the object in messages.

    Raises:
        Damaged: they do.
    """
    _check_transactions(index, frames, what)
    _check_pgnos(index, what)
    _check_blocks(index, frames, data_bytes, what)


def _check_transactions(index: SegmentIndex, expected_frames: int, what: str) -> None:
    frames = 0
    last_ms = 0
    for transaction in index.transactions:
        where = f"transaction {transaction.txid}"
        if not last_ms <= transaction.commit_ms <= MAX_MS:
            expected = f"a commit time from {last_ms} to {MAX_MS}"
            raise Damaged(what=what, where=where, expected=expected, found=transaction.commit_ms)
        if not 1 <= transaction.pages <= MAX_PAGES:
            raise Damaged(what=what, where=where, expected=f"1 to {MAX_PAGES} pages", found=transaction.pages)
        last_ms = transaction.commit_ms
        frames += transaction.frames
    if frames != expected_frames:
        raise Damaged(what=what, where="frames of all transactions", expected=expected_frames, found=frames)


def _check_pgnos(index: SegmentIndex, what: str) -> None:
    pgnos = index.pgnos
    if not pgnos:
        return
    if min(pgnos) < 1 or max(pgnos) > MAX_PAGES:
        found = f"{min(pgnos)} to {max(pgnos)}"
        raise Damaged(what=what, where="page numbers", expected=f"1 to {MAX_PAGES}", found=found)
    forbidden = lock_page(index.header.page_size)
    if forbidden in pgnos:
        found = f"it in frame {pgnos.index(forbidden)}"
        raise Damaged(what=what, where="page numbers", expected=f"all but the lock page {forbidden}", found=found)


def _check_blocks(index: SegmentIndex, expected_frames: int, data_bytes: int, what: str) -> None:
    most = MAX_BLOCK_BYTES // index.header.page_size
    for number, block in enumerate(index.blocks):
        if not 1 <= block.frames <= most or not block.stored_bytes:
            expected = f"1 to {most} frames in some bytes"
            found = f"{block.frames} in {block.stored_bytes}"
            raise Damaged(what=what, where=f"block {number}", expected=expected, found=found)
    frames = sum(block.frames for block in index.blocks)
    if frames != expected_frames:
        raise Damaged(what=what, where="frames of all blocks", expected=expected_frames, found=frames)
    stored_bytes = sum(block.stored_bytes for block in index.blocks)
    if stored_bytes != data_bytes:
        raise Damaged(what=what, where="bytes of all blocks", expected=data_bytes, found=stored_bytes)
