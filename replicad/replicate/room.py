"""Making room: a checkpoint that copies every frame, so that the next writer begins the WAL again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.replicate.capture import Capture

LOCK_TIMEOUT_SECONDS = 0.2
"""For the write lock, before a checkpoint's last step or a pin that cannot be had otherwise: a busy writer first."""

ROOM_SEGMENTS = 4
"""What may be read ahead of the store, so that the WAL can begin again while it is written to."""

_BULK_ROUNDS = 8  # each copies what was written during the one before
_REST_BYTES = 1 << 20  # small enough to be copied while writers wait
_PATIENCE_SECONDS = 0.2  # with a checkpoint that the application is inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a checkpoint under the write lock did."""

    done: bool
    stall_seconds: float  # how long writers were kept out


def make_room(capture: Capture) -> Room:
    """Bring every frame into the database file and the pin to mark 0, so that the next writer resets the WAL.

    The bulk is copied with writers running, again and again until what they add meanwhile is little; they wait
    only for that rest. Never checkpoint in any other way: a checkpoint beside a reset is what SQLite up to
    3.51.2 can be corrupted by.
    """
    if not _copy_bulk(capture):
        return Room(done=False, stall_seconds=0.0)
    with capture.source.write_lock(timeout_seconds=LOCK_TIMEOUT_SECONDS) as locked:
        if not locked:
            return Room(done=False, stall_seconds=0.0)
        began = time.perf_counter()
        done = (
            capture.move_pin(segments=ROOM_SEGMENTS)
            and capture.source.backfill()
            and capture.move_pin(segments=ROOM_SEGMENTS)
        )
    return Room(done=done, stall_seconds=time.perf_counter() - began)


def _copy_bulk(capture: Capture) -> bool:
    """Have all copied but for a rest; return False when that is not to be had now.

    What the pin sets free, a busy application copies itself, within its next commit: its automatic checkpoint is tried
    at every commit of a WAL this long, and comes first. So the disk is waited for here, before: else that commit would
    wait until all of the WAL is on it. And that checkpoint is waited for.
    """
    source, copied = capture.source, capture.look()
    for _ in range(_BULK_ROUNDS):
        source.wal.sync()
        capture.read(segments=ROOM_SEGMENTS)  # before the next pin is taken: what is committed meanwhile lies behind it
        if not capture.move_pin(segments=ROOM_SEGMENTS):
            return False
        source.backfill(patience_seconds=_PATIENCE_SECONDS)
        index = capture.look()
        if index.uncopied * capture.table.page_size <= _REST_BYTES:
            return True
        if (index.salts, index.backfilled) == (copied.salts, copied.backfilled):
            return False  # a reader holds the frames, or a long checkpoint goes on
        copied = index
    return False  # the application writes faster than this reads: it is not made to wait, the WAL grows
