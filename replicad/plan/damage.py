"""What missing and damaged objects cost: which instants are gone, and which are reached by another way.

Pure. What lies between two stretches of a history is a loss only where it was promised: behind the window of
point-in-time recovery single snapshots are kept on purpose, with nothing between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.plan.reach import Span, reachable
from replicad.plan.target import format_ms
from replicad.position import TXID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from replicad.plan.line import Line
    from replicad.plan.listing import ManifestObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Transactions in a row, with the commit times that are known without reading a segment (Unix ms)."""

    first: TXID
    last: TXID
    first_ms: int | None = None
    last_ms: int | None = None

    def __str__(self) -> str:
        if self.first == self.last:
            return f"TXID {self.first}{_at(self.first_ms)}"
        return f"TXID {self.first}{_at(self.first_ms)} to {self.last}{_at(self.last_ms)}"


def lost_without(line: Line, without: AbstractSet[str]) -> tuple[Stretch, ...]:
    """Return what could be restored with these objects, segments and manifests by their key, and cannot without."""
    if not without:
        return ()
    times = _times(line)
    return tuple(_stretch(span, times) for span in _minus(reachable(line), reachable(line, without=without)))


def gaps(line: Line, *, promised_ms: int | None = None) -> tuple[Stretch, ...]:
    """Return the transactions that the listing tells of and no objects lead to, oldest first.

    Args:
        line: the line of history.
        promised_ms: from when on every instant was promised (Unix ms); None: from the first stored transaction on.
    """
    spans = reachable(line)
    times = _times(line)
    told = [part.first for part in line.segments[:1]] + [span.first for span in spans[:1]]
    first = TXID(min(told, default=1))
    if line.last_txid < first:
        return ()
    missing = _minus((Span(first=first, last=line.last_txid),), spans)
    return tuple(_stretch(span, times) for span in missing if _was_promised(span, spans, times, promised_ms))


def served_by(line: Line, manifest: ManifestObject) -> Stretch:
    """Return the transactions for which a restore begins with this snapshot: up to the next one, or to the end."""
    txid = manifest.key.txid
    later = [found.key.txid for found in line.manifests if found.key.txid > txid]
    span = next((span for span in reachable(line) if txid in span), Span(first=txid, last=txid))
    last = TXID(min([span.last, *(number - 1 for number in later[:1])]))
    return _stretch(Span(first=txid, last=max(txid, last)), _times(line))


def _was_promised(gap: Span, spans: Sequence[Span], times: Mapping[TXID, int], promised_ms: int | None) -> bool:
    """Return whether a gap reaches into the promised window: it ends where the next stretch begins."""
    if promised_ms is None:
        return True
    behind = next((span.first for span in spans if span.first > gap.last), None)
    return behind is None or times.get(behind, promised_ms + 1) > promised_ms


def _minus(whole: Sequence[Span], parts: Sequence[Span]) -> Iterator[Span]:
    """Yield what of `whole` is in none of `parts`; both are in order and do not overlap within themselves."""
    for span in whole:
        first = span.first
        for part in parts:
            if part.last < first:
                continue
            if part.first > span.last:
                break
            if part.first > first:
                yield Span(first=first, last=TXID(part.first - 1))
            first = TXID(part.last + 1)
        if first <= span.last:
            yield Span(first=first, last=span.last)


def _times(line: Line) -> dict[TXID, int]:
    """Return the commit times that stand in keys."""
    times = {part.until: part.until_ms for part in line.segments if part.until_ms is not None}
    return times | {found.key.txid: found.key.ms for found in line.manifests}


def _stretch(span: Span, times: Mapping[TXID, int]) -> Stretch:
    return Stretch(first=span.first, last=span.last, first_ms=times.get(span.first), last_ms=times.get(span.last))


def _at(ms: int | None) -> str:
    return "" if ms is None else f" ({format_ms(ms)})"
