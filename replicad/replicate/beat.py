"""One round over a WAL: look, read, move the pin, make room. Runs in a thread; says what it found.

While writers write, the pin stands still until the WAL is long enough to make room: what it sets free is copied by
the application itself, in its next commit, which waits for the disk then. As soon as the WAL stands still it moves,
again after 20 ms, then with growing pauses, until it rests at the newest frame or on mark 0. For a WAL that stands
still may be one whose writers wait: an application's own FULL, RESTART or TRUNCATE checkpoint keeps them out while it
waits for our mark, first to leave an older frame, then to leave for mark 0. A pin that moved at every look while
frames are added would hop back onto the mark that is waited for; while nothing is added there is only one mark it can
move to.

One move does not wait: off mark 0, as soon as there are new frames. Under a pin on mark 0 nobody may copy frames,
and the application's automatic checkpoint sorts the whole WAL in vain at every commit: commits twenty times slower
were measured. Nothing that waits for a mark can be starved by it, since what waits keeps writers out.

Where a pin may not move (the WAL is the queue of an outage, or a snapshot is read under it), a look every 100 ms
tells whether somebody's checkpoint gets nowhere; then it moves all the same, or the caller has to give way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from replicad.host.files import free_bytes
from replicad.plan.checkpoint import Checkpoint, CheckpointLimits, WALState, decide
from replicad.replicate.reading import Reached
from replicad.replicate.room import ROOM_SEGMENTS, Room, make_room
from replicad.sqlite.connection import translated
from replicad.wal import FRAME_HEADER_BYTES

if TYPE_CHECKING:
    from replicad.host.clock import Clock
    from replicad.replicate.capture import Capture
    from replicad.sqlite.source import Index

_BACKFILL_BYTES = 4 << 20
"""What a moved pin sets free is brought to the disk before, and copied at once, from here on: else the application's
own automatic checkpoint, which runs within a commit, would find all of it at once."""

_SETTLED_MOVES = 5
"""Moves in a row, with nothing changing, before the pin is taken to rest. One does not tell: a checkpointer holds
mark 0 for a moment after it has copied the last frame, and a pin that is taken just then lands on another mark, for
which the application's RESTART would wait, with every writer behind it."""

BUSY_INTERVAL_SECONDS = 0.15  # between looks at the length of the WAL, while frames are added
_STILL_SECONDS = 0.01  # without a change until the WAL stands still
STILL_INTERVAL_SECONDS = 0.02  # before the first move then; doubles with each that found nothing changed
_WATCH_INTERVAL_SECONDS = 0.1  # between looks for a checkpoint that waits for a pin that may not move


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round found and did."""

    news: bool  # something was committed or copied since the last round
    reached: Reached
    replaced: bool  # another file, or none, stands at the path
    blocking: bool  # the pin is on mark 0, and writers write: it keeps their frames from being copied
    waited_seconds: float  # for how long somebody's checkpoint has got nowhere, while pins were kept where they are
    stuck: bool  # and our own pin cannot make way for it: what is unread does not fit into memory
    pause_seconds: float | None  # until the next round is worth it if nothing happens; None: the pin rests
    unread_bytes: int
    wal_bytes: int  # committed frames in the WAL
    room: Room | None  # the checkpoint that was run, if any
    failed: str | None  # why moving the pin or making room was given up
    disk_free_bytes: int | None  # on the database's file system, when it was looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What can be seen without a round."""

    news: bool  # something was committed or copied since the last round or glance
    unread_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What keeps pins where they are."""

    borrowed: bool = False  # the capture's own pin holds a state still for a snapshot: it does not move
    pinned: bool = False  # a further pin does
    keep: bool = False  # the store is away: the WAL does not begin again, so that it survives a crash

    @property
    def any(self) -> bool:
        """Whether anything does."""
        return self.borrowed or self.pinned or self.keep


@dataclass(frozen=True, slots=True, kw_only=True)
class _Acted:
    """What became of moving the pin and making room; the fields are those of `Round`."""

    stuck: bool = False
    room: Room | None = None
    failed: str | None = None


class Beat:
    """Keeps the rhythm of one capture."""

    def __init__(self, capture: Capture, limits: CheckpointLimits, clock: Clock) -> None:
        self.capture = capture
        self._limits = limits
        self._clock = clock
        self._seen: Index | None = None
        self._glimpsed = False  # by a glance, since the last round
        self._rest: Index | None = None  # what the index said when the pin came to rest
        self._settled = 0  # moves in a row that found nothing changed
        self._watched_at = self._news_at = self._added_at = self._acted_at = self._room_at = clock.monotonic()
        self._waiting_since: float | None = None

    def round(self, wishes: Wishes) -> Round:
        """Do one round.

        Raises:
            DatabaseUnusable: SQLite could not; what was read so far counts, and another round may succeed.
        """
        with translated(self.capture.source.path):
            return self._round(wishes)

    def glance(self) -> Glance | None:
        """Look without doing anything, or waiting; None when it takes a round to know."""
        index = self.capture.glance()
        if index is None:
            return None
        news = index != self._seen
        if news:
            self._take_note(index, self._clock.monotonic())
            self._glimpsed = True
        return Glance(news=news, unread_bytes=self.capture.unread_frames(index) * self._frame_bytes)

    def _round(self, wishes: Wishes) -> Round:
        now = self._clock.monotonic()
        capture = self.capture
        reached = capture.read()
        replaced = capture.was_replaced()
        index = capture.source.index()
        news, self._glimpsed = self._glimpsed or index != self._seen, False
        if index != self._seen:
            self._take_note(index, now)
        still = now - self._added_at >= _STILL_SECONDS
        kept = wishes.any or reached is not Reached.END
        waited_seconds = self._watch(now, watching=kept and not news)
        blocking = capture.source.may_be_on_zero and index.uncopied > 0
        urgently = waited_seconds > 0
        acted, disk_free_bytes = _Acted(), None
        if blocking or now - self._acted_at >= self._interval(still=still, urgently=urgently):
            self._acted_at = now
            disk_free_bytes = free_bytes(capture.source.path.parent)
            may_move = not (wishes.borrowed or replaced) and (blocking or urgently or not wishes.keep)
            if may_move and (urgently or reached is Reached.END):
                move = blocking or urgently or still
                room = reached is Reached.END and not wishes.keep
                acted = self._act(index, now, urgently=urgently, move=move, room=room)
        return Round(
            news=news,
            reached=reached,
            replaced=replaced,
            blocking=blocking,
            waited_seconds=waited_seconds,
            stuck=acted.stuck,
            pause_seconds=_WATCH_INTERVAL_SECONDS if kept else self._pause(index),
            unread_bytes=capture.unread_frames(index) * self._frame_bytes,
            wal_bytes=index.frames * self._frame_bytes,
            room=acted.room,
            failed=acted.failed,
            disk_free_bytes=disk_free_bytes,
        )

    @property
    def _frame_bytes(self) -> int:
        return self.capture.table.page_size + FRAME_HEADER_BYTES

    def _take_note(self, index: Index, now: float) -> None:
        """Remember what the index says now, which is not what it said."""
        if self._seen is None or (index.frames, index.salts) != (self._seen.frames, self._seen.salts):
            self._added_at = now  # else somebody has copied, which a checkpoint that waits does, too
        self._seen, self._news_at, self._settled = index, now, 0

    def _interval(self, *, still: bool, urgently: bool) -> float:
        if not still:
            return BUSY_INTERVAL_SECONDS
        return STILL_INTERVAL_SECONDS * (1 if urgently else (1 << self._settled))

    def _pause(self, index: Index) -> float | None:
        if index == self._rest:
            return None
        return min(BUSY_INTERVAL_SECONDS, STILL_INTERVAL_SECONDS * (1 << self._settled))

    def _watch(self, now: float, *, watching: bool) -> float:
        """Return for how long a checkpoint has stood still that may be waiting for a pin; 0.0 when there is none."""
        if not watching:
            self._waiting_since = None
        elif now - self._watched_at >= _WATCH_INTERVAL_SECONDS:
            self._watched_at = now
            if not self.capture.source.is_checkpointing():
                self._waiting_since = None
            elif self._waiting_since is None:
                self._waiting_since = now
        return 0.0 if self._waiting_since is None else now - self._waiting_since

    def _act(self, index: Index, now: float, *, urgently: bool, move: bool, room: bool) -> _Acted:
        """With `move` move the pin and, with `room`, checkpoint if that is due."""
        stuck = False
        try:
            stuck = move and not self._move(index, urgently=urgently)
            return _Acted(stuck=stuck, room=self._checkpoint(index, now) if room else None)
        except (apsw.Error, OSError) as error:  # the disk is full, most likely: what was read is sent all the same
            return _Acted(stuck=stuck, failed=f"{type(error).__name__}: {error}")

    def _move(self, before: Index, *, urgently: bool) -> bool:
        """Move the pin, unless it rests; return False when what is unread kept it where it is."""
        if before == self._rest and not urgently:
            return True
        source = self.capture.source
        if self._is_much_to_copy(before):
            source.wal.sync()
        if not self.capture.move_pin(segments=ROOM_SEGMENTS if urgently else 1):
            return False
        after = source.index()
        self._settled = self._settled + 1 if after == before else 0
        self._rest = after if self._settled >= _SETTLED_MOVES else None
        if self._is_much_to_copy(after):
            source.backfill()
        self._acted_at = self._clock.monotonic()
        return True

    def _is_much_to_copy(self, index: Index) -> bool:
        return index.uncopied * self.capture.table.page_size >= _BACKFILL_BYTES

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
            room = make_room(self.capture)
        self._acted_at = self._clock.monotonic()
        return room
