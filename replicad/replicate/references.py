"""Which older pages a segment refers to, and what was in them: a commit that changes a row costs what it changed.

A segment may refer to any page of the state that it continues from (docs/format.md). That state is gone when the
segment is closed, so what its pages held is kept when they are first written to: from the pages that were read last,
or from the database file. Neither is believed: a page is referred to if it hashes to what the page table has for that
state. An old copy, a torn read or a page that only the WAL has costs bytes, never a wrong reference.

A restore that begins at a snapshot knows no state before it. So a segment that lies on both sides of one refers to
nothing; nor do the first one of a session, and one in a while for good measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.segment import MAX_REFERRING_BYTES, most_references
from replicad.wal import page_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicad.segment import PageImage, SegmentEncoder
    from replicad.wal import PageTable

_RECENT_BYTES = 1 << 20
_RECENT_PAGES = 256
_NEIGHBOURS = 8  # pages written lately that a segment refers to though it does not write them: rows are alike
_MOST_IN_A_ROW = 255  # segments that refer to others
_BATCH_PAGES = 64  # of a larger batch, only so many are kept as recent


class References:
    """What one capture knows of older pages: at most 1 MiB of recent ones, and what the open segment may refer to.

    Args:
        page_size: in bytes.
        read_page: returns a page as it stands in the database file.
    """

    def __init__(self, page_size: int, read_page: Callable[[int], bytes]) -> None:
        self._page_size = page_size
        self._read_page = read_page
        self._most = most_references(page_size)
        self._most_recent = min(_RECENT_PAGES, _RECENT_BYTES // page_size)
        self._recent: dict[int, bytes] = {}  # by page number, the one written last at the end
        self._in_a_row = _MOST_IN_A_ROW  # the first segment refers to nothing
        self._wanted = False  # the open segment may refer
        self._raw_bytes = 0  # in the open segment
        self._low_pages = 0  # the smallest the database was since the open segment began
        self._touched: set[int] = set()  # pages that the open segment has written to
        self._found: dict[int, bytes] = {}  # what some of them held before it

    def begin(self, table: PageTable) -> None:
        """Note that a segment begins with the state that the table describes."""
        self._wanted = self._in_a_row < _MOST_IN_A_ROW
        self._low_pages = table.pages
        self._raw_bytes = 0
        self._touched.clear()
        self._found.clear()

    def forbid(self) -> None:
        """Have the open segment, if there is one, refer to nothing."""
        self._wanted = False

    def before_write(self, pgnos: Sequence[int], table: PageTable) -> None:
        """Keep what the pages hold that the open segment writes to for the first time; the table is not written yet."""
        self._raw_bytes += len(pgnos) * self._page_size
        if self._raw_bytes > MAX_REFERRING_BYTES:
            self.forbid()
        if not self._wanted:
            return
        for pgno in pgnos:
            # A page that was cut off since the segment began, and came back, is not what it was.
            if pgno not in self._touched and pgno <= self._low_pages and len(self._found) < self._most:
                self._find(pgno, table)
            self._touched.add(pgno)

    def after_write(self, pgnos: Sequence[int], images: Sequence[PageImage], *, low_pages: int) -> None:
        """Note what the pages hold now; behind none of the transactions was the database smaller than `low_pages`."""
        self._low_pages = min(self._low_pages, low_pages)
        recent = self._recent
        newest: dict[int, PageImage] = {}
        for pgno, image in zip(reversed(pgnos[-_BATCH_PAGES:]), reversed(images[-_BATCH_PAGES:]), strict=True):
            newest.setdefault(pgno, image)
        for pgno in reversed(newest):
            recent.pop(pgno, None)
            recent[pgno] = bytes(newest[pgno])
        while len(recent) > self._most_recent:
            del recent[next(iter(recent))]

    def refer(self, segment: SegmentEncoder, table: PageTable) -> None:
        """Give the segment, which is complete, its references; `table` is of the state behind it."""
        chosen = {}
        if self._wanted and 0 < segment.raw_bytes <= MAX_REFERRING_BYTES:
            chosen = self._neighbours(table) | dict(reversed(self._found.items()))
        self._in_a_row = self._in_a_row + 1 if chosen else 0
        if chosen:
            segment.refer(list(chosen), list(chosen.values()))
        self._wanted = False
        self._touched.clear()
        self._found.clear()

    def _find(self, pgno: int, table: PageTable) -> None:
        for image in (self._recent.get(pgno), None):
            found = self._read_page(pgno) if image is None else image
            if page_hash(found, pgno) == table.hash_of(pgno):
                self._found[pgno] = found
                return

    def _neighbours(self, table: PageTable) -> dict[int, bytes]:
        """Return the pages written last that the segment did not write to; they are as they were before it."""
        chosen: list[int] = []
        room = min(_NEIGHBOURS, self._most - len(self._found))
        for pgno in reversed(self._recent):
            if len(chosen) >= room:
                break
            if pgno not in self._touched and pgno <= self._low_pages:
                chosen.append(pgno)
        pages = {pgno: self._recent[pgno] for pgno in reversed(chosen)}
        return {pgno: image for pgno, image in pages.items() if page_hash(image, pgno) == table.hash_of(pgno)}
