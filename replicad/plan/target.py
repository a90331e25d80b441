"""What a restore aims at, and which transaction that is.

"At a time" means the newest transaction whose commit time is not later; a time behind the last commit
means the last state. Keys tell the commit time of each segment's last transaction only, so a time
within a segment is settled by that segment's index: `resolve` asks for it, and is called again with it.

What was committed in a gap of the history is never answered with an older state, but with the nearest
instants on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from replicad.errors import HistoryGap, NoBackup, TargetOutsideWindow
from replicad.plan.reach import NOTHING, reachable
from replicad.position import TXID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from replicad.plan.line import Line, LineSegment

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_EARLY = "it lies before the first one that can be restored"


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest transaction of the line."""

    def __str__(self) -> str:
        return "the latest state"


@dataclass(frozen=True, slots=True)
class AtTime:
    """The newest transaction committed at `ms` (Unix time, UTC) or before."""

    ms: int

    def __str__(self) -> str:
        return format_ms(self.ms)


@dataclass(frozen=True, slots=True)
class AtTXID:
    """The state after exactly this transaction."""

    txid: TXID

    def __str__(self) -> str:
        return f"TXID {self.txid}"


Target = Latest | AtTime | AtTXID


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A transaction, and when it was committed, as far as that is known without reading a segment."""

    txid: TXID
    ms: int | None

    def __str__(self) -> str:
        return f"TXID {self.txid}" if self.ms is None else f"TXID {self.txid} ({format_ms(self.ms)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexNeeded:
    """The answer lies within this segment: read its index, and ask again with its commit times.

    Of a roll-up only those around the time that is asked for are needed.
    """

    segment: LineSegment


CommitTimes = tuple[tuple[TXID, int], ...]
"""(TXID, commit time in Unix ms) of transactions of a segment, or of a roll-up."""


def format_ms(ms: int) -> str:
    """Return Unix milliseconds as ISO 8601 in UTC; what lies beyond the calendar, as a number."""
    try:
        return (_UNIX_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{ms} ms"


def resolve(
    line: Line,
    target: Target,
    *,
    times: Mapping[str, CommitTimes] | None = None,
    without: AbstractSet[str] = NOTHING,
) -> TXID | IndexNeeded:
    """Return the transaction that the target means, or the segment whose index decides it.

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
    if line.last_txid == 0 and not line.manifests:
        raise NoBackup(database=line.label, store=line.label)
    chart = _Chart(line, times or {}, without)
    if isinstance(target, Latest):
        return chart.require(line.last_txid, target)
    if isinstance(target, AtTXID):
        if target.txid > line.last_txid:
            raise chart.outside(target, f"the newest transaction is {chart.newest()}")
        return chart.require(target.txid, target)
    return _resolve_time(chart, target)


def _resolve_time(chart: _Chart, target: AtTime) -> TXID | IndexNeeded:
    """Find the last instant that is not later; between it and the next one, commit times may be unknown."""
    first = chart.first()
    if first is None:
        raise chart.gap(target, TXID(1), chart.line.last_txid)
    below, below_ms, above = first.txid, first.ms, TXID(chart.line.last_txid + 1)
    if below_ms is None or target.ms < below_ms:
        raise chart.outside(target, _TOO_EARLY)
    for txid, ms in chart.points:
        if txid >= below and ms > target.ms:
            above = txid
            break
        if txid >= below:
            below, below_ms = txid, ms
    if above == below + 1:
        return chart.require(below, target)
    decisive = chart.unread_segment(TXID(below + 1))
    if decisive is not None:
        return IndexNeeded(segment=decisive)
    if below_ms == target.ms:  # the very instant that the error for this gap offers
        return chart.require(below, target)
    raise chart.gap(target, TXID(below + 1), TXID(above - 1))


class _Chart:
    """The line's known commit times and restorable spans, and the errors that name the nearest of them."""

    def __init__(self, line: Line, times: Mapping[str, CommitTimes], without: AbstractSet[str]) -> None:
        self.line = line
        self.spans = reachable(line, without=without)
        self._times = times
        self._without = without
        self._known = {part.until: part.until_ms for part in line.segments if part.until_ms is not None}
        self._known |= {found.key.txid: found.key.ms for found in line.manifests}
        for part in line.segments:
            read = times.get(part.name, ())
            self._known |= {txid: ms for txid, ms in read if part.first <= txid <= part.until}
        self.points = sorted(self._known.items())

    def first(self) -> Instant | None:
        return self._instant(self.spans[0].first) if self.spans else None

    def newest(self) -> Instant:
        return self._instant(self.line.last_txid)

    def unread_segment(self, txid: TXID) -> LineSegment | None:
        """Return the smallest usable segment that holds the transaction and whose commit times are unknown."""
        holding = (
            part
            for part in self.line.segments
            if part.first <= txid <= part.until and part.name not in self._without and part.name not in self._times
        )
        return min(holding, key=lambda part: part.stored.size_bytes, default=None)

    def require(self, txid: TXID, target: Target) -> TXID:
        """Return the transaction if its state can be restored.

        Raises:
            TargetOutsideWindow: it lies before the first that can.
            HistoryGap: it lies elsewhere.
        """
        if any(txid in span for span in self.spans):
            return txid
        if self.spans and txid < self.spans[0].first:
            raise self.outside(target, _TOO_EARLY)
        raise self.gap(target, txid, txid)

    def outside(self, target: Target, found: str) -> TargetOutsideWindow:
        """Return the error for a target on either side of the window."""
        ends = (self.spans[0].first, self.spans[-1].last) if self.spans else ()
        nearest = " to ".join(str(self._instant(txid)) for txid in ends) or "none"
        return TargetOutsideWindow(database=self.line.label, target=target, found=found, nearest=nearest)

    def gap(self, target: Target, first: TXID, last: TXID) -> HistoryGap:
        """Return the error for a target among the transactions `first` to `last`, none of them restorable."""
        below = max((min(span.last, TXID(first - 1)) for span in self.spans if span.first < first), default=None)
        above = min((max(span.first, TXID(last + 1)) for span in self.spans if span.last > last), default=None)
        begin = first if below is None else below + 1
        end = self.line.last_txid if above is None else above - 1
        found = f"transactions {begin} to {end} cannot be put together" if self.spans else "no usable snapshot is left"
        nearest = " and ".join(str(self._instant(txid)) for txid in (below, above) if txid is not None)
        return HistoryGap(database=self.line.label, target=target, found=found, nearest=nearest or "none")

    def _instant(self, txid: TXID) -> Instant:
        return Instant(txid=txid, ms=self._known.get(txid))
