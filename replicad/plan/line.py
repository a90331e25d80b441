"""The line of history: one succession of epochs, followed from child to parent.

Each epoch names the transaction of its parent that it continues from. What the parent wrote past that
transaction was never seen by the child: an orphaned tail. It is kept and counted, and can be restored
by naming its epoch, but it is never part of the line.

An epoch without a `start.json` wrote nothing, so the line begins at the highest epoch that has one. It
ends at an epoch without a parent, or at one whose parent's whole folder is gone (retention).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.errors import Damaged, NoBackup, UsageError
from replicad.layout import start_key
from replicad.position import TXID, Epoch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.ownership.records import EpochEnd, EpochStart
    from replicad.plan.listing import Listing, ManifestObject, SegmentObject


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is known of one database before any segment or snapshot is read."""

    label: str  # what messages call it: the store's URL
    listing: Listing
    starts: Mapping[Epoch, EpochStart]
    ends: Mapping[Epoch, EpochEnd] = field(default_factory=dict)  # as far as they were read; the head's always is


@dataclass(frozen=True, slots=True, kw_only=True)
class LineEpoch:
    """One epoch's stretch of the line: the transactions behind `start.parent_txid`, up to `until`."""

    start: EpochStart
    until: TXID | None  # the transaction the next epoch continues from; None: the head, open to the end

    @property
    def epoch(self) -> Epoch:
        """The epoch's number."""
        return Epoch(self.start.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSegment:
    """A segment or a roll-up, and how far the line runs through it."""

    stored: SegmentObject
    until: TXID  # its last transaction that is on the line

    @property
    def name(self) -> str:
        """The object's key."""
        return self.stored.name

    @property
    def first(self) -> TXID:
        """Its first transaction."""
        return self.stored.key.first

    @property
    def until_ms(self) -> int | None:
        """Commit time of `until`; None when the key does not tell, the segment being cut by a child's start."""
        return self.stored.key.last_ms if self.until == self.stored.key.last else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanedTail:
    """Transactions of one epoch that no later epoch of the line saw."""

    epoch: Epoch
    first: TXID
    last: TXID
    segments: int
    manifests: int
    size_bytes: int  # of these objects; a segment that is partly on the line counts in full


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of history, ready to be planned on."""

    label: str
    database_id: str
    epochs: tuple[LineEpoch, ...]  # oldest first, at least one
    segments: tuple[LineSegment, ...]  # by first transaction
    manifests: tuple[ManifestObject, ...]  # by transaction
    last_txid: TXID  # the newest transaction that anything says was committed, restorable or not
    orphans: tuple[OrphanedTail, ...]
    foreign: int  # keys found that are none of replicad's

    @property
    def head(self) -> Epoch:
        """The newest epoch of the line."""
        return self.epochs[-1].epoch


def line_of_history(history: History, *, epoch: Epoch | None = None) -> Line:
    """Return the line that ends in the newest epoch, or in `epoch` and at that one's own end.

    Raises:
        NoBackup: nothing was ever stored.
        UsageError: `epoch` has no start.
        Damaged: the starts contradict one another, or one that is needed is missing.
    """
    listing = history.listing
    if not listing.starts:
        _refuse_headless(history)
        raise NoBackup(database=history.label, store=history.label)
    if epoch is not None and epoch not in listing.starts:
        known = ", ".join(str(number) for number in sorted(listing.starts))
        raise UsageError(where="--epoch", expected=f"one of {known}", found=epoch, hint="`replicad log` lists them.")
    epochs = _follow(history, max(listing.starts) if epoch is None else epoch)
    bounds = {part.epoch: part.until for part in epochs}
    segments = tuple(
        LineSegment(stored=stored, until=stored.key.last if bound is None else min(bound, stored.key.last))
        for stored in listing.segments
        if stored.key.epoch in bounds and ((bound := bounds[stored.key.epoch]) is None or stored.key.first <= bound)
    )
    manifests = tuple(found for found in listing.manifests if not _is_beyond(found.key.txid, found.key.epoch, bounds))
    return Line(
        label=history.label,
        database_id=epochs[-1].start.database_id,
        epochs=epochs,
        segments=tuple(sorted(segments, key=lambda part: (part.first, part.until, part.stored.key.epoch))),
        manifests=tuple(sorted(manifests, key=lambda found: (found.key.txid, found.key.epoch, found.key.ms))),
        last_txid=_last_txid(history, epochs, segments, manifests),
        orphans=_orphans(history, bounds),
        foreign=listing.foreign,
    )


def _follow(history: History, head: Epoch) -> tuple[LineEpoch, ...]:
    """Return the epochs from the head down to the first, oldest first."""
    parts: list[LineEpoch] = []
    epoch, until = head, None
    while True:
        start = _start_of(history, epoch)
        parts.append(LineEpoch(start=start, until=until))
        _check_succession(start, parts[-2].start if len(parts) > 1 else None)
        parent = Epoch(start.parent_epoch)
        if parent == 0 or parent not in history.listing.epochs:
            return tuple(reversed(parts))
        epoch, until = parent, TXID(start.parent_txid)


def _start_of(history: History, epoch: Epoch) -> EpochStart:
    start = history.starts.get(epoch)
    if start is None:
        raise Damaged(
            what=start_key(epoch), where="listing", expected="the start of an epoch that has objects", found="no object"
        )
    if start.epoch != epoch:
        raise Damaged(what=start_key(epoch), where="epoch", expected=epoch, found=start.epoch)
    return start


def _check_succession(start: EpochStart, child: EpochStart | None) -> None:
    """Refuse a parent that is not earlier (following it might never end), and a child of what never was."""
    what = start_key(Epoch(start.epoch))
    if start.parent_epoch >= start.epoch:
        raise Damaged(
            what=what, where="parent_epoch", expected=f"an epoch before {start.epoch}", found=start.parent_epoch
        )
    if child is None:
        return
    if child.database_id != start.database_id:
        raise Damaged(what=what, where="database_id", expected=child.database_id, found=start.database_id)
    if child.parent_txid < start.parent_txid:
        raise Damaged(
            what=start_key(Epoch(child.epoch)),
            where="parent_txid",
            expected=f"at least {start.parent_txid}, where its parent begins",
            found=child.parent_txid,
        )


def _refuse_headless(history: History) -> None:
    """Never call a history without any start "no backup": something is there, and it cannot be read."""
    written = history.listing.epochs
    if written:
        found = f"{len(history.listing.segments)} segments and {len(history.listing.manifests)} manifests without it"
        what = start_key(max(written))
        raise Damaged(what=what, where="listing", expected="the start of the newest epoch", found=found)


def _last_txid(
    history: History,
    epochs: tuple[LineEpoch, ...],
    segments: tuple[LineSegment, ...],
    manifests: tuple[ManifestObject, ...],
) -> TXID:
    """Return the newest transaction that a key, a child's start or the head's end tells of.

    An end that no segment reaches makes the tail a gap, where it would otherwise be an older state unnoticed.
    """
    told = [part.start.parent_txid for part in epochs]
    told += [part.until for part in segments]
    told += [found.key.txid for found in manifests]
    end = history.ends.get(epochs[-1].epoch)
    if end is not None:
        told.append(end.txid)
    return TXID(max(told))


def _orphans(history: History, bounds: Mapping[Epoch, TXID | None]) -> tuple[OrphanedTail, ...]:
    """Return what each epoch holds beyond the line; an epoch that is not on the line is beyond it whole."""
    tails: dict[Epoch, OrphanedTail] = {}
    for part in history.listing.segments:
        key = part.key
        if _is_beyond(key.last, key.epoch, bounds):
            first = max(key.first, TXID((bounds.get(key.epoch) or 0) + 1))
            tails[key.epoch] = _longer(tails.get(key.epoch), _tail(part, first, key.last, segments=1))
    for found in history.listing.manifests:
        txid = found.key.txid
        if _is_beyond(txid, found.key.epoch, bounds):
            tails[found.key.epoch] = _longer(tails.get(found.key.epoch), _tail(found, txid, txid, segments=0))
    return tuple(tails[epoch] for epoch in sorted(tails))


def _is_beyond(last: TXID, epoch: Epoch, bounds: Mapping[Epoch, TXID | None]) -> bool:
    bound = bounds.get(epoch)
    return epoch not in bounds or (bound is not None and last > bound)


def _tail(stored: SegmentObject | ManifestObject, first: TXID, last: TXID, *, segments: int) -> OrphanedTail:
    """Return the tail that one object alone makes."""
    return OrphanedTail(
        epoch=stored.key.epoch,
        first=first,
        last=last,
        segments=segments,
        manifests=1 - segments,
        size_bytes=stored.size_bytes,
    )


def _longer(tail: OrphanedTail | None, other: OrphanedTail) -> OrphanedTail:
    """Return what both make together."""
    if tail is None:
        return other
    return OrphanedTail(
        epoch=tail.epoch,
        first=min(tail.first, other.first),
        last=max(tail.last, other.last),
        segments=tail.segments + other.segments,
        manifests=tail.manifests + other.manifests,
        size_bytes=tail.size_bytes + other.size_bytes,
    )
