"""When a snapshot is due. Pure.

A restore reads a snapshot and the log behind it: its bytes, and a request for each segment. A snapshot makes that
short again, at the price of what it sends. So there are two rules besides the interval:

- The bytes of the log outweigh the database as it is stored: a restore never reads more than about twice the database.
- Its requests do, when segments are many and small. Their number says nothing of what was written, and a snapshot sends
  whole chunks for it, so this rule has to be paid for: the log since the last snapshot has sent at least as much as the
  next one will. However small segments are, snapshots taken for their number no more than double what is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOOR_BYTES = 64 << 20  # a log up to this is read and applied in three seconds, whatever the database's size
SEGMENT_WEIGHT_BYTES = 192 << 10  # a restore takes 3 ms for a small segment, and as long for so many bytes of snapshot
FEW_SEGMENTS = 4_096  # up to these a restore takes some ten seconds, and a snapshot is not hurried for their number


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSince:
    """What was stored since the newest snapshot."""

    segments: int
    stored_bytes: int
    seconds: float  # since that snapshot was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSize:
    """The newest snapshot."""

    stored_bytes: int  # what a restore reads of it
    image_bytes: int  # the database it is of
    chunk_bytes: int  # raw, of a whole chunk

    def next_bytes(self, written_extents: int) -> int:
        """Return about what the next one will send, when so many extents were written to since.

        No extent is larger than a chunk, so no more chunks were written to. They are taken to compress as this snapshot
        did; nothing is known of an empty one, so they are taken not to.
        """
        raw_bytes = written_extents * self.chunk_bytes
        return raw_bytes * self.stored_bytes // self.image_bytes if self.image_bytes else raw_bytes


NO_SNAPSHOT = SnapshotSize(stored_bytes=0, image_bytes=0, chunk_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLimits:
    """The user's say in it."""

    interval_seconds: float
    log_ratio: float  # how many times the stored size of the database the log may weigh


def due(log: LogSince, *, newest: SnapshotSize, written_extents: int, limits: SnapshotLimits) -> str | None:
    """Return why a snapshot is due now, or None; `written_extents` were written to since the newest one."""
    if log.segments == 0:
        return None
    heavy_bytes = limits.log_ratio * newest.stored_bytes
    if log.stored_bytes > max(FLOOR_BYTES, heavy_bytes):
        return "log_outweighs_snapshot"
    many = log.segments > FEW_SEGMENTS and log.segments * SEGMENT_WEIGHT_BYTES > heavy_bytes
    if many and log.stored_bytes >= newest.next_bytes(written_extents):
        return "many_segments"
    if log.seconds >= limits.interval_seconds:
        return "interval"
    return None
