"""When to checkpoint the WAL, and how hard. Pure: callers pass in what they measured.

While a pin is held, the application's own checkpoints copy frames but can never reset the WAL, so room has to
be made here. Only frames that were read under a pin are given up: behind the write-locked step the next writer
overwrites the WAL from the front, and an unread frame would be gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Checkpoint(Enum):
    """What to do about the WAL now."""

    ROOM = auto()  # writers wait for a short step, then the WAL begins again from the front
    REST = auto()  # nobody writes: copy what there is, so that the application's own TRUNCATE succeeds at once
    SHRINK = auto()  # at rest on mark 0: give back the disk space of a burst


@dataclass(frozen=True, slots=True, kw_only=True)
class WALState:
    """What was measured."""

    frames: int  # committed frames
    backfilled: int  # of them in the database file
    page_size: int
    file_bytes: int
    idle_seconds: float  # since anything was seen to be committed or copied
    since_room_seconds: float  # since the last checkpoint, done or tried


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLimits:
    """When a WAL is big enough to act on."""

    room_bytes: int
    room_interval_seconds: float = 0.15  # an attempt that a busy writer won is not repeated at once
    idle_seconds: float = 1.0
    shrink_factor: int = 4  # a file this many times `room_bytes` is worth truncating


def decide(wal: WALState, limits: CheckpointLimits) -> Checkpoint | None:
    """Return what to do about the WAL now, or None to leave it alone."""
    if wal.since_room_seconds < limits.room_interval_seconds:
        return None
    idle = wal.idle_seconds >= limits.idle_seconds
    at_rest = idle and wal.frames == wal.backfilled
    if at_rest:  # the next writer begins the WAL again from the front, unasked
        return Checkpoint.SHRINK if wal.file_bytes >= limits.shrink_factor * limits.room_bytes else None
    if wal.frames * wal.page_size >= limits.room_bytes:
        return Checkpoint.ROOM
    return Checkpoint.REST if idle else None
