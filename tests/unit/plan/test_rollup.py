"""What is rolled up next: against an oracle of which transactions can be restored, and with how many objects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.layout import ManifestKey, SegmentKey
from replicad.plan.line import History, Line, line_of_history
from replicad.plan.listing import SegmentObject
from replicad.plan.reach import reachable
from replicad.plan.restore import RestorePlan, plan_restore
from replicad.plan.rollup import Group, RollUpLimits, Waiting, add, covering, covers, next_groups, settle, uncovered
from replicad.plan.target import AtTXID, Latest
from replicad.position import TXID, Epoch
from tests.support.line_of_keys import T0_MS, history, start

SMALL = RollUpLimits(fan=4, least=2, most_bytes=400, large_segment_bytes=100, large_rollup_bytes=200)


def found(
    first: int, last: int | None = None, *, level: int = 0, epoch: int = 1, size_bytes: int = 10
) -> SegmentObject:
    """Return an object whose last commit was as many ms behind T0 as its TXID."""
    last = first if last is None else last
    key = SegmentKey(epoch=Epoch(epoch), first=TXID(first), last=TXID(last), last_ms=T0_MS + last, level=level)
    return SegmentObject(key=key, size_bytes=size_bytes)


def waiting(*objects: SegmentObject, cuts: tuple[int, ...] = (), ended: bool = False) -> Waiting:
    """Return what waits."""
    return Waiting(objects=objects, cuts=tuple(TXID(cut) for cut in cuts), ended=ended)


def rolled(state: Waiting, limits: RollUpLimits = SMALL) -> tuple[Waiting, list[tuple[int, int, int]]]:
    """Roll up all that can be; return what waits then, and (level, first, last) of the roll-ups."""
    made: list[tuple[int, int, int]] = []
    while groups := next_groups(state, limits):
        for group in groups:
            assert len(group.sources) >= limits.least
            assert sum(one.size_bytes for one in group.sources) <= limits.most_bytes
            made.append((group.key.level, group.key.first, group.key.last))
        state = add(state, [stored(group) for group in groups])
    return state, made


def stored(group: Group) -> SegmentObject:
    """Return the roll-up."""
    return SegmentObject(key=group.key, size_bytes=sum(one.size_bytes for one in group.sources))


def test_as_many_as_the_fan_become_one() -> None:
    """Four that follow one another become one; with fewer of them there is nothing to do yet."""
    assert next_groups(waiting(*map(found, range(1, 5))), SMALL) == [], "the newest is never part of one"
    _, made = rolled(waiting(*map(found, range(1, 12))))
    assert made == [(1, 1, 4), (1, 5, 8)]


def test_roll_ups_are_rolled_up() -> None:
    """Four roll-ups become one of the next level: there are never more than a few objects of each."""
    state, made = rolled(waiting(*map(found, range(1, 65))), replace(SMALL, most_bytes=10**6, large_rollup_bytes=10**5))
    assert [one for one in made if one[0] == 2] == [(2, 1, 16), (2, 17, 32), (2, 33, 48)]
    assert [(one.key.level, one.key.first) for one in state.objects] == [
        (2, 1),
        (2, 17),
        (2, 33),
        *((1, first) for first in (49, 53, 57)),
        *((0, first) for first in (61, 62, 63, 64)),
    ]


def test_no_roll_up_across_a_snapshot() -> None:
    """What lies before a snapshot is rolled up by itself, as soon as nothing can be added to it any more.

    A segment that lies across stays as it is.
    """
    state = waiting(*map(found, range(1, 7)), found(7, 9), *map(found, range(10, 13)), cuts=(2, 8))
    assert rolled(state)[1] == [(1, 1, 2), (1, 3, 6)]
    assert rolled(add(state, [found(13), found(14)]))[1] == [(1, 1, 2), (1, 3, 6), (1, 10, 13)]


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ((), "a transaction is missing"),
        ((found(5, size_bytes=101),), "a large segment"),
        ((found(5, level=1, size_bytes=201),), "a large roll-up"),
    ],
)
def test_what_ends_a_roll_up(between: tuple[SegmentObject, ...], why: str) -> None:
    """Nothing lies across a gap or what is large; what stands before it is rolled up even if it is few."""
    state = waiting(found(2), found(3), found(4), *between, found(6), found(7), found(8))
    assert rolled(state)[1] == [(1, 2, 4)], why


def test_a_broken_object_stays_by_itself() -> None:
    """What is damaged is in no roll-up; what stands on both sides of it is."""
    state = waiting(*map(found, range(1, 10)))
    broken = Waiting(objects=state.objects, apart=frozenset({found(4).key}))
    assert rolled(broken)[1] == [(1, 1, 3), (1, 5, 8)]


def test_what_an_ended_epoch_has_left() -> None:
    """Of an epoch that is over everything is rolled up but its newest segment."""
    assert rolled(waiting(*map(found, range(1, 7)), ended=True))[1] == [(1, 1, 4)]
    assert rolled(waiting(*map(found, range(1, 8)), ended=True))[1] == [(1, 1, 4), (1, 5, 6), (2, 1, 6)]


def test_a_roll_up_has_no_more_bytes_than_allowed() -> None:
    """Objects are taken as far as they fit."""
    objects = [found(txid, size_bytes=100) for txid in range(1, 12)]
    assert rolled(waiting(*objects), replace(SMALL, fan=9, most_bytes=450))[1] == [(1, 1, 4), (1, 5, 8)]


def test_what_is_kept_in_mind_is_little() -> None:
    """A day of one segment a second is gone through with never more than two fans of objects in mind."""
    state, most, made = Waiting(objects=()), 0, 0
    limits = RollUpLimits()
    for second in range(86_400 // 64):
        came = [found(second * 64 + number, size_bytes=700) for number in range(1, 65)]
        state, groups = rolled(add(state, came), limits)
        state = settle(state, limits)
        most, made = max(most, len(state.objects)), made + len(groups)
    assert made == 86_400 // 64 - 1 + 86_400 // 4096
    assert most <= 2 * 64 + 1


def test_a_day_of_one_segment_a_second() -> None:
    """After a day of one segment a second the last moment takes fewer than 200 requests, whenever one looks.

    Of the snapshots that a day would have nothing is taken for granted: there is the first one only.
    """
    day, limits = 86_400, RollUpLimits()
    manifest = ManifestKey(epoch=Epoch(1), txid=TXID(1), ms=T0_MS)
    singles = [found(txid, size_bytes=700) for txid in range(2, day + 2)]
    before = plan_restore(line_of_history(_history(singles, manifest)), Latest())
    assert isinstance(before, RestorePlan)
    assert len(before.segments) == day
    state, _ = rolled(waiting(*singles), limits)
    rollups = [one for one in state.objects if one.is_rollup]
    plan = plan_restore(line_of_history(_history([*singles, *rollups], manifest)), Latest())
    assert isinstance(plan, RestorePlan)
    assert (plan.txid, sum(part.stored.stored.is_rollup for part in plan.segments)) == (day + 1, len(rollups))
    # The whole of a roll-up up to 4 MiB is one request; the largest here have 2.9 MB.
    assert max(one.size_bytes for one in rollups) < 4 << 20
    worst = day // 4096 + 2 * limits.fan
    assert len(plan.segments) <= worst < 190
    assert len(plan.segments) == len(state.objects)


def _history(objects: list[SegmentObject], manifest: ManifestKey) -> History:
    return history([*((one.name, one.size_bytes) for one in objects), (str(manifest), 100)])


def test_what_makes_others_superfluous() -> None:
    """A roll-up covers what it was made of, of its own epoch and of lower levels, and the widest counts."""
    small = [found(txid) for txid in range(1, 9)]
    first, second, both = found(1, 4, level=1), found(5, 8, level=1), found(1, 8, level=2)
    elsewhere = found(2, epoch=2)
    assert uncovered([*small, elsewhere]) == [*small, elsewhere]
    assert uncovered([*small, first, elsewhere]) == [first, *small[4:], elsewhere]
    assert uncovered([*small, first, second, both, elsewhere]) == [both, elsewhere]
    assert covering([*small[:4], first, second]) == [first]
    assert covering([*small, first, second, both]) == [both]
    assert covering([first, second]) == []
    assert covers(both, first)
    assert not covers(first, both)
    assert not covers(first, found(4, 5))


@pytest.mark.parametrize("limits", [{"fan": 1}, {"least": 1}, {"most_bytes": 1000}])
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    """A roll-up of one object would be made for ever."""
    with pytest.raises(ValueError, match="roll-ups of fewer"):
        RollUpLimits(**limits)


# --- any history, any order, any crash ---------------------------------------------------------


@dataclass
class Bucket:
    """What is stored of two epochs, and what can be restored of it at first."""

    objects: dict[SegmentKey, int]
    manifests: list[ManifestKey]
    parent_txid: int
    restorable: set[int] = field(default_factory=set)
    fewest: dict[int, int] = field(default_factory=dict)  # objects in the plan to each

    def note(self) -> None:
        """Take down what can be restored, and by how many objects."""
        self.restorable = self.restorable_now()
        self.fewest = {txid: self.plan(txid) for txid in self.restorable}

    def line(self) -> Line:
        """Return the line."""
        objects = [(str(key), size_bytes) for key, size_bytes in self.objects.items()]
        objects += [(str(key), 50) for key in self.manifests]
        return line_of_history(history(objects, starts=[start(1), start(2, 1, self.parent_txid)]))

    def restorable_now(self) -> set[int]:
        """Return the transactions that can be restored."""
        return {txid for span in reachable(self.line()) for txid in range(span.first, span.last + 1)}

    def plan(self, txid: int) -> int:
        """Return how many objects the plan to a transaction has; each is there, and holds what is taken from it."""
        plan = plan_restore(self.line(), AtTXID(TXID(txid)))
        assert isinstance(plan, RestorePlan)
        assert all(part.key in self.objects for part in plan.segments)
        return len(plan.segments)

    def check(self) -> None:
        """Everything that could be restored still can be, with no more objects."""
        assert self.restorable_now() == self.restorable
        for txid in self.restorable:
            assert self.plan(txid) <= self.fewest[txid]

    def listed(self, epoch: int) -> Waiting:
        """Return what a duty that begins would find in an epoch."""
        objects = [
            SegmentObject(key=key, size_bytes=size_bytes)
            for key, size_bytes in self.objects.items()
            if key.epoch == epoch and (epoch == 2 or key.last <= self.parent_txid)
        ]
        cuts = [key.txid for key in self.manifests if key.epoch == epoch]
        return add(Waiting(objects=(), ended=epoch == 1), objects, cuts)


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    """Two epochs with segments of one or more transactions, some lost, some stored twice, and snapshots anywhere."""
    bucket = Bucket(objects={}, manifests=[], parent_txid=0)
    begin = 1
    for epoch in (1, 2):
        txid = begin
        for _ in range(draw(st.integers(1, 25))):
            last = txid + draw(st.sampled_from([0, 0, 0, 1, 3]))
            if draw(st.integers(0, 14)):
                size_bytes = draw(st.sampled_from([10, 10, 10, 60, 150]))
                bucket.objects[found(txid, last, epoch=epoch).key] = size_bytes
            if not draw(st.integers(0, 14)):
                longer = last + draw(st.sampled_from([1, 1, 3]))  # it was sent twice, an answer being lost
                bucket.objects[found(txid, longer, epoch=epoch).key] = 20
            txid = last + 1
        for cut in draw(st.sets(st.integers(begin, txid - 1), min_size=1, max_size=4)):
            bucket.manifests.append(ManifestKey(epoch=Epoch(epoch), txid=TXID(cut), ms=T0_MS + cut))
        if epoch == 1:
            bucket.parent_txid = draw(st.integers(1, txid - 1))
            begin = bucket.parent_txid + 1
    bucket.note()
    return bucket


@given(buckets(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_transaction_stays_restorable_whatever_breaks_off(bucket: Bucket, draws: st.DataObject) -> None:
    """Roll-ups and deletions in any order, broken off and begun again anywhere: nothing that was restorable is lost.

    A deletion takes any part of what a roll-up covers, and of a roll-up any part of the next level may be stored by
    then. The plan never has more objects than before. Seen to fail with groups made across a gap.
    """
    waiting_in = {epoch: bucket.listed(epoch) for epoch in (1, 2)}
    for _ in range(draws.draw(st.integers(1, 12))):
        epoch = draws.draw(st.sampled_from([1, 2]))
        step = draws.draw(st.sampled_from(["roll up", "roll up", "delete", "settle", "crash"]))
        if step == "crash":
            waiting_in[epoch] = bucket.listed(epoch)
        elif step == "settle":
            if not next_groups(waiting_in[epoch], SMALL):
                waiting_in[epoch] = settle(waiting_in[epoch], SMALL)
        elif step == "delete":
            objects = [SegmentObject(key=key, size_bytes=size) for key, size in bucket.objects.items()]
            tops = covering(objects)
            if tops:
                top = draws.draw(st.sampled_from(tops))
                below = [one.key for one in objects if covers(top, one)]
                for gone in draws.draw(st.lists(st.sampled_from(below), unique=True)):
                    del bucket.objects[gone]
        elif groups := next_groups(waiting_in[epoch], SMALL):
            group = draws.draw(st.sampled_from(groups))
            assert all(one.key in bucket.objects for one in group.sources)
            bucket.objects[group.key] = stored(group).size_bytes
            waiting_in[epoch] = add(waiting_in[epoch], [stored(group)])
            assert not any(
                group.key.first <= key.txid < group.key.last for key in bucket.manifests if key.epoch == epoch
            )
        bucket.check()
