"""Segments written front to back: pages go in, finished bytes come out, only the index stays in memory.

Page images of consecutive transactions share blocks, so that many small commits compress as well as
one large one, and several versions of a hot page compress against each other.
"""

from __future__ import annotations

import struct
from array import array
from operator import le
from typing import TYPE_CHECKING, TypeAlias

import xxhash

from replicad import zstd
from replicad.document import MAX_MS, MAX_PAGES
from replicad.position import TXID, WALPosition, lock_page
from replicad.segment.buffer import BlockBuffer
from replicad.segment.columns import Contents
from replicad.segment.compact import check_wal_position, encode_end, most_references
from replicad.segment.form import (
    BLOCK,
    MAX_BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_FRAMES,
    MAX_REFERRING_BYTES,
    MAX_TRANSACTIONS,
    TRANSACTION,
)
from replicad.segment.header import SegmentHeader, encode_head

if TYPE_CHECKING:
    from collections.abc import Sequence

PageImage: TypeAlias = bytes | bytearray | memoryview


class SegmentEncoder:
    """Encodes one segment.

    Call `add_pages` and `commit` for each transaction, `take` whenever output should leave memory, and
    `finish` once. Between calls it holds less than `block_bytes` of page images, the output not yet
    taken, and for the index 4 bytes a frame and 24 bytes a transaction.

    Args:
        header: what the segment continues from.
        level: zstd's level.
        block_bytes: raw bytes of a full block; at least a page goes into each.
        buffer: where the page images of a block gather; nobody else uses it until `finish`. None: one of its own.

    Raises:
        ValueError: a field of the header is out of range.
    """

    def __init__(
        self, header: SegmentHeader, *, level: int = 1, block_bytes: int = 4 << 20, buffer: BlockBuffer | None = None
    ) -> None:
        head = encode_head(header)
        self.header = header
        self.raw_bytes = 0  # page images taken in
        self.transactions = 0  # committed
        self.last_ms = 0
        self.checksum = header.checksum_before  # after the last commit
        self._level = level
        self._block_frames = max(1, min(block_bytes, MAX_BLOCK_BYTES) // header.page_size)
        self._lock_page = lock_page(header.page_size)
        self._buffer = buffer or BlockBuffer()  # holds the page images of the block being filled
        self._pending_frames = 0
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._head = head
        self._references = array("I")
        self._reference_images = b""
        self._committed_frames = 0
        self._pgnos = array("I")
        self._transaction_records = bytearray()
        self._block_records = bytearray()
        self._finished = False
        self._emit(head)

    @property
    def buffered_bytes(self) -> int:
        """Page images and output held in memory now (not the index)."""
        return self._pending_frames * self.header.page_size + self._output_bytes

    @property
    def held_bytes(self) -> int:
        """All that is held in memory now: what is buffered, and the index."""
        index_bytes = (
            len(self._transaction_records) + len(self._block_records) + self._pgnos.itemsize * len(self._pgnos)
        )
        return self.buffered_bytes + index_bytes

    @property
    def last_txid(self) -> TXID:
        """The last committed transaction, `first_txid - 1` before the first commit."""
        return TXID(self.header.first_txid + self.transactions - 1)

    def add_pages(self, pgnos: Sequence[int], images: Sequence[PageImage]) -> None:
        """Add page images to the open transaction, in WAL order; a page may come again.

        The images are copied before this returns, so that their buffers may be used again.

        Raises:
            ValueError: a page number or an image's size is wrong, or the segment is full or finished;
                nothing was added.
        """
        self._check_pages(pgnos, images)
        self._pgnos.extend(pgnos)
        self.raw_bytes += len(images) * self.header.page_size
        start = 0
        while start < len(images):
            stop = start + self._block_frames - self._pending_frames
            self._fill(images[start:stop])
            if self._pending_frames == self._block_frames:
                self._close_block()
            start = stop

    def commit(self, *, commit_ms: int, pages: int, checksum: int) -> None:
        """Close the open transaction: all pages added since the last commit are its own.

        Args:
            commit_ms: when it was committed, Unix time in ms, UTC; not lower than the one before.
            pages: size of the database after it.
            checksum: of the state after it.

        Raises:
            ValueError: a number is out of range, or the segment is full or finished.
        """
        if self._finished or self.transactions == MAX_TRANSACTIONS:
            raise ValueError("the segment is finished, or full of transactions")
        if not self.last_ms <= commit_ms <= MAX_MS or not 1 <= pages <= MAX_PAGES or not 0 <= checksum < 1 << 64:
            raise ValueError(f"commit at {commit_ms} ms (after {self.last_ms}), {pages} pages, checksum {checksum:x}")
        frames = len(self._pgnos) - self._committed_frames
        self._transaction_records += TRANSACTION.pack(commit_ms, checksum, pages, frames)
        self._committed_frames += frames
        self.transactions += 1
        self.last_ms = commit_ms
        self.checksum = checksum

    def refer(self, pgnos: Sequence[int], images: Sequence[bytes]) -> None:
        """Have the pages be packed by what differs from these, which the segment then cannot be read without.

        To be called before `finish`, for a segment of at most MAX_REFERRING_BYTES that was kept in one block.

        Args:
            pgnos: different pages of the state that the segment continues from; the most useful ones last.
            images: what they held in that state.

        Raises:
            ValueError: there are too many, or one is no page of that state, or the segment is too large.
        """
        size, lock = self.header.page_size, self._lock_page
        known = all(1 <= pgno <= self.header.pages_before and pgno != lock for pgno in pgnos)
        if not known or len(set(pgnos)) != len(pgnos) or len(pgnos) > most_references(size):
            raise ValueError(f"pages {list(pgnos)} of a state of {self.header.pages_before} pages")
        if len(images) != len(pgnos) or any(len(image) != size for image in images):
            raise ValueError(f"an image is not of {size} bytes, or there are not as many as pages")
        if self._finished or self._block_records or self.raw_bytes > MAX_REFERRING_BYTES or not self._pending_frames:
            raise ValueError(f"a segment of {self.raw_bytes} bytes cannot refer to others")
        self._references = array("I", pgnos)
        self._reference_images = b"".join(images)

    def commit_all(
        self, *, commit_ms: Sequence[int], pages: Sequence[int], checksums: Sequence[int], frames: Sequence[int]
    ) -> None:
        """Close transactions whose pages were added at once, which costs less for each; as `commit` for each.

        Args:
            commit_ms: of each, and so on; the sequences run in parallel.
            pages: size of the database after it.
            checksums: of the state after it.
            frames: how many of the pages added since the last commit are its own.

        Raises:
            ValueError: as in `commit`; none of them was closed.
        """
        if self._finished or self.transactions + len(commit_ms) > MAX_TRANSACTIONS:
            raise ValueError("the segment is finished, or full of transactions")
        in_order = self.last_ms <= commit_ms[0] and all(map(le, commit_ms, commit_ms[1:]))
        if not in_order or commit_ms[-1] > MAX_MS or min(pages) < 1 or max(pages) > MAX_PAGES:
            raise ValueError(f"commits from {commit_ms[0]} to {commit_ms[-1]} ms (after {self.last_ms})")
        added, own = len(self._pgnos) - self._committed_frames, sum(frames)
        if min(frames) < 0 or own > added:
            raise ValueError(f"transactions of {own} frames, {added} were added")
        try:
            records = b"".join(map(TRANSACTION.pack, commit_ms, checksums, pages, frames))
        except struct.error as error:
            raise ValueError(f"a number is out of range: {error}") from error
        self._transaction_records += records
        self._committed_frames += own
        self.transactions += len(commit_ms)
        self.last_ms = commit_ms[-1]
        self.checksum = checksums[-1]

    def take(self) -> list[bytes]:
        """Return the output finished since the last call, to be stored in order, and let go of it."""
        output = self._output
        self._output = []
        self._output_bytes = 0
        return output

    def finish(self, wal_end: WALPosition) -> list[bytes]:
        """Return the rest of the output, with the index and the trailer.

        Args:
            wal_end: the place in the WAL behind the last transaction.

        Raises:
            ValueError: a transaction is open, or none was committed, or `wal_end` is no such place.
        """
        if self._finished or not self.transactions or self._committed_frames != len(self._pgnos):
            raise ValueError("the segment is finished already, or empty, or a transaction is open")
        check_wal_position(wal_end)
        self._finished = True
        if self._pending_frames:
            self._close_block()
        contents = Contents(
            header=self.header,
            transactions=self._transaction_records,
            pgnos=self._pgnos,
            blocks=self._block_records,
            wal_end=wal_end,
            references=self._references,
            reference_hash=xxhash.xxh3_64_intdigest(self._reference_images),
        )
        self._output.append(encode_end(self._head, contents, level=self._level))
        return self.take()

    def _check_pages(self, pgnos: Sequence[int], images: Sequence[PageImage]) -> None:
        blocks = (len(self._pgnos) + len(pgnos)) // self._block_frames + 1
        if self._finished or len(self._pgnos) + len(pgnos) > MAX_FRAMES or blocks > MAX_BLOCKS:
            raise ValueError("the segment is finished, or full")
        if len(pgnos) != len(images):
            raise ValueError(f"{len(pgnos)} page numbers for {len(images)} images")
        if not pgnos:
            return
        if min(pgnos) < 1 or max(pgnos) > MAX_PAGES or self._lock_page in pgnos:
            raise ValueError(f"page numbers {min(pgnos)} to {max(pgnos)}: out of range, or the lock page is among them")
        if set(map(len, images)) != {self.header.page_size}:
            raise ValueError(f"an image is not of {self.header.page_size} bytes")

    def _fill(self, images: Sequence[PageImage]) -> None:
        size, used = self.header.page_size, self._pending_frames * self.header.page_size
        needed = used + len(images) * size
        with self._buffer.reach(needed, used_bytes=used, most_bytes=self._block_frames * size) as block:
            # One by one: joined first, each would be copied twice.
            for at, image in zip(range(used, needed, size), images, strict=True):
                block[at : at + size] = image
        self._pending_frames += len(images)

    def _close_block(self) -> None:
        used = self._pending_frames * self.header.page_size
        raw = self._buffer.reach(used, used_bytes=used, most_bytes=used)[:used]
        if self._references:
            stored = zstd.compress_after(raw, self._reference_images)
        else:
            stored = zstd.compress(raw, self._level)
        self._block_records += BLOCK.pack(len(stored), self._pending_frames, xxhash.xxh3_64_intdigest(stored))
        self._pending_frames = 0
        self._emit(stored)

    def _emit(self, stored: bytes) -> None:
        self._output.append(stored)
        self._output_bytes += len(stored)
