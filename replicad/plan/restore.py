"""The restore plan: the newest snapshot not behind the target, then the fewest segments that lead to it.

Pure: the shell fetches what the plan names, and asks again, naming what cannot be used, when an object
turns out to be damaged or gone. The answer is another way to the very same transaction, or an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.plan.reach import NOTHING
from replicad.plan.target import IndexNeeded, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from replicad.layout import SegmentKey
    from replicad.plan.line import Line, LineSegment
    from replicad.plan.listing import ManifestObject
    from replicad.plan.target import CommitTimes, Target
    from replicad.position import TXID


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSegment:
    """A segment or a roll-up, and which of its transactions are applied: those behind `after`, up to `through`."""

    stored: LineSegment
    after: TXID
    through: TXID

    @property
    def name(self) -> str:
        """The key of the object that holds it."""
        return self.stored.name

    @property
    def key(self) -> SegmentKey:
        """Its own key, also when it stands in a roll-up."""
        return self.stored.stored.key


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """The way to one transaction. The segments follow one another from the snapshot without a gap."""

    line: Line
    txid: TXID
    manifest: ManifestObject
    segments: tuple[PlannedSegment, ...]  # oldest first

    @property
    def log_bytes(self) -> int:
        """Stored size of the segments."""
        return sum(part.stored.stored.size_bytes for part in self.segments)


def plan_restore(
    line: Line,
    target: Target,
    *,
    times: Mapping[str, CommitTimes] | None = None,
    without: AbstractSet[str] = NOTHING,
) -> RestorePlan | IndexNeeded:
    """Return the plan that reaches the target exactly, or the segment whose index decides what that is.

    Args:
        line: the line of history.
        target: what is asked for.
        times: the commit times of segments whose index was read already, by the segment's key.
        without: keys of objects that cannot be used.

    Raises:
        NoBackup: nothing was ever stored.
        TargetOutsideWindow: the target lies before the first restorable state, or behind the last transaction.
        HistoryGap: what was committed at the target cannot be restored.
    """
    txid = resolve(line, target, times=times, without=without)
    if isinstance(txid, IndexNeeded):
        return txid
    manifest = max(
        (found for found in line.manifests if found.key.txid <= txid and found.name not in without),
        key=lambda found: (found.key.txid, found.key.epoch, found.key.ms),
    )
    return RestorePlan(line=line, txid=txid, manifest=manifest, segments=_cover(line, manifest.key.txid, txid, without))


def _cover(line: Line, after: TXID, target: TXID, without: AbstractSet[str]) -> tuple[PlannedSegment, ...]:
    """Return the fewest segments that hold every transaction behind `after` up to `target`.

    Taking each time the one that reaches furthest is known to give the fewest. Of those that reach the
    target the smallest is taken; of others that reach equally far the one written last, then the larger,
    which is the roll-up that stays when the ones it was made of are deleted.
    """
    chosen: list[PlannedSegment] = []
    best: LineSegment | None = None
    waiting = iter([part for part in line.segments if part.until > after and part.name not in without])
    upcoming = next(waiting, None)
    while after < target:
        while upcoming is not None and upcoming.first <= after + 1:
            if best is None or _rank(upcoming, target) > _rank(best, target):
                best = upcoming
            upcoming = next(waiting, None)
        if best is None or best.until <= after:
            msg = f"no segment holds transaction {after + 1}, which was found to be reachable"
            raise AssertionError(msg)
        through = min(best.until, target)
        chosen.append(PlannedSegment(stored=best, after=after, through=through))
        after = through
    return tuple(chosen)


def _rank(part: LineSegment, target: TXID) -> tuple[int, int, int, int, int]:
    key = part.stored.key
    smallness = -part.stored.size_bytes if part.until >= target else 0
    return (min(part.until, target), smallness, key.epoch, part.until - part.first, key.last_ms)
