"""Which segments to roll up next, and which objects a roll-up has made superfluous. Pure.

A restore asks for each object by itself. So objects of one level that follow one another become one of the next level,
`fan` at a time: after n segments there are at most `fan` of each level, and each byte is sent again once for each level
that it goes through. What is so large that sending it takes longer than asking for it stays as it is.

No roll-up reaches across a snapshot that is known: what lies before it can go without what lies behind it. The newest
segment of an epoch is never part of one: by its key an owner that starts knows what it had reported.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from replicad.layout import SegmentKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replicad.plan.listing import SegmentObject
    from replicad.position import TXID

_TOP_LEVEL = 9  # that a key can name


@dataclass(frozen=True, slots=True, kw_only=True)
class RollUpLimits:
    """What is rolled up, and into what."""

    fan: int = 64  # objects in a roll-up: two levels make 20 objects of a day of one segment a second
    least: int = 8  # objects in a roll-up that nothing can be added to any more: it costs a PUT
    most_bytes: int = 16 << 20  # of a roll-up: whoever makes one has it in memory
    large_segment_bytes: int = 256 << 10  # from here on it takes longer to send a segment than to ask for it
    large_rollup_bytes: int = 2 << 20  # of which there are never fewer than `least` in a roll-up

    def __post_init__(self) -> None:
        """See that a group never is of fewer than two objects.

        Raises:
            ValueError: it could be.
        """
        if min(self.fan, self.least) < 2 or self.large_bytes * self.least > self.most_bytes:  # noqa: PLR2004 - a pair
            raise ValueError(f"roll-ups of fewer than {self.least} objects, or of one: {self}")

    @property
    def large_bytes(self) -> int:
        """The most that an object which is rolled up has."""
        return max(self.large_segment_bytes, self.large_rollup_bytes)

    def is_large(self, found: SegmentObject) -> bool:
        """Return whether an object stays as it is."""
        most = self.large_rollup_bytes if found.is_rollup else self.large_segment_bytes
        return found.size_bytes > most or found.key.level == _TOP_LEVEL


LIMITS = RollUpLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Objects of one epoch that follow one another, to be rolled up."""

    sources: tuple[SegmentObject, ...]

    @property
    def key(self) -> SegmentKey:
        """The key of the roll-up."""
        first, last = self.sources[0].key, self.sources[-1].key
        return SegmentKey(
            epoch=first.epoch, first=first.first, last=last.last, last_ms=last.last_ms, level=first.level + 1
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What of one epoch may still be rolled up, by first transaction, and where snapshots were taken.

    Args:
        objects: none of them is covered by a roll-up.
        cuts: transactions of snapshots, rising.
        apart: objects that stay as they are, because something is wrong with them.
        ended: nothing comes behind them any more.
    """

    objects: tuple[SegmentObject, ...]
    cuts: tuple[TXID, ...] = ()
    apart: frozenset[SegmentKey] = frozenset()
    ended: bool = False

    def _stays(self, found: SegmentObject, limits: RollUpLimits) -> bool:
        """Return whether an object is in no roll-up: it is large, or broken, or lies across a snapshot."""
        across = _side(found.key.first, self.cuts) != _side(found.key.last, self.cuts)
        return across or found.key in self.apart or limits.is_large(found)

    def runs(self, limits: RollUpLimits) -> Iterator[tuple[Sequence[SegmentObject], bool]]:
        """Return stretches that may be rolled up, and of each whether nothing comes behind it any more."""
        run: list[SegmentObject] = []
        for found in self.objects[:-1]:
            stays = self._stays(found, limits)
            if run and (stays or not _follows(found, run[-1], self.cuts)):
                yield run, True
                run = []
            if not stays:
                run.append(found)
        if run:
            yield run, self.ended or not _follows(self.objects[-1], run[-1], self.cuts)


def next_groups(waiting: Waiting, limits: RollUpLimits = LIMITS) -> list[Group]:
    """Return what to roll up next, no object in two groups; when that is done, there may be more to do."""
    return [
        group
        for run, ended in waiting.runs(limits)
        for level_run, level_ended in _level_runs(run, ended=ended)
        for group in _groups(level_run, limits, ended=level_ended)
    ]


def settle(waiting: Waiting, limits: RollUpLimits = LIMITS) -> Waiting:
    """Return what may still be rolled up when everything that can be now is: a few objects of each level."""
    runs = list(waiting.runs(limits))
    kept = runs[-1][0] if runs and not runs[-1][1] else ()
    return replace(waiting, objects=(*kept, *waiting.objects[-1:]), cuts=waiting.cuts[-1:], apart=frozenset())


def add(waiting: Waiting, found: Iterable[SegmentObject], cuts: Iterable[TXID] = ()) -> Waiting:
    """Return what waits when these were listed or stored besides; what a roll-up covers no longer does."""
    objects = {one.key: one for one in (*waiting.objects, *found)}
    return replace(waiting, objects=tuple(uncovered(objects.values())), cuts=tuple(sorted({*waiting.cuts, *cuts})))


def uncovered(objects: Iterable[SegmentObject]) -> list[SegmentObject]:
    """Return the objects whose transactions no roll-up of a higher level holds, by epoch and first transaction."""
    kept: list[SegmentObject] = []
    widest: SegmentObject | None = None  # of the roll-ups that begin no later, the one that reaches furthest
    for found in sorted(objects, key=_widest_first):
        if widest is not None and covers(widest, found):
            continue
        kept.append(found)
        if found.is_rollup and (widest is None or _reach(found) > _reach(widest)):
            widest = found
    return kept


def covering(objects: Iterable[SegmentObject]) -> list[SegmentObject]:
    """Return the roll-ups that make others of these objects superfluous, none of them superfluous itself."""
    found = sorted(objects, key=_widest_first)
    kept = {one.key for one in uncovered(found)}
    tops: dict[SegmentKey, SegmentObject] = {}
    top: SegmentObject | None = None
    for one in found:
        if one.key in kept:
            top = one if one.is_rollup else top
        elif top is not None and covers(top, one):
            tops[top.key] = top
    return list(tops.values())


def covers(rollup: SegmentObject, other: SegmentObject) -> bool:
    """Return whether a roll-up holds every transaction of an object of a lower level."""
    above, below = rollup.key, other.key
    return (
        above.epoch == below.epoch
        and above.level > below.level
        and above.first <= below.first
        and below.last <= above.last
    )


def _widest_first(found: SegmentObject) -> tuple[int, int, int, int]:
    key = found.key
    return key.epoch, key.first, -key.last, -key.level


def _reach(found: SegmentObject) -> tuple[int, int]:
    return found.key.epoch, found.key.last


def _follows(found: SegmentObject, before: SegmentObject, cuts: Sequence[TXID]) -> bool:
    """Return whether an object goes on where another ends, with no snapshot between them."""
    above, below = found.key, before.key
    goes_on = above.first == below.last + 1 and above.last_ms >= below.last_ms
    return goes_on and _side(above.first, cuts) == _side(below.last, cuts)


def _side(txid: int, cuts: Sequence[TXID]) -> int:
    """Return how many snapshots were taken before the transaction."""
    return bisect_right(cuts, txid - 1)


def _level_runs(run: Sequence[SegmentObject], *, ended: bool) -> Iterator[tuple[Sequence[SegmentObject], bool]]:
    """Return the stretches of one level; nothing comes behind any but the last, and behind that one unless `ended`."""
    borders = [0, *(at for at, (one, other) in enumerate(pairwise(run), 1) if one.key.level != other.key.level)]
    for begin, end in pairwise((*borders, len(run))):
        # What comes behind roll-ups are objects of lower levels, which will be rolled up into more of their level.
        grows = all(found.key.level < run[begin].key.level for found in run[end:])
        yield run[begin:end], ended or not grows


def _groups(run: Sequence[SegmentObject], limits: RollUpLimits, *, ended: bool) -> Iterator[Group]:
    begin = size_bytes = 0
    for number, found in enumerate(run):
        if number - begin == limits.fan or size_bytes + found.size_bytes > limits.most_bytes:
            yield Group(sources=tuple(run[begin:number]))
            begin, size_bytes = number, 0
        size_bytes += found.size_bytes
    rest = len(run) - begin
    if rest == limits.fan or (ended and rest >= limits.least):
        yield Group(sources=tuple(run[begin:]))
