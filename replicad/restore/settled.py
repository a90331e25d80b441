"""Which pages already have their last version.

A chain is gone through from its newest segment to its oldest, and the snapshot comes last. So the first
version of a page that turns up is the one that counts, every page is written once, in any order, and what
holds only older versions need not be fetched at all.

A transaction that makes the database smaller ends the life of the pages behind its new end: what they held
before never comes back, not even when the database grows again. A page that the growth skipped is zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.position import TXID, lock_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.segment import SegmentIndex

Frames = list[tuple[int, int]]
"""(page number, number of the frame in its segment), for frames that are to be written."""


class Settled:
    """One byte a page, for a database of `pages` pages.

    Args:
        pages: size of the database that is restored.
        page_size: in bytes; tells which page is the lock page, which is never written.
    """

    def __init__(self, pages: int, page_size: int) -> None:
        self.bound = pages  # older versions of pages behind this one are dead
        self._pages = bytearray(pages)
        lock = lock_page(page_size)
        if lock <= pages:
            self._pages[lock - 1] = 1

    def frames(self, index: SegmentIndex, after: TXID, through: TXID) -> Iterator[tuple[int, Frames]]:
        """Settle pages by the transactions behind `after` up to `through`, newest first.

        Yields the number of each block with frames to be written, and these.
        """
        first = index.header.first_txid
        applied = index.transactions[after + 1 - first : through + 1 - first]
        end = sum(transaction.frames for transaction in index.transactions[: through + 1 - first])
        number = len(index.blocks) - 1
        wanted: Frames = []
        for transaction in reversed(applied):
            self.bound = min(self.bound, transaction.pages)
            begin = end - transaction.frames
            while end > begin:
                block = index.blocks[number]
                if block.first_frame >= end:
                    if wanted:
                        yield number, wanted
                        wanted = []
                    number -= 1
                    continue
                part = max(begin, block.first_frame)
                wanted += self._settle(index, part, end)
                end = part
        if wanted:
            yield number, wanted

    def runs(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Return (index, count) of the unsettled pages in a row among `count` pages from index `first` (0-based)."""
        stop = min(first + count, self.bound)
        begin = self._pages.find(0, first, stop) if first < stop else -1
        while begin >= 0:
            end = self._pages.find(1, begin, stop)
            if end < 0:
                yield begin, stop - begin
                return
            yield begin, end - begin
            begin = self._pages.find(0, end, stop)

    def _settle(self, index: SegmentIndex, begin: int, end: int) -> Frames:
        pages, bound = self._pages, self.bound
        wanted: Frames = []
        for frame in range(end - 1, begin - 1, -1):
            pgno = index.pgnos[frame]
            if pgno <= bound and not pages[pgno - 1]:
                pages[pgno - 1] = 1
                wanted.append((pgno, frame))
        return wanted
