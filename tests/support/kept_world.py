"""A replica made of nothing but keys and times, in which things happen, and another one that never loses anything.

What retention deletes is taken from `rows` alone; `ideal` is what a replica without retention would hold. Whatever is
promised at an instant and can be restored from `ideal` must be restorable from `rows`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from replicad.errors import HistoryGap, NoBackup, TargetOutsideWindow
from replicad.layout import ManifestKey, MarkKey, SegmentKey, chunk_key, end_key, parse_segment, start_key
from replicad.plan.inventory import Inventory, Row
from replicad.plan.line import History, line_of_history
from replicad.plan.listing import read_listing
from replicad.plan.restore import RestorePlan, plan_restore
from replicad.position import TXID, Epoch
from tests.support.line_of_keys import start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.ownership.records import EpochStart
    from replicad.plan.target import CommitTimes, Target

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
T0_MS = 1_763_683_200_000  # 2025-11-21T00:00:00Z


@dataclass
class KeptWorld:
    """One replica, from its first epoch on."""

    now_ms: int = T0_MS
    rows: dict[str, Row] = field(default_factory=dict)
    ideal: dict[str, Row] = field(default_factory=dict)
    contents: dict[str, frozenset[str]] = field(default_factory=dict)
    starts: dict[Epoch, EpochStart] = field(default_factory=dict)
    times: dict[tuple[int, int], int] = field(default_factory=dict)  # commit time by epoch and TXID
    epoch: Epoch = field(default=Epoch(0))
    txid: int = 0
    newest: frozenset[str] = frozenset()  # chunks of the newest snapshot
    skew_ms: int = 0  # by which the owner's clock differs from the store's
    last_ms: int = 0
    txid_ms: int = 0  # commit time of `txid`
    _names: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.take_over()
        self.commit(1)
        self.snapshot(fresh=2)

    # --- what happens ---------------------------------------------------------------------------------

    def put(self, key: str, size_bytes: int = 100) -> None:
        """Store an object now."""
        self.rows[key] = self.ideal[key] = Row(key=key, size_bytes=size_bytes, modified_ms=self.now_ms)

    def take_over(self, *, tail: int = 0) -> None:
        """Begin a new epoch; the owner before writes on for `tail` segments, which nobody sees."""
        before, txid, txid_ms = self.epoch, self.txid, self.txid_ms
        self.epoch = Epoch(before + 1)
        self.starts[self.epoch] = start(self.epoch, before, txid)
        self.put(start_key(self.epoch))
        after, last_ms = self.epoch, self.last_ms
        self.epoch = before
        for _ in range(tail if before else 0):
            self.commit(1)
        self.epoch, self.txid, self.txid_ms, self.last_ms = after, txid, txid_ms, last_ms

    def go_back(self, parent: Epoch, txid: int) -> None:
        """Begin a new epoch that continues from long ago, as if what came since had never been."""
        self.epoch, self.txid = Epoch(max(self.starts) + 1), txid
        self.txid_ms = self.times[parent, txid]
        self.starts[self.epoch] = start(self.epoch, parent, txid)
        self.put(start_key(self.epoch))

    def err(self) -> None:
        """Commit with a clock that is two days ahead; the next owner's is right, and does not know."""
        self.last_ms = max(self.last_ms, self.now_ms + 2 * DAY_MS)
        self.commit(1)
        self.take_over()
        self.last_ms = 0

    def end(self) -> None:
        """End the epoch in order, and begin another."""
        self.put(end_key(self.epoch))
        self.take_over()

    def commit(self, transactions: int) -> None:
        """Store a segment."""
        first = self.txid + 1
        for _ in range(transactions):
            self.txid += 1
            self.last_ms = max(self.last_ms, self.now_ms + self.skew_ms)
            self.times[self.epoch, self.txid] = self.txid_ms = self.last_ms
        self._put_segment(first, self.txid, self.last_ms)

    def roll_up(self, segments: int) -> None:
        """Store a segment that covers the newest ones of this epoch."""
        own = [key for name in self.rows if (key := parse_segment(name)) is not None and key.epoch == self.epoch]
        own = sorted(own, key=lambda key: (key.first, key.last))[-segments:]
        if own:
            self._put_segment(min(key.first for key in own), max(key.last for key in own), own[-1].last_ms)

    def snapshot(self, *, fresh: int, broken: bool = False) -> None:
        """Store a snapshot with some new chunks and those of the newest one; a broken one cannot be restored."""
        key = str(ManifestKey(epoch=self.epoch, txid=TXID(self.txid), ms=self.txid_ms))
        if key in self.ideal:
            return
        made = {chunk_key(self.epoch, f"{next(self._names):064x}") for _ in range(fresh)}
        lasting = sorted(self.newest)[fresh:]
        for chunk in made if not broken else ():
            self.put(chunk)
        self.contents[key] = frozenset(made) | frozenset(lasting)
        self.put(key)
        if not broken:
            self.newest = self.contents[key]

    def mark(self, txid: int, until_ms: int) -> None:
        """Preserve a state of the present line."""
        self.put(str(MarkKey(txid=TXID(txid), epoch=self.epoch, until_ms=until_ms)))

    def litter(self) -> None:
        """Store what is not ours, under keys that nearly are, and a chunk of a snapshot that came to nothing."""
        for key in ("epochs/00000001/log/readme.txt", "epochs/00000001/chunks/x.zst", "other", "claims/00000001.json"):
            self.put(key)
        self.put(chunk_key(self.epoch, f"{next(self._names):064x}"))

    def _put_segment(self, first: int, last: int, ms: int) -> None:
        self.put(str(SegmentKey(epoch=self.epoch, first=TXID(first), last=TXID(last), last_ms=ms)))

    # --- what is known --------------------------------------------------------------------------------

    def inventory(self, rows: Mapping[str, Row] | None = None) -> Inventory:
        """Return what a listing of the rows gives, the present ones when None."""
        rows = dict(self.rows if rows is None else rows)
        return Inventory(
            history=self.history(rows),
            rows=rows,
            contents={name: chunks for name, chunks in self.contents.items() if name in rows},
        )

    def history(self, rows: Mapping[str, Row]) -> History:
        """Return the history that the rows hold."""
        listing = read_listing((row.key, row.size_bytes) for row in rows.values())
        starts = {epoch: found for epoch, found in self.starts.items() if epoch in listing.starts}
        return History(label="memory", listing=listing, starts=starts)

    def restorable(self, rows: Mapping[str, Row], target: Target, epoch: Epoch | None = None) -> int | None:
        """Return the transaction that a restore from the rows reaches, None when it fails; as the shell does it."""
        line = line_of_history(self.history(rows), epoch=epoch)
        times: dict[str, CommitTimes] = {}
        without: set[str] = set()
        while True:
            try:
                answer = plan_restore(line, target, times=times, without=without)
            except (HistoryGap, TargetOutsideWindow, NoBackup):
                return None
            if isinstance(answer, RestorePlan):
                if all(chunk in rows for chunk in self.contents[answer.manifest.name]):
                    return answer.txid
                without.add(answer.manifest.name)
                continue
            key = answer.segment.stored.key
            times[str(key)] = tuple(
                (TXID(txid), self.times[key.epoch, txid]) for txid in range(key.first, key.last + 1)
            )
