"""Which states can be restored at all: from each snapshot as far as segments follow without a gap."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from replicad.plan.line import Line, LineSegment
    from replicad.position import TXID

NOTHING: frozenset[str] = frozenset()
"""No objects are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of transactions each of whose states can be restored; it begins with a snapshot."""

    first: TXID
    last: TXID

    def __contains__(self, txid: int) -> bool:
        return self.first <= txid <= self.last


def reachable(line: Line, *, without: AbstractSet[str] = NOTHING) -> tuple[Span, ...]:
    """Return the spans of restorable transactions in order; `without` names objects that cannot be used.

    A snapshot inside a span begins none of its own. Two spans may touch: then nothing is missing between
    them, the later snapshot being the only trace of its transaction.
    """
    runs = _runs(part for part in line.segments if part.name not in without)
    begins = [run.first for run in runs]
    spans: list[Span] = []
    for found in line.manifests:
        txid = found.key.txid
        if found.name in without or (spans and txid in spans[-1]):
            continue
        number = bisect_right(begins, txid + 1) - 1
        last = txid if number < 0 else max(txid, runs[number].last)
        spans.append(Span(first=txid, last=last))
    return tuple(spans)


def _runs(segments: Iterable[LineSegment]) -> list[Span]:
    """Return the stretches without a missing transaction; `segments` come by first transaction."""
    runs: list[Span] = []
    for part in segments:
        if runs and part.first <= runs[-1].last + 1:
            runs[-1] = Span(first=runs[-1].first, last=max(runs[-1].last, part.until))
        else:
            runs.append(Span(first=part.first, last=part.until))
    return runs
