"""The goals, each a ratio or a count of one run; the bound stands beside what was found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.peers.field import BARE, CRON, CRON_GZIP, EAGER, LIMIT, LIMIT_EAGER, NEW_EAGER, OLD_EAGER, OURS, REPLICAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.peers.record import Found

_TUNED = {NEW_EAGER.name, OLD_EAGER.name}
_NOT_OURS = {*OURS, BARE, LIMIT, LIMIT_EAGER}
_LEAST = 1e-9  # instead of a division by nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal and what was found; `reached` is None when it could not be measured."""

    what: str
    bound: str
    found: str
    reached: bool | None
    limit: str = ""  # the ratio that nobody gets past
    out_of_reach: bool = False  # the bound is past it


def goals(found: Found) -> Iterator[Goal]:
    """Yield all of them."""
    for part in (_lag, _application, _cost, _restore, _quiet, _lost):
        yield from part(found)


def _lag(found: Found) -> Iterator[Goal]:
    cases = (
        ("at the defaults", REPLICAD.name, {*_NOT_OURS, *_TUNED}),
        ("ours with sync_interval 0s, peers at their defaults", EAGER.name, {*_NOT_OURS, *_TUNED}),
        ("all at their best", EAGER.name, _NOT_OURS),
    )
    for which, ours, leave_out in cases:
        peers = found.of_peers("lag", "20/s", "lag without PUT p50", leave_out)
        if not leave_out & _TUNED and not peers.keys() & _TUNED:
            continue  # the quick mode has no tuned peers
        mine = found.value("lag", "20/s", "lag without PUT p50", ours)
        limit = found.value("lag", "20/s", "lag without PUT p50", LIMIT if ours == REPLICAD.name else LIMIT_EAGER)
        what = f"lag p50 at 20 commits/s, PUT taken off: {which}"
        yield _at_most(what, mine, _best(peers), 1 / 20, "ms", limit)


def _application(found: Found) -> Iterator[Goal]:
    for case in ("1 writer", "4 writers"):
        bare = found.value("flat", case, "throughput", BARE)
        mine = found.value("flat", case, "throughput", REPLICAD.name)
        limit = found.value("flat", case, "throughput", LIMIT)
        yield _at_least(f"throughput flat out / bare, {case}", mine, bare, 0.97, limit=limit)
        peers = found.of_peers("flat", case, "throughput", {*_NOT_OURS, CRON.name})
        best = max(peers.items(), key=lambda pair: pair[1], default=None)
        yield _at_least(f"throughput flat out / best peer, {case}", mine, best[1] if best else None, 1.0, best)
        stalls = found.of_peers("flat", case, "commit max", {*_NOT_OURS, CRON.name})
        mine = found.value("flat", case, "commit max", REPLICAD.name)
        limit = found.value("flat", case, "commit max", LIMIT)
        yield _at_most(f"longest commit flat out / least of the peers, {case}", mine, _best(stalls), 1.0, "ms", limit)
    stalls = found.of_peers("bulk", "bulk", "commit max", _NOT_OURS)
    mine = found.value("bulk", "bulk", "commit max", REPLICAD.name)
    limit = found.value("bulk", "bulk", "commit max", LIMIT)
    yield _at_most("longest commit in the bulk load / least of the peers", mine, _best(stalls), 1.0, "ms", limit)


def _cost(found: Found) -> Iterator[Goal]:
    cases = (
        ("lag", "20/s", "CPU", 1.0, "% of a core"),
        ("flat", "1 writer", "CPU per GB of WAL", 1.0, "s"),
        ("bulk", "bulk", "CPU per GB of WAL", 1.0, "s"),
        ("restore", "updates", "CPU per GB of WAL", 1.0, "s"),
        ("flat", "1 writer", "bytes sent per byte of WAL", 0.5, ""),
        ("bulk", "bulk", "bytes sent per byte of WAL", 0.5, ""),
        ("slow", "1/s", "of it log", 0.5, "MB/h"),
        ("lag", "20/s", "of it log", 0.5, "MB/h"),
        ("restore", "first copy", "bytes sent", 0.5, "MB"),
        ("restore", "updates", "bytes sent", 0.5, "MB"),
        ("restore", "updates", "bytes stored", 0.5, "MB"),
        ("day", "day", "bytes stored", 0.5, "MB"),
    )
    for scenario, case, figure, bound, unit in cases:
        peers = found.of_peers(scenario, case, figure, {*_NOT_OURS, *_TUNED, CRON.name, CRON_GZIP.name})
        mine = found.value(scenario, case, figure, REPLICAD.name)
        name = "log bytes sent" if figure == "of it log" else figure
        limit = found.value(scenario, case, figure, LIMIT)
        yield _at_most(f"{name} / best peer: {case}", mine, _best(peers), bound, unit, limit)


def _restore(found: Found) -> Iterator[Goal]:
    for case, bound in (("end, 20 ms", 1 / 4), ("middle, 20 ms", 1 / 4), ("stale copy, 20 ms", 1 / 10)):
        peers = found.of_peers("restore", case, "seconds", _NOT_OURS)
        mine = found.value("restore", case, "seconds", REPLICAD.name)
        limit = found.value("restore", case, "seconds", LIMIT)
        yield _at_most(f"restore time / best peer: {case}", mine, _best(peers), bound, "s", limit)
    peers = found.of_peers("restore", "end, 20 ms", "peak memory", _NOT_OURS)
    mine = found.value("restore", "end, 20 ms", "peak memory", REPLICAD.name)
    yield _at_most("restore peak memory / least of the peers", mine, _best(peers), 1.0, "MB")


def _quiet(found: Found) -> Iterator[Goal]:
    others = found.value("idle", "idle", "but for handover", REPLICAD.name)
    yield _count("idle requests an hour, without handover polling", others)
    for case in ("100 KiB", "100 MiB", "1 GiB"):
        what = f"redeploy onto an empty disk: database bytes uploaded, {case}"
        yield _count(what, found.value("boot", case, "redeploy: database bytes uploaded", REPLICAD.name))


def _lost(found: Found) -> Iterator[Goal]:
    what = "SIGKILL of everything: trials in which a transaction reported durable was lost"
    yield _count(what, found.value("kill", "kill", "lost though reported", REPLICAD.name))
    lost = found.value("kill", "kill", "lost time, max", REPLICAD.name)
    lag = found.value("lag", "20/s", "lag max", REPLICAD.name)
    yield _at_most("SIGKILL: time lost / longest lag", lost, None if lag is None else ("lag", lag / 1e3), 1.2, "s")


def _best(peers: dict[str, float]) -> tuple[str, float] | None:
    return min(peers.items(), key=lambda pair: pair[1], default=None)


def _at_most(  # noqa: PLR0913, PLR0917 - one line of a table
    what: str,
    mine: float | None,
    best: tuple[str, float] | None,
    bound: float,
    unit: str,
    limit: float | None = None,
) -> Goal:
    goal = _ratio(what, mine, best, f"<= {bound:.2f}", unit, lambda ratio: ratio <= bound)
    if limit is None or best is None or goal.reached is None:
        return goal
    least = limit / max(best[1], _LEAST)
    return replace(goal, limit=f"{least:.3f}", out_of_reach=not goal.reached and least > bound)


def _at_least(  # noqa: PLR0913 - one line of a table
    what: str,
    mine: float | None,
    theirs: float | None,
    bound: float,
    best: tuple[str, float] | None = None,
    *,
    limit: float | None = None,
) -> Goal:
    named = best if best is not None else None if theirs is None else (BARE, theirs)
    goal = _ratio(what, mine, named, f">= {bound:.2f}", "/s", lambda ratio: ratio >= bound)
    if limit is None or named is None or goal.reached is None:
        return goal
    most = limit / max(named[1], _LEAST)
    return replace(goal, limit=f"{most:.3f}", out_of_reach=not goal.reached and most < bound)


def _ratio(  # noqa: PLR0913, PLR0917 - one line of a table
    what: str,
    mine: float | None,
    best: tuple[str, float] | None,
    bound: str,
    unit: str,
    reached: Callable[[float], bool],
) -> Goal:
    if mine is None or best is None:
        return Goal(what=what, bound=bound, found="not measured", reached=None)
    ratio = mine / max(best[1], _LEAST)
    text = f"{ratio:.3f} ({mine:.4g} {unit}; {best[0]} {best[1]:.4g} {unit})".replace(" ;", ";").replace(" )", ")")
    return Goal(what=what, bound=bound, found=text, reached=reached(ratio))


def _count(what: str, found: float | None) -> Goal:
    if found is None:
        return Goal(what=what, bound="0", found="not measured", reached=None)
    return Goal(what=what, bound="0", found=f"{found:.0f}", reached=found == 0)
