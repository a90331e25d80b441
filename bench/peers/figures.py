"""From commits and requests to figures."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.peers.measure import percentile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.peers.wire import Request
    from bench.peers.work import Commits


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: of one tool, in one case of a scenario."""

    case: str
    peer: str
    figure: str
    value: float
    unit: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as it is kept."""
        return asdict(self)


def medians(case: str, turns: Iterable[Row]) -> list[Row]:
    """Return the median of each tool's figures over all turns of a case."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in turns:
        found[row.peer, row.figure, row.unit].append(row.value)
    return [
        Row(case=case, peer=peer, figure=figure, value=statistics.median(values), unit=unit)
        for (peer, figure, unit), values in found.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How long one commit was not durable."""

    total: float  # from the return of the commit to the store's answer
    own: float  # of it, until the request began: what the tool itself is to blame for
    durable_at: float


def lags(commits: Commits, stored: Sequence[Request]) -> list[Lag]:
    """Return the lag of each commit: it is taken to travel in the first object whose request began after it did.

    A request that began after the commit, but was put together before, makes this too short by one interval for the few
    commits in between; `lag check` counts them by restoring what was there.
    """
    ordered = sorted(stored, key=lambda request: request.began)
    starts = [request.began for request in ordered]
    found = []
    for began, ended in zip(commits.began, commits.ended, strict=True):
        place = bisect_left(starts, began)
        if place < len(ordered) and (durable_at := ordered[place].ended) is not None:
            own = max(0.0, starts[place] - ended)
            found.append(Lag(total=max(0.0, durable_at - ended), own=own, durable_at=durable_at))
    return found


def spread(case: str, peer: str, what: str, seconds: Sequence[float]) -> Iterator[Row]:
    """Yield p50, p99 and max, in ms."""
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield Row(case=case, peer=peer, figure=f"{what} {name}", value=percentile(seconds, share) * 1e3, unit="ms")
    yield Row(case=case, peer=peer, figure=f"{what} max", value=max(seconds, default=0.0) * 1e3, unit="ms")
