"""What a line of history offers to a person who looks for an instant to restore to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from replicad.plan.reach import reachable
from replicad.plan.target import Instant
from replicad.position import TXID

if TYPE_CHECKING:
    from replicad.plan.line import Line
    from replicad.position import Epoch


class PointKind(StrEnum):
    """What is stored at a point."""

    SEGMENT = "segment"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """A stored object of the line, and the newest state that it brings."""

    kind: PointKind
    epoch: Epoch
    first: TXID  # a snapshot's own transaction, or a segment's first
    instant: Instant
    size_bytes: int  # of the object; a snapshot's chunks are listed in its manifest, and not counted here
    restorable: bool  # false behind a gap, until the next snapshot

    @property
    def transactions(self) -> int:
        """How many transactions it holds."""
        return self.instant.txid - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The first and the last of restorable transactions without a gap between them."""

    first: Instant
    last: Instant


def restore_points(line: Line) -> tuple[RestorePoint, ...]:
    """Return every segment and snapshot of the line, oldest first; a snapshot follows its own transaction's segment."""
    spans = reachable(line)
    points = [
        RestorePoint(
            kind=PointKind.SEGMENT,
            epoch=part.stored.key.epoch,
            first=part.first,
            instant=Instant(txid=part.until, ms=part.until_ms),
            size_bytes=part.stored.size_bytes,
            restorable=any(part.until in span for span in spans),
        )
        for part in line.segments
    ]
    points += [
        RestorePoint(
            kind=PointKind.SNAPSHOT,
            epoch=found.key.epoch,
            first=found.key.txid,
            instant=Instant(txid=found.key.txid, ms=found.key.ms),
            size_bytes=found.size_bytes,
            restorable=True,
        )
        for found in line.manifests
    ]
    return tuple(sorted(points, key=lambda point: (point.instant.txid, point.kind, point.first)))


def restorable(line: Line) -> tuple[Stretch, ...]:
    """Return the stretches of restorable transactions, oldest first; more than one when the history has gaps.

    Two that touch (one ends a transaction before the next begins) have nothing missing between them.
    """
    times = {part.until: part.until_ms for part in line.segments}
    times |= {found.key.txid: found.key.ms for found in line.manifests}
    return tuple(
        Stretch(
            first=Instant(txid=span.first, ms=times.get(span.first)),
            last=Instant(txid=span.last, ms=times.get(span.last)),
        )
        for span in reachable(line)
    )
