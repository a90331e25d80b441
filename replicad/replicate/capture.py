"""Following the WAL: every committed frame is read once, in order, before it can disappear.

The rule that all of it serves: the old pin goes only after everything up to the next pin's mark was read
(`move_pin`). Swap the two and a checkpoint between them resets frames that nobody has seen.

Transactions gather in the open segment, in memory, up to a bound. At the bound reading stops, the pin stays,
and the WAL itself is the queue. A transaction larger than the bound is never held whole: `oversized` says so,
and it is streamed (see stream.py).
"""

from __future__ import annotations

from functools import partial
from itertools import compress
from operator import lt, sub
from typing import TYPE_CHECKING

import apsw

from replicad.errors import DatabaseUnusable
from replicad.position import TXID, WALPosition
from replicad.replicate.continuity import wal_position
from replicad.replicate.extents import WrittenExtents
from replicad.replicate.firstpage import FirstPages
from replicad.replicate.pinned import Pinned
from replicad.replicate.reading import End, Reached
from replicad.replicate.references import References
from replicad.replicate.room import LOCK_TIMEOUT_SECONDS
from replicad.replicate.stream import Difference, OversizedTransaction
from replicad.segment import BlockBuffer, SegmentEncoder, SegmentHeader
from replicad.sqlite.image import Image
from replicad.sqlite.source import begin_read
from replicad.wal import FRAME_HEADER_BYTES, Frames, Observations, SaltsMoved, page_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.host.clock import Clock
    from replicad.replicate.reading import Beginning, CaptureLimits
    from replicad.replicate.stream import TransactionStream
    from replicad.sqlite.source import Index, Source

_MOST_LOOKS = 1_000  # at a WAL that is reset under every read
_OPTIMISTIC_ATTEMPTS = 5  # without keeping writers out; on a quiet database the first one succeeds
_BATCH_BYTES = 1 << 20  # of frames read at once, where a transaction is not larger: what caches of a processor hold
_PAGES_BYTES = 32 << 20  # of pages in a segment, however well they pack: each costs requests, each fewer a restore


class Capture:
    """One database's WAL, from a proven position on. Calls come one at a time, from any thread."""

    def __init__(self, source: Source, beginning: Beginning, *, limits: CaptureLimits, clock: Clock) -> None:
        """Start where `beginning` says, with the pin held since before that was found out."""
        header = beginning.header
        self.source = source
        self.table = beginning.table
        self.position = beginning.position
        self.next_txid = header.first_txid
        self.last_ms = 0  # commit time of the newest transaction read
        self.captured_bytes = 0  # page images read
        self.written = WrittenExtents(self.table.page_size)
        self._database_id = header.database_id
        self.epoch = header.epoch
        self._limits = limits
        self._clock = clock
        self._observations = Observations()
        self._observed_salts = beginning.position.salts
        self._first_pages = FirstPages()
        self._open: SegmentEncoder | None = None
        self._buffer = BlockBuffer()  # of one segment behind the other: each is finished when it is sealed
        self.open_since_ms = 0  # commit time of the first transaction in the open segment
        self._references = References(self.table.page_size, self._page_in_file)

    # --- looking -------------------------------------------------------------------------------

    def glance(self) -> Index | None:
        """Look without waiting for anything, and note the time of what is new; None when it cannot be seen now."""
        index = self.source.glance()
        if index is not None:
            self._note(index)
        return index

    def look(self) -> Index:
        """Return how far the WAL goes now, and note the time of what is new."""
        index = self.source.index()
        self._note(index)
        return index

    def unread_frames(self, index: Index) -> int:
        """Return how many committed frames lie behind the position."""
        return max(0, index.frames - self._start(index))

    def unread_bytes(self) -> int:
        """Return the size in the WAL of what is committed and was not read."""
        return self.unread_frames(self.look()) * (self.table.page_size + FRAME_HEADER_BYTES)

    def bytes_behind(self, position: WALPosition) -> int:
        """Return the size in the WAL of what is committed behind a position."""
        index = self.look()
        return max(0, index.frames - _start(index, position)) * (self.table.page_size + FRAME_HEADER_BYTES)

    def was_replaced(self) -> bool:
        """Return whether the path names another file now, none, or one that was written to past SQLite."""
        return self.source.was_replaced() or self._was_overwritten()

    def oldest_unread_ms(self) -> int | None:
        """Return when the oldest commit that was not read was first seen, None when there is none."""
        return self._observations.oldest_ms()

    # --- reading -------------------------------------------------------------------------------

    @property
    def open_segment(self) -> SegmentEncoder | None:
        """The segment that transactions gather in, None while nothing waits."""
        return self._open

    def read(self, *, segments: int = 1) -> Reached:
        """Read what is committed at this moment into the open segment, to its end or to the bound.

        The bound is that of this many segments: making room may go past it, so that it need not wait for the store.
        """
        index, looks = self.look(), 0
        while True:
            start = self._start(index)
            if index.frames <= start:
                return Reached.END
            if self._is_full(segments):
                return Reached.FULL
            count = min(index.frames - start, self._limits.segment_bytes // self.table.page_size or 1)
            try:
                frames = self._read_some(start + 1, count, index.salts)
            except SaltsMoved:
                looks += 1
                if looks > _MOST_LOOKS:
                    raise DatabaseUnusable(
                        path=self.source.path,
                        expected=f"frames {start + 1} to {index.frames} of the WAL with salts {index.salts.hex()}",
                        found=f"others, {looks} times, in a WAL of {self.source.wal.size_bytes()} bytes",
                        hint="It is tried again; nothing was lost.",
                    ) from None
                index = self.look()
                continue
            committed = frames.committed()
            if committed == 0:
                return Reached.OVERSIZED
            self._take(frames, committed, start)
            self._advance(index.salts, start + committed, frames.checksum(committed - 1))

    def _is_full(self, segments: int) -> bool:
        """Return whether the open segment is to gather no more; `segments` as for `read`."""
        if self._open is None:
            return False
        held_bytes, pages_bytes = self._limits.segment_bytes, max(self._limits.segment_bytes, _PAGES_BYTES)
        return self._open.held_bytes >= segments * held_bytes or self._open.raw_bytes >= segments * pages_bytes

    def mark_end(self) -> End:
        """Return what is committed at this moment, to ask `has_read` about."""
        return End(index=self.look(), since=self.position.salts)

    def has_read(self, end: End) -> bool:
        """Return whether everything that was committed when `end` was marked has been read."""
        if self.position.salts == end.index.salts:
            return self.position.frame >= end.index.frames
        # A WAL is reset only when all of it was read; and one that was reset may stay empty, if what made the new
        # header was rolled back: there is no frame then that the position could move to.
        return end.index.frames == 0 or not end.index.salts or self.position.salts != end.since

    def seal(self) -> tuple[SegmentEncoder, WALPosition]:
        """Take the open segment away, with the WAL position at its end; there must be one."""
        sealed, self._open = self._open, None
        if sealed is None:
            raise ValueError("there is no open segment")
        self._references.refer(sealed, self.table)
        if sealed.raw_bytes < _BATCH_BYTES:  # those that follow are as small, most likely
            self._buffer = BlockBuffer()
        return sealed, self.position

    def oversized(self) -> TransactionStream | None:
        """Return the next transaction, which is larger than a segment; None when the WAL was reset meanwhile."""
        try:
            return OversizedTransaction(self)
        except SaltsMoved:
            return None

    def find_difference(self) -> TransactionStream | None:
        """Pin the present state anew, and compare it with the one that was read last; None when they are the same."""
        self.source.release()
        self._first_pages.forget()
        index = self.source.hold_exactly()
        image = Image.under_pin(self.source, index, pages=self.source.page_count())
        position = wal_position(self.source, index)
        difference = Difference.find(self, image, position)
        if difference is None:
            self.resume_at(position)
        return difference

    def pin_beginning(self, index: Index) -> Pinned:
        """Hold the state still from which reading begins, before anything was read.

        `index` is of exactly that state. The capture's own pin holds it: it must not move before this is released.
        """
        return Pinned(
            txid=TXID(self.next_txid - 1),
            ms=self.last_ms,
            position=self.position,
            image=Image.under_pin(self.source, index, pages=self.table.pages),
            table=self.table.copy(),
            dirty=frozenset(),
            release=lambda: None,
        )

    def pin_state(self, *, skip: bool) -> Pinned | None:
        """Hold the state at the position still; None when writers would not pause for it.

        `skip` forgets what was read up to then: see `_skip_ahead`.
        """
        pin = self.source.open_pin()
        try:
            index = self._pin_here(pin, skip=skip)
            if index is not None:
                self._references.forbid()  # a restore from here does not know the state in front of the open segment
                return Pinned(
                    txid=TXID(self.next_txid - 1),
                    ms=self.last_ms,
                    position=self.position,
                    image=Image.under_pin(self.source, index, pages=self.table.pages),
                    table=self.table.copy(),
                    dirty=frozenset(self.written.take()),
                    release=partial(self.source.close_pin, pin),
                )
        except BaseException:
            self.source.close_pin(pin)
            raise
        self.source.close_pin(pin)
        return None

    def _skip_ahead(self) -> None:
        """Read to the end and forget the transactions, but for the state that they have made; the pin follows.

        For a snapshot that is owed: no transaction in front of it can be restored, so none needs room in memory,
        which would be full long before a busy application paused, and again while a busy machine lets us wait.
        """
        while True:
            reached = self.read()
            self._open = None
            if reached is Reached.OVERSIZED and (transaction := self.oversized()) is not None:
                for _ in transaction.parts():
                    pass
                transaction.settle()
            elif reached is Reached.END and self.move_pin():
                self._open = None
                return

    def begin_segment(self, buffer: BlockBuffer | None = None) -> SegmentEncoder:
        """Return an encoder for a segment that begins with the next transaction; `buffer` as for it."""
        header = SegmentHeader(
            database_id=self._database_id,
            epoch=self.epoch,
            page_size=self.table.page_size,
            first_txid=self.next_txid,
            checksum_before=self.table.checksum,
            pages_before=self.table.pages,
        )
        return SegmentEncoder(header, level=self._limits.compression_level, buffer=buffer)

    def commit_time_ms(self, frame: int) -> int:
        """Return the commit time of the transaction that ends at this frame; never goes backwards."""
        (time_ms,) = self._commit_times_ms((frame,))
        return time_ms

    def _commit_times_ms(self, frames: Sequence[int]) -> list[int]:
        times_ms = self._observations.times_ms(frames)
        if times_ms[0] < self.last_ms:
            times_ms = [max(self.last_ms, time_ms) for time_ms in times_ms]
        self.last_ms = times_ms[-1]
        return times_ms

    def now_ms(self) -> int:
        """Return the time for a transaction that is made up here and now; never goes backwards."""
        self.last_ms = max(self.last_ms, self._clock.now_ms())
        return self.last_ms

    def streamed(self, position: WALPosition) -> None:
        """Go on behind a transaction that was streamed and is durable."""
        self.next_txid = TXID(self.next_txid + 1)
        self._first_pages.commit(self.table.first_hash)
        self._advance(position.salts, position.frame, position.frame_checksum)

    def resume_at(self, position: WALPosition) -> None:
        """Go on behind a position at which the state is the one that was read last."""
        self._advance(position.salts, position.frame, position.frame_checksum)

    # --- pins and checkpoints ------------------------------------------------------------------

    def move_pin(self, *, segments: int = 1) -> bool:
        """Move the pin to the newest frame; return False when the bound on memory kept it where it is."""
        self.source.hold_next()
        reached = None
        try:
            reached = self.read(segments=segments)
        finally:
            if reached is not Reached.END:
                self.source.drop_next()
        if reached is Reached.END:
            self.source.release_previous()
        return reached is Reached.END

    def _pin_here(self, pin: apsw.Connection, *, skip: bool) -> Index | None:
        """Begin a further pin that sees exactly the state at the position; None when it could not be had now."""
        for _ in range(_OPTIMISTIC_ATTEMPTS):
            if (index := self._try_pin(pin, skip=skip)) is not None:
                return index
        with self.source.write_lock(timeout_seconds=LOCK_TIMEOUT_SECONDS) as locked:
            return self._try_pin(pin, skip=skip) if locked else None

    def _try_pin(self, pin: apsw.Connection, *, skip: bool) -> Index | None:
        if skip:
            self._skip_ahead()
        if self.read() is not Reached.END:
            return None
        begin_read(pin)
        index = self.look()
        if self.unread_frames(index) == 0:  # nothing was committed between the read and the look behind the pin
            return index
        pin.execute("ROLLBACK")
        return None

    def _was_overwritten(self) -> bool:
        """Return whether page 1 of the file is none that a checkpoint can have copied there."""
        index, size = self.source.index(), self.table.page_size
        if not index.uncopied and not self.unread_frames(index):
            self._first_pages.settle(self.table.first_hash)
        return not self._first_pages.are_seen_by(lambda: page_hash(self.source.read_file(0, size), 1))

    # --- inner -------------------------------------------------------------------------------

    def _note(self, index: Index) -> None:
        if index.salts != self._observed_salts:
            self._observations.restart()
            self._observed_salts = index.salts
        if index.frames > self._start(index):
            self._observations.see(index.frames, self._clock.now_ms())

    def _start(self, index: Index) -> int:
        return _start(index, self.position)

    def _read_some(self, first: int, count: int, salts: bytes) -> Frames:
        """Read a batch that ends a transaction, if one of `count` frames does."""
        few = min(count, _BATCH_BYTES // self.table.page_size)
        frames = self.source.read(first, few, salts)
        return frames if few == count or frames.committed() else self.source.read(first, count, salts)

    def _take(self, frames: Frames, committed: int, start: int) -> None:
        # All at once, without a step of Python's for each transaction where it can be helped: there may be 100,000 a
        # second.
        pgnos, images = frames.pgnos[:committed], frames.images[:committed]
        commit_pages = frames.commit_pages[:committed]
        ends = list(compress(range(1, committed + 1), commit_pages))
        sizes = list(filter(None, commit_pages))
        times_ms = self._commit_times_ms([start + end for end in ends])
        if self._open is None:
            self._open = self.begin_segment(self._buffer)
            self.open_since_ms = times_ms[0]
            self._references.begin(self.table)
        segment = self._open
        self._references.before_write(pgnos, self.table)
        segment.add_pages(pgnos, images)
        pages_before = (self.table.pages, *sizes[:-1])
        if any(map(lt, sizes, pages_before)):
            for pages, before in zip(sizes, pages_before, strict=True):
                self.written.cut(pages, before)
        checksums, first_hashes = self.table.write_transactions(pgnos, images, commit_pages)
        for first_hash in first_hashes:
            self._first_pages.commit(first_hash)
        segment.commit_all(
            commit_ms=times_ms, pages=sizes, checksums=checksums, frames=list(map(sub, ends, (0, *ends[:-1])))
        )
        self._references.after_write(pgnos, images, low_pages=min(sizes))
        self.next_txid = TXID(segment.last_txid + 1)
        self.written.add(pgnos)
        self.captured_bytes += committed * self.table.page_size

    def _page_in_file(self, pgno: int) -> bytes:
        size = self.table.page_size
        try:
            return self.source.read_file((pgno - 1) * size, size)
        except apsw.Error:  # a segment is larger without it; whoever needs the page will say what is wrong
            return b""

    def _advance(self, salts: bytes, frame: int, frame_checksum: bytes) -> None:
        self.position = WALPosition(salts=salts, frame=frame, frame_checksum=frame_checksum)
        self._observations.drop_through(frame)


def _start(index: Index, position: WALPosition) -> int:
    """Return the frame to go on behind: the position's, or 0 in a WAL that was reset since."""
    if index.salts == position.salts:
        return position.frame
    return 0 if index.salts else index.frames
