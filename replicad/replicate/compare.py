"""Capture by comparison, for a database that stays in a rollback-journal mode (`wal: keep`).

There is no log to follow. Each change of the file's change counter is answered by reading the whole database under
a shared lock, and by making one transaction of the pages that differ. The lock keeps commits out while it is held,
so it is held for reading only, never for sending: a large difference waits in a temporary file on the disk, and a
snapshot reads chunk by chunk, each proven to be still the state it belongs to.
"""

from __future__ import annotations

import tempfile
import threading
from typing import TYPE_CHECKING

import apsw

from replicad.host.files import free_bytes
from replicad.layout import SegmentKey
from replicad.position import NO_WAL, TXID, WALPosition
from replicad.replicate.beat import Beat, Round, Wishes
from replicad.replicate.capture import Capture
from replicad.replicate.pinned import Pinned
from replicad.replicate.reading import Beginning, CaptureLimits, End, Reached
from replicad.sqlite.image import Image
from replicad.sqlite.source import Index, begin_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.host.clock import Clock
    from replicad.replicate.stream import TransactionStream
    from replicad.sqlite.source import Source
    from replicad.wal import PageTable

_BATCH_BYTES = 4 << 20
_PART_BYTES = 1 << 20
_CHANGE_COUNTER = (24, 4)  # offset and length in the database header


class ComparingCapture(Capture):
    """One database in a rollback-journal mode. Commits between two looks become one transaction."""

    def __init__(self, source: Source, beginning: Beginning, *, limits: CaptureLimits, clock: Clock) -> None:
        """Take over the state that `beginning` was made from; its pin is held, and let go here."""
        super().__init__(source, beginning, limits=limits, clock=clock)
        self._seen = self._stamp()
        self._looks = 0
        source.release()

    def changed(self) -> bool:
        """Return whether the database was written to since it was read last."""
        return self._stamp() != self._seen

    def was_replaced(self) -> bool:
        """Return whether another file stands at the path, or it is in another form: the application switched it."""
        return self.source.was_replaced() or self.source.was_converted()

    def bytes_behind(self, position: WALPosition) -> int:
        """Return 0: nothing is kept from being written."""
        del position
        return 0

    def unread_bytes(self) -> int:
        """Return 0: how much differs is not known before it is compared."""
        return 0

    def read(self, *, segments: int = 1) -> Reached:
        """Compare, if anything changed, and take the difference into the open segment."""
        if not self.changed():
            self._looks += 1
            return Reached.END
        if self._is_full(segments):
            return Reached.FULL
        try:
            self.source.hold()
        except apsw.BusyError:  # the application is committing: the next look finds it
            return Reached.END
        try:
            return Reached.END if self.source.was_converted() else self._compare()
        finally:
            self.source.release()

    def mark_end(self) -> End:
        """Return a mark that is passed by the next look that finds nothing new."""
        return End(index=Index(frames=self._looks, backfilled=0, salts=b""), since=b"")

    def has_read(self, end: End) -> bool:
        """Return whether everything that was committed when `end` was marked has been read."""
        return self._looks > end.index.frames

    def oversized(self) -> TransactionStream | None:
        """Return the difference, when it is too large for memory; it waits in a temporary file."""
        self.source.hold()
        try:
            stamp = self._stamp()
            return SpooledDifference(self, self._image(), stamp)
        finally:
            self.source.release()

    def find_difference(self) -> TransactionStream | None:
        """Return the difference to the state that was read last; None when they are the same."""
        self.source.hold()
        try:
            stamp, image = self._stamp(), self._image()
            same = image.pages == self.table.pages and not any(
                self.table.differing(first, images) for first, images in image.batches(_BATCH_BYTES)
            )
            if same:
                self._seen = stamp
                return None
            return SpooledDifference(self, image, stamp)
        finally:
            self.source.release()

    def move_pin(self, *, segments: int = 1) -> bool:
        """Do nothing: no pin is held between two looks."""
        del segments
        return True

    def pin_beginning(self, index: Index) -> Pinned:
        """Return the state from which reading begins, to be read chunk by chunk as long as it stands."""
        del index
        return self._momentary()

    def pin_state(self, *, skip: bool) -> Pinned | None:
        """Return the state that was read last, to be read chunk by chunk as long as it stands."""
        del skip
        if self.read() is not Reached.END or self.changed():
            return None
        self._references.forbid()
        return self._momentary()

    def spooled(self, table: PageTable, stamp: bytes) -> None:
        """Go on behind a difference that is durable: the state of this table, with this stamp."""
        self.table, self._seen = table, stamp
        self.next_txid = TXID(self.next_txid + 1)

    def _momentary(self) -> Pinned:
        pin = self.source.open_pin()
        return Pinned(
            txid=TXID(self.next_txid - 1),
            ms=self.last_ms,
            position=NO_WAL,
            image=MomentaryImage(self.source, pages=self.table.pages, pin=pin),
            table=self.table.copy(),
            dirty=frozenset(self.written.take()),
            still=False,
            release=lambda: self.source.close_pin(pin),
        )

    def _stamp(self) -> bytes:
        """Return what changes with every transaction: the change counter, and the size for good measure."""
        offset, length = _CHANGE_COUNTER
        return self.source.read_file(offset, length) + self.source.size_bytes().to_bytes(8, "big")

    def _image(self) -> Image:
        return Image(self.source, pages=self.source.page_count(), overlay={})

    def _compare(self) -> Reached:
        stamp, image = self._stamp(), self._image()
        pgnos: list[int] = []
        images: list[memoryview] = []
        for first, batch in image.batches(_BATCH_BYTES):
            for pgno in self.table.differing(first, batch):
                pgnos.append(pgno)
                images.append(memoryview(bytes(batch[pgno - first])))
            if len(images) * image.page_size > self._limits.segment_bytes:
                return Reached.OVERSIZED
        self._seen = stamp
        self._looks += 1
        if pgnos or image.pages != self.table.pages:
            self._add(pgnos or [1], images or [memoryview(image.read(1, 1))], image.pages)
        return Reached.END

    def _add(self, pgnos: list[int], images: list[memoryview], pages: int) -> None:
        commit_ms = self.now_ms()
        if self._open is None:
            self._open = self.begin_segment()
            self._references.begin(self.table)
            self.open_since_ms = commit_ms
        self._references.before_write(pgnos, self.table)
        self.table.write(pgnos, images)
        self.written.cut(pages, self.table.pages)
        checksum = self.table.commit(pages)
        self._open.add_pages(pgnos, images)
        self._open.commit(commit_ms=commit_ms, pages=pages, checksum=checksum)
        self._references.after_write(pgnos, images, low_pages=pages)
        self.next_txid = TXID(self.next_txid + 1)
        self.written.add(pgnos)


class SpooledDifference:
    """A difference that was read, compressed and written to a temporary file; sent from there."""

    def __init__(self, capture: ComparingCapture, image: Image, stamp: bytes) -> None:
        """Read it. A shared lock is held meanwhile."""
        self._capture = capture
        self._stamp = stamp
        commit_ms = capture.now_ms()
        self.key = SegmentKey(epoch=capture.epoch, first=capture.next_txid, last=capture.next_txid, last_ms=commit_ms)
        self.position: WALPosition = NO_WAL
        self._file = tempfile.TemporaryFile(dir=capture.source.path.parent)  # noqa: SIM115 - closed in `settle`
        encoder = capture.begin_segment()
        self._table = table = capture.table.copy()  # takes effect when the difference is durable
        for first, images in image.batches(_BATCH_BYTES):
            pgnos = table.differing(first, images)
            if first == 1 and 1 not in pgnos:  # a transaction has a page, also when the database only shrank
                pgnos = [1, *pgnos]
            changed = [images[pgno - first] for pgno in pgnos]
            table.write(pgnos, changed)
            capture.written.add(pgnos)
            encoder.add_pages(pgnos, changed)
            self._file.writelines(encoder.take())
        capture.written.cut(image.pages, capture.table.pages)
        checksum = table.commit(image.pages)
        encoder.commit(commit_ms=commit_ms, pages=image.pages, checksum=checksum)
        self._file.writelines(encoder.finish(NO_WAL))

    def parts(self) -> Iterator[bytes]:
        """Read the file from the front."""
        self._file.seek(0)
        while part := self._file.read(_PART_BYTES):
            yield part

    def undo(self) -> None:
        """Do nothing: the page table was not touched, and the same bytes are sent again."""

    def settle(self) -> None:
        """Go on behind the transaction, which is durable now."""
        self._file.close()
        self._capture.spooled(self._table, self._stamp)


class MomentaryImage(Image):
    """A state that is locked only while a piece of it is read; the reader's proof tells whether it still stood."""

    def __init__(self, source: Source, *, pages: int, pin: apsw.Connection) -> None:
        super().__init__(source, pages=pages, overlay={})
        self._pin = pin
        self._lock = threading.Lock()

    def read(self, first: int, count: int) -> bytearray:
        """Return `count` pages from number `first`, the lock page as zeros."""
        with self._lock:
            begin_read(self._pin)
            try:
                return super().read(first, count)
            finally:
                self._pin.execute("ROLLBACK")


class ComparingBeat(Beat):
    """Looks at the change counter; there is no pin to move and no WAL to make room in."""

    def glance(self) -> None:
        """Nothing can be told: the change counter is not to be trusted without a lock."""

    def _round(self, wishes: Wishes) -> Round:
        del wishes
        capture = self.capture
        before = capture.next_txid
        replaced = capture.was_replaced()
        reached = Reached.END if replaced else capture.read()
        return Round(
            news=capture.next_txid != before,
            reached=reached,
            replaced=replaced,
            blocking=False,
            waited_seconds=0.0,
            stuck=False,
            pause_seconds=None,
            unread_bytes=0,
            wal_bytes=0,
            room=None,
            failed=None,
            disk_free_bytes=free_bytes(capture.source.path.parent),
        )
