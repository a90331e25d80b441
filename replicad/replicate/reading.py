"""The words of reading a WAL: where it begins, what one look has seen, how a round ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.position import WALPosition
    from replicad.segment import SegmentHeader
    from replicad.sqlite.source import Index
    from replicad.wal import PageTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureLimits:
    """What one capture may hold in memory."""

    segment_bytes: int  # that one segment holds; a transaction with more page bytes is streamed
    compression_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where reading begins: behind `position`, in the state that `table` describes."""

    table: PageTable
    position: WALPosition
    header: SegmentHeader  # of a segment that would begin here: its first TXID is the next to be given


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What was committed at one moment."""

    index: Index
    since: bytes  # salts of the WAL that was being read then


class Reached(Enum):
    """How a round of reading ended."""

    END = auto()  # everything committed was read
    FULL = auto()  # the open segment is full: ship it first
    OVERSIZED = auto()  # the next transaction alone is larger than a segment: stream it
