"""When a snapshot is due. Pure.

A restore reads a snapshot and the log behind it. A snapshot is due when the log outweighs the database as it is
stored, so that a restore never reads more than about twice the database; a segment weighs at least what a request
costs in time, so that many small ones count too.
"""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT_WEIGHT_BYTES = 64 << 10  # a round trip to a store takes about as long as this many bytes
FLOOR_BYTES = 8 << 20  # below this, reading the log is quick whatever the database's size


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSince:
    """What was stored since the newest snapshot."""

    segments: int
    stored_bytes: int
    seconds: float  # since that snapshot was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLimits:
    """The user's say in it."""

    interval_seconds: float
    log_ratio: float  # how many times the stored size of the database the log may weigh


def due(log: LogSince, *, snapshot_stored_bytes: int, limits: SnapshotLimits) -> str | None:
    """Return why a snapshot is due now, or None."""
    if log.segments == 0:
        return None
    weight = max(log.stored_bytes, log.segments * SEGMENT_WEIGHT_BYTES)
    if weight > max(FLOOR_BYTES, limits.log_ratio * snapshot_stored_bytes):
        return "log_outweighs_snapshot"
    if log.seconds >= limits.interval_seconds:
        return "interval"
    return None
