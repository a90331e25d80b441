"""One transaction as the parts of one segment, never held whole.

Two kinds need it: a transaction in the WAL that is larger than a segment in memory, and the difference between
the state that was last read and the state that stands there, when what came between is gone. Both write the page
table as they go; `undo` puts it back, so that a broken upload can begin again from the front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from replicad.layout import SegmentKey
from replicad.position import WALPosition
from replicad.wal import SaltsMoved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.replicate.capture import Capture
    from replicad.sqlite.image import Image

_BATCH_BYTES = 4 << 20


class TransactionStream(Protocol):
    """A transaction that is sent while it is read."""

    key: SegmentKey

    @property
    def position(self) -> WALPosition:
        """The position behind the transaction."""
        ...

    def parts(self) -> Iterator[bytes]:
        """Read, hash and compress the transaction front to back."""
        ...

    def undo(self) -> None:
        """Put the page table back to where it was before `parts`."""
        ...

    def settle(self) -> None:
        """Go on behind the transaction, which is durable now."""
        ...


class OversizedTransaction:
    """The next transaction in the WAL. Its pin must not move before it is settled."""

    def __init__(self, capture: Capture) -> None:
        """Find the commit frame.

        Raises:
            SaltsMoved: the WAL was reset; look again.
        """
        self._capture = capture
        self._before = capture.table.copy()
        index = capture.source.index()
        self._salts = index.salts
        self._first = index.frames - capture.unread_frames(index) + 1
        self._last, self._pages, self._frame_checksum = self._find_commit(index.frames)
        self._commit_ms = capture.commit_time_ms(self._last)
        self.raw_bytes = (self._last - self._first + 1) * capture.table.page_size
        self.checksum = 0
        self.key = _key(capture, self._commit_ms)

    @property
    def position(self) -> WALPosition:
        """The position behind the transaction."""
        return WALPosition(salts=self._salts, frame=self._last, frame_checksum=self._frame_checksum)

    def parts(self) -> Iterator[bytes]:
        """Read, hash and compress the transaction front to back."""
        capture = self._capture
        encoder = capture.begin_segment()
        step = max(1, _BATCH_BYTES // capture.table.page_size)
        for first in range(self._first, self._last + 1, step):
            frames = capture.source.read(first, min(step, self._last - first + 1), self._salts)
            capture.table.write(frames.pgnos, frames.images)
            capture.written.add(frames.pgnos)
            capture.captured_bytes += len(frames) * capture.table.page_size
            encoder.add_pages(frames.pgnos, frames.images)
            yield from encoder.take()
        capture.written.cut(self._pages, capture.table.pages)
        checksum = capture.table.commit(self._pages)
        encoder.commit(commit_ms=self._commit_ms, pages=self._pages, checksum=checksum)
        yield from encoder.finish(self.position)

    def undo(self) -> None:
        """Put the page table back to where it was before `parts`."""
        self._capture.table = self._before.copy()

    def settle(self) -> None:
        """Go on behind the transaction, which is durable now."""
        self._capture.streamed(self.position)

    def _find_commit(self, end: int) -> tuple[int, int, bytes]:
        page_size = self._capture.table.page_size
        step = max(1, _BATCH_BYTES // page_size)
        for first in range(self._first, end + 1, step):
            frames = self._capture.source.read(first, min(step, end - first + 1), self._salts)
            for at, pages in enumerate(frames.commit_pages):
                if pages:
                    return first + at, pages, frames.checksum(at)
        raise SaltsMoved  # the index ends at a commit frame, so this is another WAL by now


class Difference:
    """All pages that are not as they were last read, as one transaction. Only `find` makes one."""

    def __init__(self, capture: Capture, image: Image, position: WALPosition, *, first_batch: int) -> None:
        self._capture = capture
        self._image = image
        self._before = capture.table.copy()
        self._first_batch = first_batch
        self._commit_ms = capture.now_ms()
        self.position = position
        self.key = _key(capture, self._commit_ms)

    @classmethod
    def find(cls, capture: Capture, image: Image, position: WALPosition) -> Difference | None:
        """Compare the image with the page table; None when nothing differs. Reads up to the first difference."""
        for number, (first, images) in enumerate(image.batches(_BATCH_BYTES)):
            if capture.table.differing(first, images):
                return cls(capture, image, position, first_batch=number)
        if image.pages != capture.table.pages:
            return cls(capture, image, position, first_batch=0)
        return None

    def parts(self) -> Iterator[bytes]:
        """Read, compare, hash and compress front to back."""
        capture, table = self._capture, self._capture.table
        encoder = capture.begin_segment()
        for number, (first, images) in enumerate(self._image.batches(_BATCH_BYTES)):
            # What stands in front of the first difference is skipped, but for page 1: a transaction has a page.
            pgnos = [] if number < self._first_batch else table.differing(first, images)
            if number == 0 and 1 not in pgnos:
                pgnos = [1, *pgnos]
            changed = [images[pgno - first] for pgno in pgnos]
            table.write(pgnos, changed)
            capture.written.add(pgnos)
            encoder.add_pages(pgnos, changed)
            yield from encoder.take()
        capture.written.cut(self._image.pages, capture.table.pages)
        checksum = table.commit(self._image.pages)
        encoder.commit(commit_ms=self._commit_ms, pages=self._image.pages, checksum=checksum)
        yield from encoder.finish(self.position)

    def undo(self) -> None:
        """Put the page table back to where it was before `parts`."""
        self._capture.table = self._before.copy()

    def settle(self) -> None:
        """Go on behind the transaction, which is durable now."""
        self._capture.streamed(self.position)


def _key(capture: Capture, commit_ms: int) -> SegmentKey:
    return SegmentKey(epoch=capture.epoch, first=capture.next_txid, last=capture.next_txid, last_ms=commit_ms)
