"""The retention plan, judged by the real restore plan: what is promised stays restorable, whatever happens when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import NoBackup
from replicad.layout import parse_manifest, parse_mark, parse_segment
from replicad.plan.line import line_of_history
from replicad.plan.policy import RULES, Keep, RetentionPolicy, snapshots_kept
from replicad.plan.retention import RetentionPlan, plan_retention
from replicad.plan.target import AtTime, AtTXID, Latest, Target
from replicad.position import TXID, Epoch
from tests.support.kept_world import DAY_MS, HOUR_MS, T0_MS, KeptWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicad.plan.inventory import Row
    from replicad.plan.listing import ManifestObject

WEEK = RetentionPolicy()
SHORT = RetentionPolicy(pitr_window_seconds=3600.0, grace_seconds=0.0, min_snapshots=1)


def days(world: KeptWorld, number: int, *, snapshots: bool = True) -> None:
    """Let days go by, with a segment each and, in the evening, a snapshot."""
    for _ in range(number):
        world.now_ms += DAY_MS // 2
        world.commit(1)
        world.now_ms += DAY_MS // 2
        if snapshots:
            world.snapshot(fresh=1)


def prune(world: KeptWorld, policy: RetentionPolicy) -> RetentionPlan:
    """Carry a plan out."""
    plan = plan_retention(world.inventory(), policy, now_ms=world.now_ms)
    for verdict in plan.deleted:
        del world.rows[verdict.key]
    return plan


def snapshots_of(rows: dict[str, Row]) -> list[int]:
    """Return the TXIDs of the snapshots."""
    return sorted(key.txid for name in rows if (key := parse_manifest(name)) is not None)


# --- the window ----------------------------------------------------------------------------------------


def test_the_window_does_not_swing() -> None:
    """TRAP: a window that swings between nothing and a day because the snapshot older than the cutoff was deleted.

    Snapshots come once a day and the window is an hour, so most of the time no snapshot lies within it. Seen to fail
    with the base chosen among the snapshots not older than the beginning: an hour behind the snapshot nothing was left.
    """
    world = KeptWorld()
    for _ in range(72):
        world.now_ms += HOUR_MS
        world.commit(1)
        if (world.now_ms - T0_MS) % DAY_MS == 0:
            world.snapshot(fresh=1)
        prune(world, SHORT)
        for back_ms in (0, HOUR_MS // 2, HOUR_MS):
            target = AtTime(world.now_ms - back_ms)
            assert world.restorable(world.rows, target) == world.restorable(world.ideal, target) is not None
    assert len(world.rows) < 60


def test_a_steady_replica_does_not_grow() -> None:
    """With a snapshot a day, eight days and their log stay beside the grace period's, and nothing else."""
    world = KeptWorld()
    days(world, 40)
    prune(world, WEEK)
    assert len(snapshots_of(world.rows)) == 9  # seven days, one of grace, and the one that the window begins with
    assert len([name for name in world.rows if parse_segment(name)]) == 8
    listed = {chunk for name in world.rows for chunk in world.contents.get(name, ())}
    assert {name for name in world.rows if "/chunks/" in name} == listed


def test_every_object_has_a_reason() -> None:
    """What goes and what stays is each named once, with why; claims and what is not ours are not named."""
    world = KeptWorld()
    days(world, 3)
    world.litter()
    days(world, 20)
    policy = RetentionPolicy(keep={"weekly": Keep(count=3)})
    plan = plan_retention(world.inventory(), policy, now_ms=world.now_ms)
    named = [verdict.key for verdict in (*plan.deleted, *plan.kept)]
    assert len(named) == len(set(named))
    assert set(world.rows) - set(named) == {
        "epochs/00000001/log/readme.txt",
        "epochs/00000001/chunks/x.zst",
        "other",
        "claims/00000001.json",
    }
    reasons = {(verdict.kind, verdict.reason) for verdict in (*plan.deleted, *plan.kept)}
    assert reasons >= {
        ("snapshot", "outside_window"),
        ("segment", "outside_window"),
        ("chunk", "unlisted"),
        ("snapshot", "window"),
        ("snapshot", "keep_weekly"),
        ("segment", "grace"),
        ("chunk", "listed"),
        ("record", "line"),
    }


def test_probes_that_a_crash_has_left_go() -> None:
    """What a start or a look at the clock has stored, and died, goes after the grace period; a young one stays.

    Nor does it make anybody look once more: an idle database comes to rest.
    """
    world = KeptWorld()
    without = plan_retention(world.inventory(), RetentionPolicy(), now_ms=world.now_ms + DAY_MS).next_ms
    old = ["probes/clock", f"probes/{7:032x}", f"probes/doctor-{7:016x}"]
    for key in (*old, "probes/of-others"):
        world.put(key)
    world.now_ms += DAY_MS
    world.put(f"probes/{8:032x}")
    plan = plan_retention(world.inventory(), RetentionPolicy(), now_ms=world.now_ms)
    assert {(verdict.key, verdict.kind, verdict.reason) for verdict in plan.deleted} == {
        (key, "probe", "abandoned") for key in old
    }
    assert plan.next_ms == without


def test_an_idle_database_keeps_its_newest_snapshots() -> None:
    """However old they are, the newest snapshots stay, with the log behind them; and then there is nothing to do."""
    world = KeptWorld()
    days(world, 3)
    world.commit(2)
    world.now_ms += 400 * DAY_MS
    plan = prune(world, WEEK)
    assert snapshots_of(world.rows) == [3, 4]
    assert world.restorable(world.rows, Latest()) == 6
    assert world.restorable(world.rows, AtTXID(TXID(3))) == 3
    assert plan.next_ms is None


def test_the_next_instant_is_when_something_goes() -> None:
    """Nothing goes before the instant that the plan names, something does at it, and it comes to an end."""
    world = KeptWorld()
    days(world, 5)
    wakes = 0
    while (next_ms := prune(world, WEEK).next_ms) is not None:
        assert not plan_retention(world.inventory(), WEEK, now_ms=next_ms - 1).deleted
        world.now_ms = next_ms
        wakes += 1
    assert 1 <= wakes <= 10
    assert snapshots_of(world.rows) == [5, 6]


def test_nothing_stored() -> None:
    """Without a history there is nothing to plan, and that is said."""
    world = KeptWorld()
    with pytest.raises(NoBackup):
        plan_retention(world.inventory({}), WEEK, now_ms=T0_MS)


# --- clocks --------------------------------------------------------------------------------------------


def test_a_clock_that_stood_at_1970_makes_nothing_old() -> None:
    """TRAP: clock jumps. What was stored yesterday by a machine without a clock is a day old, by the store's.

    Seen to fail with ages taken from the keys alone: all but the newest snapshots went.
    """
    world = KeptWorld(now_ms=T0_MS, skew_ms=-T0_MS)
    days(world, 4)
    plan = plan_retention(world.inventory(), WEEK, now_ms=world.now_ms)
    assert plan.deleted == ()


def test_a_clock_that_jumps_back_in_the_middle() -> None:
    """TRAP: order by TXID, not by time: behind commits of next year, later snapshots with earlier times are no base.

    Seen to fail with the age of a snapshot taken from itself alone: moments that a restore finds before it were lost.
    """
    world = KeptWorld()
    days(world, 2)
    world.last_ms = world.now_ms + 8 * DAY_MS  # a clock that was ahead, for a while
    world.commit(1)
    world.take_over()
    world.last_ms = 0  # the next instance's is right, and does not know
    days(world, 12)
    prune(world, WEEK)
    for back_ms in range(0, 7 * DAY_MS, DAY_MS // 2):
        target = AtTime(world.now_ms - back_ms)
        assert world.restorable(world.rows, target) == world.restorable(world.ideal, target)


# --- epochs --------------------------------------------------------------------------------------------


def test_an_epoch_without_anything_left_goes_and_the_line_still_reads() -> None:
    """Old epochs go whole, ends before starts; a reader sees a line that begins later, at any moment in between."""
    world = KeptWorld()
    for _ in range(20):
        days(world, 2)
        world.end()
    days(world, 2)
    plan = plan_retention(world.inventory(), WEEK, now_ms=world.now_ms)
    assert [verdict.kind for verdict in plan.stages[-1]] == ["record"] * len(plan.stages[-1])
    for verdict in plan.deleted:
        del world.rows[verdict.key]
        assert line_of_history(world.history(world.rows)).head == world.epoch
    assert len([name for name in world.rows if name.endswith("/start.json")]) <= 6
    again = plan_retention(world.inventory(), WEEK, now_ms=world.now_ms)
    assert again.deleted == ()


def test_epochs_between_a_kept_snapshot_and_the_head_keep_their_starts() -> None:
    """A snapshot that a rule keeps in the first epoch is still found: the line is read down to it."""
    world = KeptWorld()
    for _ in range(10):
        days(world, 4)
        world.end()
    policy = RetentionPolicy(keep={"yearly": Keep(count=3)})
    prune(world, policy)
    assert world.restorable(world.rows, AtTXID(TXID(1))) == 1  # the oldest stands for a year that has no other yet
    assert [name for name in world.rows if name.endswith("/start.json")] == [
        f"epochs/{epoch:08x}/start.json" for epoch in range(1, world.epoch + 1)
    ]


def test_an_orphaned_tail_stays_for_the_window() -> None:
    """What a former owner wrote in vain can be restored by its epoch while it is within the window, then it goes."""
    world = KeptWorld()
    days(world, 1)
    dead = world.epoch
    world.take_over(tail=2)
    tail = world.txid + 2
    days(world, 6)
    prune(world, WEEK)
    assert world.restorable(world.rows, AtTXID(TXID(tail)), epoch=dead) == tail
    days(world, 4)
    plan = prune(world, WEEK)
    assert {verdict.reason for verdict in plan.deleted if verdict.kind == "segment"} >= {"orphaned_tail"}
    assert not [key for name in world.rows if (key := parse_segment(name)) is not None and key.epoch == dead]


def test_what_an_orphaned_tail_rests_on_stays_with_it() -> None:
    """A dead epoch that continued from another dead one is restorable, though what it continued from is older."""
    world = KeptWorld()
    days(world, 2)
    world.take_over()
    days(world, 12)
    world.take_over()
    days(world, 10, snapshots=False)
    dead, txid = world.epoch, world.txid
    world.go_back(Epoch(1), 3)
    days(world, 6)
    prune(world, WEEK)
    assert world.restorable(world.rows, AtTXID(TXID(txid)), epoch=dead) == txid
    days(world, 10)
    prune(world, WEEK)
    prune(world, WEEK)
    assert line_of_history(world.history(world.rows)).orphans == ()


# --- marks, rules, chunks --------------------------------------------------------------------------------


def test_a_mark_keeps_a_state_and_the_way_to_it_until_its_end() -> None:
    """A marked transaction stays restorable long behind the window; when the mark has ended, all of it goes."""
    world = KeptWorld()
    days(world, 3, snapshots=False)
    world.mark(3, world.now_ms + 90 * DAY_MS)
    for _ in range(9):
        days(world, 10)
        plan = prune(world, WEEK)
        assert world.restorable(world.rows, AtTXID(TXID(3))) == 3
        assert plan.next_ms is not None
    days(world, 2)
    plan = prune(world, WEEK)
    assert ("mark", "expired") in {(verdict.kind, verdict.reason) for verdict in plan.deleted}
    assert world.restorable(world.rows, AtTXID(TXID(3))) is None
    assert not [name for name in world.rows if parse_mark(name)]


def test_chunks_that_a_snapshot_may_be_about_to_list_stay() -> None:
    """TRAP: chunks of a snapshot under way. They stay while young, in use, or possibly listed by what cannot be read.

    Seen to fail, one after the other, with each of the three guards taken out.
    """
    world = KeptWorld()
    world.litter()
    chunk = next(
        name for name in world.rows if "/chunks/" in name and not name.endswith("x.zst") and int(name[-68:-4], 16) == 2
    )
    policy = RetentionPolicy(grace_seconds=0.0)

    def fate(**options: object) -> str:
        inventory = world.inventory()
        if options.pop("unreadable", False):
            inventory.contents.clear()  # type: ignore[attr-defined]
        plan = plan_retention(inventory, policy, now_ms=world.now_ms, **options)  # type: ignore[arg-type]
        return next(verdict.reason for verdict in (*plan.deleted, *plan.kept) if verdict.key == chunk)

    assert fate() == "young"
    world.now_ms += HOUR_MS
    assert fate(in_use={chunk}) == "snapshot_under_way"
    assert fate(unreadable=True) == "snapshot_unreadable"
    assert fate() == "unlisted"


def test_no_rule_is_taken_for_the_base_of_the_window_if_it_cannot_be_restored() -> None:
    """A snapshot that lacks a chunk is neither a base nor one of the newest that always stay."""
    world = KeptWorld()
    days(world, 3)
    for _ in range(3):
        world.commit(1)
        world.snapshot(fresh=1, broken=True)
    world.now_ms += 60 * DAY_MS
    prune(world, WEEK)
    assert world.restorable(world.rows, Latest()) == world.txid


@pytest.mark.parametrize(
    ("rule", "keep", "kept"),
    [
        ("last", Keep(count=3), [58, 59, 60]),
        ("last", Keep(within_seconds=2 * 86_400), [59, 60]),
        ("daily", Keep(count=2), [59, 60]),
        ("daily", Keep(within_seconds=3 * 86_400), [58, 59, 60]),
        ("weekly", Keep(count=3), [46, 53, 60]),
        ("monthly", Keep(count=2), [29, 60]),
        ("monthly", Keep(count=9), [0, 29, 60]),
        ("yearly", Keep(count=1), [60]),
        ("hourly", Keep(count=500), list(range(61))),
    ],
)
def test_rules_are_those_of_restic(rule: str, keep: Keep, kept: list[int]) -> None:
    """The newest of each period that has any, counted or within an interval of the newest; else the oldest too.

    Sixty-one days with a snapshot at noon, from Wednesday 1 April 2026 to Sunday 31 May.
    """
    first_ms = int(datetime(2026, 4, 1, 12, tzinfo=UTC).timestamp() * 1000)
    times = [first_ms + day * DAY_MS for day in range(61)]
    policy = RetentionPolicy(keep={rule: keep})
    found = snapshots_kept(times, policy, now_ms=times[-1] + 99 * DAY_MS)
    assert sorted(found) == kept
    assert set(found.values()) == {f"keep_{rule}"}


# --- the property ----------------------------------------------------------------------------------------


def promised(world: KeptWorld, policy: RetentionPolicy) -> Iterator[tuple[Target, Epoch | None]]:
    """Say what is promised now; found without the plan, from what was ever stored."""
    line = line_of_history(world.history(world.ideal))
    window_ms = world.now_ms - round(policy.pitr_window_seconds * 1000)
    yield Latest(), None
    for ms in {world.now_ms, window_ms, *world.times.values()}:
        if window_ms <= ms <= world.now_ms:
            yield AtTime(ms), None
    whole = [found for found in line.manifests if all(chunk in world.ideal for chunk in world.contents[found.name])]
    for found in whole[-policy.min_snapshots :]:
        yield AtTXID(found.key.txid), None
    yield from ((AtTXID(whole[number].key.txid), None) for number in _by_the_book(whole, policy, world.now_ms))
    for name in world.ideal:
        mark = parse_mark(name)
        if mark is not None and mark.until_ms > world.now_ms:
            yield AtTXID(mark.txid), mark.epoch
    for epoch in {tail.epoch for tail in line.orphans}:
        yield from ((AtTXID(TXID(txid)), epoch) for txid in _tail_within(world, epoch, window_ms))


def _by_the_book(whole: list[ManifestObject], policy: RetentionPolicy, now_ms: int) -> set[int]:
    """Return the snapshots that the rules keep, by grouping them by calendar."""
    forms = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m", "yearly": "%Y"}
    times = [found.key.ms for found in whole]
    kept: set[int] = set()
    for rule, keep in policy.keep.items():
        calendar: Callable[[int], str] = lambda number, rule=rule: (  # type: ignore[misc] # noqa: E731
            str(number) if rule == "last" else datetime.fromtimestamp(times[number] / 1000, UTC).strftime(forms[rule])
        )
        newest_of = {calendar(number): number for number in range(len(times))}
        newest = sorted(newest_of.values(), reverse=True)
        if keep.count:
            kept |= set(newest[: keep.count]) | ({0} if times and len(newest) < keep.count else set())
        elif keep.within_seconds and times:
            since_ms = min(now_ms, max(times)) - keep.within_seconds * 1000
            kept |= {number for number in newest if times[number] > since_ms}
    return kept


def _tail_within(world: KeptWorld, epoch: Epoch, window_ms: int) -> Iterator[int]:
    """Return the transactions of an epoch that no later one saw, while they are within the window."""
    seen = min(found.parent_txid for found in world.starts.values() if found.parent_epoch == epoch)
    for (owner, txid), ms in world.times.items():
        if owner == epoch and txid > seen and ms > window_ms:
            yield txid


def check(world: KeptWorld, policy: RetentionPolicy) -> None:
    """What is promised now and could be restored without retention can be restored."""
    for target, epoch in promised(world, policy):
        expected = world.restorable(world.ideal, target, epoch)
        if expected is not None:
            assert world.restorable(world.rows, target, epoch) == expected, (str(target), epoch)


keeps = st.one_of(
    st.builds(Keep, count=st.integers(1, 4)),
    st.builds(Keep, within_seconds=st.sampled_from([3600.0, 86_400.0, 5 * 86_400.0])),
)
policies = st.builds(
    RetentionPolicy,
    pitr_window_seconds=st.sampled_from([0.0, 3600.0, 86_400.0, 3 * 86_400.0]),
    grace_seconds=st.sampled_from([0.0, 3600.0, 86_400.0]),
    min_snapshots=st.integers(1, 3),
    keep=st.dictionaries(st.sampled_from(RULES), keeps, max_size=2),
)
happenings = st.sampled_from(
    [
        *["hour", "day", "days", "commit", "commit", "snapshot", "snapshot"],
        *["broken", "take_over", "end", "roll_up", "mark", "litter", "err", "prune", "prune", "prune"],
    ]
)


def happen(world: KeptWorld, what: str, draws: st.DataObject, policy: RetentionPolicy) -> None:
    """Let one thing happen."""
    if what in {"hour", "day", "days"}:
        world.now_ms += {"hour": HOUR_MS, "day": DAY_MS, "days": 4 * DAY_MS}[what] + draws.draw(st.integers(0, HOUR_MS))
    elif what == "commit":
        world.commit(draws.draw(st.integers(1, 3)))
    elif what in {"snapshot", "broken"}:
        world.snapshot(fresh=draws.draw(st.integers(1, 2)), broken=what == "broken")
    elif what == "take_over":
        world.skew_ms = draws.draw(st.sampled_from([0, HOUR_MS, -HOUR_MS]))
        world.take_over(tail=draws.draw(st.integers(0, 2)))
    elif what == "roll_up":
        world.roll_up(draws.draw(st.integers(1, 4)))
    elif what == "mark":
        txid = world.restorable(world.rows, AtTime(world.now_ms - draws.draw(st.integers(0, DAY_MS))))
        if txid is not None:
            world.mark(txid, world.now_ms + draws.draw(st.sampled_from([HOUR_MS, 5 * DAY_MS])))
    elif what == "prune":
        prune_and_crash(world, draws, policy)
    else:
        getattr(world, what)()


def prune_and_crash(world: KeptWorld, draws: st.DataObject, policy: RetentionPolicy) -> None:
    """Delete in any order that the plan allows, up to a crash, and look after every single deletion."""
    plan = plan_retention(world.inventory(), policy, now_ms=world.now_ms)
    left = draws.draw(st.one_of(st.none(), st.integers(0, len(plan.deleted))))
    for stage in plan.stages:
        for verdict in draws.draw(st.permutations(stage)):
            if left == 0:
                return
            left = None if left is None else left - 1
            del world.rows[verdict.key]
            check(world, policy)


@given(policies, st.lists(happenings, min_size=5, max_size=40), st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_promised_can_be_restored_at_every_moment(
    policy: RetentionPolicy, what_happens: list[str], draws: st.DataObject
) -> None:
    """For any history and policy, every instant promised is restorable before, during and after every deletion.

    In any order that the plan allows, with a crash between any two and a fresh plan at a later time.
    """
    world = KeptWorld()
    for what in what_happens:
        happen(world, what, draws, policy)
    happen(world, "prune", draws, policy)
    check(world, policy)
    ours = {name for name in world.ideal if name.startswith(("claims/", "other")) or name.endswith((".txt", "x.zst"))}
    assert ours <= world.rows.keys()


@given(policies, st.lists(happenings, min_size=5, max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_a_replica_that_nothing_happens_to_comes_to_rest(
    policy: RetentionPolicy, what_happens: list[str], draws: st.DataObject
) -> None:
    """From the last event on, the plan names instants at which something goes, and then no more of them."""
    world = KeptWorld()
    for what in what_happens:
        happen(world, what, draws, policy)
    for _ in range(200):
        plan = prune(world, policy)
        if plan.next_ms is None:
            break
        assert plan.next_ms > world.now_ms
        world.now_ms = plan.next_ms
    else:
        pytest.fail("it never comes to rest")
    world.now_ms += 1000 * DAY_MS
    late = plan_retention(world.inventory(), policy, now_ms=world.now_ms)
    assert {verdict.kind for verdict in late.deleted} <= {"record"}
