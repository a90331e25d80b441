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
    for _ in range(_BULK_ROUNDS):
        if not capture.move_pin(segments=ROOM_SEGMENTS):
            return Room(done=False, stall_seconds=0.0)
        capture.source.backfill()
        index = capture.look()
        if (index.frames - index.backfilled) * capture.table.page_size <= _REST_BYTES:
            break
    else:  # the application writes faster than this reads: it is not made to wait, the WAL grows
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
