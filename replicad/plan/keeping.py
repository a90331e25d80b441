"""Which segments and snapshots stay, and why. Pure.

The window is continuous: from its first snapshot on every segment stays. That snapshot is the newest one that is not
younger than the window's beginning; were it deleted when it fell behind the beginning, the window would swing between
nothing and the time to the next snapshot. Behind it, single snapshots stay by a rule or a mark.

All of it is asked twice: as of now, and as of `grace_seconds` ago, of what was stored by then. What either answer keeps
stays. So an object goes only when a plan made that long ago would have let it go too, and no plan has to be remembered.

A snapshot's age is the lower one of two: by the commit times in keys (its own, and of whatever lies before it on the
line), and by the store's clock. History is ordered by epoch and TXID, never by either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import Damaged, NoBackup, UsageError
from replicad.layout import ManifestKey
from replicad.plan.line import line_of_history
from replicad.plan.policy import snapshots_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.layout import MarkKey
    from replicad.plan.inventory import Inventory
    from replicad.plan.line import Line
    from replicad.plan.listing import ManifestObject, SegmentObject
    from replicad.plan.policy import RetentionPolicy
    from replicad.position import TXID, Epoch

GRACE = "grace"
"""Why something stays that nothing but the grace period keeps."""


class Keeping:
    """What stays of one inventory; filled by its methods.

    Args:
        inventory: all objects.
        policy: what is promised.
        now_ms: the present.
    """

    def __init__(self, inventory: Inventory, policy: RetentionPolicy, *, now_ms: int) -> None:
        self.reasons: dict[str, str] = {}  # by key of what stays
        self.lines: list[Line] = []  # that must go on to be read
        self.later_ms: set[int] = set()  # instants at which something of what stays may go
        self.begin: ManifestObject | None = None  # of the continuous window, as promised now; None: the line's own
        self._inventory = inventory
        self._policy = policy
        self._now_ms = now_ms
        self._grace_ms = round(policy.grace_seconds * 1000)
        self._window_ms = round(policy.pitr_window_seconds * 1000)

    @property
    def cutoff_ms(self) -> int:
        """The beginning of the window, widened by the grace period."""
        return self._now_ms - self._window_ms - self._grace_ms

    def keep_promises(self, line: Line) -> None:
        """Keep what the policy promises of the line of history."""
        self.lines.append(line)
        whole = [found for found in line.manifests if self._inventory.is_whole(found)]
        settled = settled_ms(line, self._inventory)
        self.begin = self._keep_window(line, whole, settled, self._now_ms, reason="window")
        self._keep_by_rules(whole, self._now_ms, reason="")
        then_ms = self._now_ms - self._grace_ms
        stored_then = [found for found in whole if self._inventory.modified_ms(found.name) <= then_ms]
        begin = self._keep_window(line, stored_then, settled, then_ms, reason=GRACE)
        self._keep_by_rules(stored_then, then_ms, reason=GRACE)
        self._note_when(whole, settled, begin)

    def keep_tail(self, epoch: Epoch, stored: Sequence[SegmentObject | ManifestObject]) -> None:
        """Keep an orphaned tail, and what its line needs for it, while its newest object is within the window."""
        newest_ms = max(max(_commit_ms(found), self._inventory.modified_ms(found.name)) for found in stored)
        if newest_ms <= self.cutoff_ms:
            return
        self.later_ms.add(newest_ms + self._window_ms + self._grace_ms)
        for found in stored:
            self.reasons.setdefault(found.name, "orphaned_tail")
        line = self._line_of(epoch)
        if line is not None:
            self.lines.append(line)
            whole = [found for found in line.manifests if self._inventory.is_whole(found)]
            then_ms = self._now_ms - self._grace_ms
            self._keep_window(line, whole, settled_ms(line, self._inventory), then_ms, reason="orphaned_tail")

    def keep_marked(self, mark: MarkKey) -> bool:
        """Keep the state that a mark names, with a way to it; return False when the mark has expired."""
        end_ms = mark.until_ms + self._grace_ms
        if end_ms <= self._now_ms:
            return False
        self.later_ms.add(end_ms)
        line = self._line_of(mark.epoch) or (self.lines[0] if self.lines else None)
        if line is None:
            return True
        before = [found for found in line.manifests if found.key.txid <= mark.txid and self._inventory.is_whole(found)]
        if before:
            self.lines.append(line)
            self.reasons.setdefault(before[-1].name, "preserved")
            self._keep_segments(line, before[-1].key.txid, through=mark.txid, reason="preserved")
        return True

    def _line_of(self, epoch: Epoch) -> Line | None:
        """Return the line that ends in an epoch; None when it cannot be read any more."""
        try:
            return line_of_history(self._inventory.history, epoch=epoch)
        except (Damaged, NoBackup, UsageError):
            return None  # without a start, or with one that contradicts another, nothing can be restored of it

    def _keep_window(
        self, line: Line, whole: Sequence[ManifestObject], settled: dict[str, int], at_ms: int, *, reason: str
    ) -> ManifestObject | None:
        """Keep the continuous window as of an instant; return the snapshot it begins with, None for all there is."""
        cutoff_ms = at_ms - self._window_ms
        base = max((number for number, found in enumerate(whole) if settled[found.name] <= cutoff_ms), default=None)
        begin = None if base is None else whole[max(0, min(base, len(whole) - self._policy.min_snapshots))]
        for found in line.manifests:
            if begin is None or _order(found) >= _order(begin):
                self.reasons.setdefault(found.name, reason)
        self._keep_segments(line, None if begin is None else begin.key.txid, through=None, reason=reason)
        return begin

    def _keep_segments(self, line: Line, after: TXID | None, *, through: TXID | None, reason: str) -> None:
        """Keep every segment that holds a transaction behind `after` up to `through`, not only the fewest.

        Which of several that hold the same transactions is deleted for another reason (a roll-up has replaced it) is
        not decided here: as long as all stay here, none of those decisions can leave a hole.
        """
        for part in line.segments:
            if (after is None or part.until > after) and (through is None or part.first <= through):
                self.reasons.setdefault(part.name, reason)

    def _keep_by_rules(self, whole: Sequence[ManifestObject], at_ms: int, *, reason: str) -> None:
        for number, rule in snapshots_kept([found.key.ms for found in whole], self._policy, now_ms=at_ms).items():
            self.reasons.setdefault(whole[number].name, reason or rule)

    def _note_when(
        self, whole: Sequence[ManifestObject], settled: dict[str, int], begin: ManifestObject | None
    ) -> None:
        """Note when the widened window will begin with a later snapshot, and when what only grace keeps loses it."""
        later = [found for found in whole if begin is None or _order(found) > _order(begin)]
        movable = later[: max(int(begin is None), len(later) - self._policy.min_snapshots + 1)]
        self.later_ms |= {settled[found.name] + self._window_ms + self._grace_ms for found in movable}
        if GRACE in self.reasons.values():
            self.later_ms |= {self._inventory.modified_ms(found.name) + self._grace_ms for found in whole}


def settled_ms(line: Line, inventory: Inventory) -> dict[str, int]:
    """Return for each snapshot of the line since when everything up to it is history, by its key.

    That is the highest commit time of it and of whatever lies before it, since clocks differ between instances and
    jump; or the store's time of it, when that is later.
    """
    points = sorted(
        [(part.until, part.until_ms, "") for part in line.segments if part.until_ms is not None]
        + [(found.key.txid, found.key.ms, found.name) for found in line.manifests]
    )
    settled: dict[str, int] = {}
    highest_ms, at = 0, 0
    for found in line.manifests:
        while at < len(points) and points[at][0] <= found.key.txid:
            highest_ms = max(highest_ms, points[at][1])
            at += 1
        settled[found.name] = max(highest_ms, inventory.modified_ms(found.name))
    return settled


def _commit_ms(stored: SegmentObject | ManifestObject) -> int:
    return stored.key.ms if isinstance(stored.key, ManifestKey) else stored.key.last_ms


def _order(manifest: ManifestObject) -> tuple[int, int, int]:
    return (manifest.key.txid, manifest.key.epoch, manifest.key.ms)
