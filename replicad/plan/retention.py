"""What is deleted, in which order, and why; what stays, and why; and when that will change. Pure.

Only what replicad itself has stored is ever named here; a key of another form is nobody's business.

The order is one of stages. Within a stage a store may apply deletions in any order, and a crash may come between any
two of them; a stage begins when the one before is done:

1. snapshots, marks that have expired, and probes that a crash has left: nothing that stays needs another snapshot than
   those that stay
2. segments that no way to a promised state goes through
3. chunks that no snapshot lists which stays: so never before the snapshots that do list them are gone
4. the ends, and behind them
5. the starts of epochs that have nothing left: a reader that finds an epoch's end without its start would have to call
   the history damaged

Claims are never deleted (an owner that stood still recognises by the next one that it is none any more).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import end_key, is_probe, parse_chunk, start_key
from replicad.plan.inventory import kind_of
from replicad.plan.keeping import Keeping
from replicad.plan.line import line_of_history

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from replicad.plan.inventory import Inventory
    from replicad.plan.line import Line
    from replicad.plan.listing import ManifestObject, SegmentObject
    from replicad.plan.policy import RetentionPolicy
    from replicad.position import TXID, Epoch

LEAST_CHUNK_SECONDS = 3600.0
"""A chunk that no snapshot lists stays at least so long: the snapshot that will list it may be under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one object, and why."""

    key: str
    size_bytes: int
    kind: str  # as `kind_of`
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What is to be done about one inventory."""

    stages: tuple[tuple[Verdict, ...], ...]  # to be deleted; a stage only when the one before is done
    kept: tuple[Verdict, ...]
    window_begin_ms: int | None  # from this commit time on, any moment can be restored; None: there is no snapshot
    first_restorable_ms: int | None  # commit time of the oldest snapshot of the line that stays
    next_ms: int | None  # when something more may go, if nothing is stored until then; None: never

    @property
    def deleted(self) -> tuple[Verdict, ...]:
        """All that is to be deleted, in order."""
        return tuple(verdict for stage in self.stages for verdict in stage)


def plan_retention(
    inventory: Inventory, policy: RetentionPolicy, *, now_ms: int, in_use: AbstractSet[str] = frozenset()
) -> RetentionPlan:
    """Return what is deleted and what stays.

    Args:
        inventory: all objects of the database.
        policy: what is promised.
        now_ms: the present, by the store's and this machine's clock, whichever is behind.
        in_use: keys of chunks that a snapshot which is not stored yet may list.

    Raises:
        NoBackup: nothing was ever stored.
        Damaged: the starts of the epochs contradict one another: nothing may be deleted before that is understood.
    """
    line = line_of_history(inventory.history)
    keeping = Keeping(inventory, policy, now_ms=now_ms)
    keeping.keep_promises(line)
    tails = _tails(inventory, line)
    for epoch, stored in sorted(tails.items()):
        keeping.keep_tail(epoch, stored)
    expired = {str(mark) for mark in inventory.marks if not keeping.keep_marked(mark)}
    orphaned = {found.name for stored in tails.values() for found in stored}
    return _Sorting(inventory, policy, keeping, orphaned, now_ms=now_ms).plan(line, expired, in_use)


def _tails(inventory: Inventory, line: Line) -> dict[Epoch, list[SegmentObject | ManifestObject]]:
    """Return by epoch what is stored beyond the line."""
    bounds = {part.epoch: part.until for part in line.epochs}
    tails: dict[Epoch, list[SegmentObject | ManifestObject]] = {}
    listing = inventory.history.listing
    stored: list[tuple[SegmentObject | ManifestObject, TXID]] = [(one, one.key.last) for one in listing.segments]
    stored += [(one, one.key.txid) for one in listing.manifests]
    for one, last in stored:
        epoch = one.key.epoch
        bound = bounds.get(epoch)
        if epoch not in bounds or (bound is not None and last > bound):
            tails.setdefault(epoch, []).append(one)
    return tails


class _Sorting:
    """Sorts every object of ours into what stays and the stages of what goes."""

    def __init__(
        self,
        inventory: Inventory,
        policy: RetentionPolicy,
        keeping: Keeping,
        orphaned: AbstractSet[str],
        *,
        now_ms: int,
    ) -> None:
        self._inventory = inventory
        self._orphaned = orphaned
        self._policy = policy
        self._keeping = keeping
        self._now_ms = now_ms
        self._kept: list[Verdict] = []
        self._full: set[Epoch] = set()  # epochs that keep a segment or a snapshot

    def plan(self, line: Line, expired: AbstractSet[str], in_use: AbstractSet[str]) -> RetentionPlan:
        listing, keeping = self._inventory.history.listing, self._keeping
        manifests = [*self._going(listing.manifests), *self._marks(expired), *self._probes()]
        segments = list(self._going(listing.segments))
        chunks = list(self._chunks(in_use))
        ends, starts = self._records()
        staying = [found for found in line.manifests if found.name in keeping.reasons]
        begin = keeping.begin or next(iter(staying), None)
        return RetentionPlan(
            stages=tuple(tuple(stage) for stage in (manifests, segments, chunks, ends, starts) if stage),
            kept=tuple(self._kept),
            window_begin_ms=begin.key.ms if begin else None,
            first_restorable_ms=min((found.key.ms for found in staying), default=None),
            next_ms=min((ms for ms in keeping.later_ms if ms > self._now_ms), default=None),
        )

    def _going(self, stored: Iterable[SegmentObject | ManifestObject]) -> Iterator[Verdict]:
        for found in stored:
            name = found.name
            reason = self._keeping.reasons.get(name)
            if reason is None:
                yield self._verdict(name, "orphaned_tail" if name in self._orphaned else "outside_window")
            else:
                self._full.add(found.key.epoch)
                self._kept.append(self._verdict(name, reason))

    def _marks(self, expired: AbstractSet[str]) -> Iterator[Verdict]:
        for mark in self._inventory.marks:
            if str(mark) in expired:
                yield self._verdict(str(mark), "expired")
            else:
                self._kept.append(self._verdict(str(mark), "in_force"))

    def _probes(self) -> Iterator[Verdict]:
        """Yield the probes that nobody can be about to read any more."""
        least_ms = round(max(self._policy.grace_seconds, LEAST_CHUNK_SECONDS) * 1000)
        for key, row in self._inventory.rows.items():
            if is_probe(key) and row.modified_ms <= self._now_ms - least_ms:
                yield self._verdict(key, "abandoned")

    def _chunks(self, in_use: AbstractSet[str]) -> Iterator[Verdict]:
        manifests = [found.name for found in self._inventory.history.listing.manifests]
        staying = [name for name in manifests if name in self._keeping.reasons]
        unread = any(name not in self._inventory.contents for name in staying)
        listed = {chunk for name in staying for chunk in self._inventory.contents.get(name, ())}
        least_ms = round(max(self._policy.grace_seconds, LEAST_CHUNK_SECONDS) * 1000)
        for key, row in self._inventory.rows.items():
            if parse_chunk(key) is None:
                continue
            if key in listed:
                reason = "listed"
            elif key in in_use:
                reason = "snapshot_under_way"
            elif row.modified_ms > self._now_ms - least_ms:
                self._keeping.later_ms.add(row.modified_ms + least_ms)
                reason = "young"
            elif unread:
                reason = "snapshot_unreadable"  # it may be one of those that one lists
            else:
                yield self._verdict(key, "unlisted")
                continue
            self._kept.append(self._verdict(key, reason))

    def _records(self) -> tuple[list[Verdict], list[Verdict]]:
        """Return the ends, and the starts, of epochs that no line needs and that have nothing left."""
        listing = self._inventory.history.listing
        needed = self._needed_epochs()
        ends: list[Verdict] = []
        starts: list[Verdict] = []
        for epochs, key_of, going in ((listing.ends, end_key, ends), (listing.starts, start_key, starts)):
            for epoch in sorted(epochs):
                key = key_of(epoch)
                if epoch in needed or self._inventory.modified_ms(key) > self._keeping.cutoff_ms:
                    self._kept.append(self._verdict(key, "line"))
                else:
                    going.append(self._verdict(key, "empty_epoch"))
        return ends, starts

    def _needed_epochs(self) -> set[Epoch]:
        """Return the epochs that stay: with something in them, or between such a one and the end of a line.

        A reader follows a line from its head down, until a parent has nothing. So from the oldest epoch that keeps
        something none may be missing, and those before it may go in any order.
        """
        needed = set(self._full)
        for line in self._keeping.lines:
            epochs = [part.epoch for part in line.epochs]
            oldest = next((number for number, epoch in enumerate(epochs) if epoch in self._full), len(epochs) - 1)
            needed |= set(epochs[oldest:])
        return needed

    def _verdict(self, key: str, reason: str) -> Verdict:
        return Verdict(key=key, size_bytes=self._inventory.rows[key].size_bytes, kind=kind_of(key), reason=reason)
