"""One round over a WAL: look, read, move the pin, make room. Runs in a thread; says what it found.

The pin moves at most once per 150 ms, and keeps moving until it rests at the newest frame or on mark 0. An
application's own FULL, RESTART or TRUNCATE checkpoint waits for our mark, polling with sleeps of up to 100 ms; a
pin that hops back onto the mark it waits for starves it, and all writers with it, for its whole busy timeout.

One move does not wait: off mark 0, as soon as there are new frames. Under a pin on mark 0 nobody may copy frames,
and the application's automatic checkpoint sorts the whole WAL in vain at every commit: commits twenty times slower
were measured. Nothing that waits for a mark can be starved by it, since what waits keeps writers out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from replicad.host.files import free_bytes
from replicad.plan.checkpoint import Checkpoint, CheckpointLimits, WALState, decide
from replicad.replicate.capture import Capture, Reached, Room
from replicad.sqlite.connection import translated
from replicad.wal import FRAME_HEADER_BYTES

if TYPE_CHECKING:
    from replicad.host.clock import Clock
    from replicad.sqlite.source import Index

_BACKFILL_BYTES = 4 << 20
"""What a moved pin sets free is copied at once from here on: else the application's own automatic checkpoint, which
runs within a commit, would find all of it at once."""

_SETTLED_MOVES = 3
"""Moves in a row, with nothing changing, before the pin is taken to rest. One does not tell: a checkpointer holds
mark 0 for a moment after it has copied the last frame, and a pin that is taken just then lands on another mark, for
which the application's RESTART would wait, with every writer behind it."""

PIN_INTERVAL_SECONDS = 0.15  # SQLite's longest busy back-off sleep is 0.1 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round found and did."""

    news: bool  # something was committed since the last round
    reached: Reached
    replaced: bool  # another file, or none, stands at the path
    at_rest: bool  # the pin need not move before something happens
    blocking: bool  # the pin is on mark 0, and writers write: it keeps their frames from being copied
    unread_bytes: int
    wal_bytes: int  # committed frames in the WAL
    room: Room | None  # the checkpoint that was run, if any
    failed: str | None  # why moving the pin or making room was given up
    disk_free_bytes: int | None  # on the database's file system, when it was looked at


class Beat:
    """Keeps the rhythm of one capture."""

    def __init__(self, capture: Capture, limits: CheckpointLimits, clock: Clock) -> None:
        self.capture = capture
        self._limits = limits
        self._clock = clock
        self._seen: Index | None = None
        self._rest: Index | None = None  # what the index said when the pin came to rest
        self._settled = 0  # moves in a row that found nothing changed
        # What the index said when the pin was put on mark 0; None: it is on another. The first pin may be anywhere.
        self._on_zero: Index | None = capture.source.index()
        self._news_at = self._moved_at = self._room_at = clock.monotonic()

    def round(self, *, may_move: bool, keep: bool) -> Round:
        """Do one round.

        `may_move` False leaves the pin where it is. `keep` moves it off mark 0 only: the WAL does not begin again.

        Raises:
            DatabaseUnusable: SQLite could not; what was read so far counts, and another round may succeed.
        """
        with translated(self.capture.source.path):
            return self._round(may_move=may_move, keep=keep)

    def _round(self, *, may_move: bool, keep: bool) -> Round:
        now = self._clock.monotonic()
        capture = self.capture
        reached = capture.read()
        replaced = capture.was_replaced()
        index = capture.source.index()
        news = index != self._seen
        if news:
            self._seen, self._news_at = index, now
        room, failed, disk_free_bytes = None, None, None
        blocking = self._on_zero is not None and index != self._on_zero and index.backfilled < index.frames
        if blocking or now - self._moved_at >= PIN_INTERVAL_SECONDS:
            self._moved_at = now
            disk_free_bytes = free_bytes(capture.source.path.parent)
            if may_move and not replaced and reached is Reached.END and (blocking or not keep):
                try:
                    self._move(index)
                    room = None if keep else self._checkpoint(index, now)
                except apsw.Error as error:  # the disk is full, most likely: what was read is sent all the same
                    failed = f"{type(error).__name__}: {error}"
        return Round(
            news=news,
            reached=reached,
            replaced=replaced,
            blocking=blocking,
            at_rest=not may_move or reached is not Reached.END or index == self._rest,
            unread_bytes=capture.unread_frames(index) * self._frame_bytes,
            wal_bytes=index.frames * self._frame_bytes,
            room=room,
            failed=failed,
            disk_free_bytes=disk_free_bytes,
        )

    @property
    def _frame_bytes(self) -> int:
        return self.capture.table.page_size + FRAME_HEADER_BYTES

    def _move(self, before: Index) -> None:
        if before == self._rest or not self.capture.move_pin():
            return
        after = self.capture.source.index()
        self._on_zero = after if before.frames == before.backfilled else None
        self._settled = self._settled + 1 if after == before else 0
        self._rest = after if self._settled >= _SETTLED_MOVES else None
        if (after.frames - after.backfilled) * self.capture.table.page_size >= _BACKFILL_BYTES:
            self.capture.source.backfill()
        self._moved_at = self._clock.monotonic()

    def _checkpoint(self, index: Index, now: float) -> Room | None:
        source = self.capture.source
        wal = WALState(
            frames=index.frames,
            backfilled=index.backfilled,
            page_size=source.page_size,
            file_bytes=source.wal.size_bytes(),
            idle_seconds=now - self._news_at,
            since_room_seconds=now - self._room_at,
        )
        what = decide(wal, self._limits)
        if what is None:
            return None
        self._rest, self._settled, self._room_at = None, 0, now
        room = None
        if what is Checkpoint.REST:
            source.backfill()
        elif what is Checkpoint.SHRINK:
            source.truncate()
        else:
            room = self.capture.make_room()
            self._on_zero = source.index() if room.done else None
        self._moved_at = self._clock.monotonic()
        return room
