"""Which transaction a target means, and when it is an error instead."""

from __future__ import annotations

import pytest

from replicad.errors import HistoryGap, NoBackup, TargetOutsideWindow
from replicad.plan.line import line_of_history
from replicad.plan.target import AtTime, AtTXID, CommitTimes, IndexNeeded, Latest, Target, format_ms, resolve
from replicad.position import TXID
from tests.support.line_of_keys import at, end, history, segment, snapshot, start

GAP = [snapshot(1, 0), segment(2, 5, 5), segment(8, 8, 8), snapshot(9, 9), segment(10, 10, 12)]
"""6 and 7 are missing, so 8 cannot be restored either; the snapshot at 9 takes up the thread."""


def reached(objects: list[tuple[str, int]], target: Target, times: dict[str, CommitTimes] | None = None) -> TXID:
    """Return the transaction the target means; no index may be needed."""
    txid = resolve(line_of_history(history(objects)), target, times=times)
    assert isinstance(txid, int)
    return txid


def minutes(*pairs: tuple[int, float]) -> CommitTimes:
    """Return commit times given as (TXID, minutes)."""
    return tuple((TXID(txid), at(minute)) for txid, minute in pairs)


def test_latest_is_the_newest_transaction() -> None:
    """The latest state is the one after the last transaction of the last segment or snapshot."""
    assert reached([snapshot(1, 0), segment(2, 5, 5)], Latest()) == 5
    assert reached([segment(1, 5, 5), snapshot(6, 6)], Latest()) == 6


def test_later_than_the_last_commit_is_the_last_state() -> None:
    """TRAP: T later than the last commit on an idle database gives the last state, not an error.

    Seen to fail with `above` one transaction too far: the time then fell into a gap behind the last commit.
    """
    objects = [snapshot(1, 0), segment(2, 5, 5)]
    assert reached(objects, AtTime(at(5.001))) == 5
    assert reached(objects, AtTime(at(10**9))) == 5
    assert reached([snapshot(1, 0)], AtTime(at(1))) == 1


def test_exactly_at_a_commit_is_that_commit() -> None:
    """TRAP: a time equal to a commit time includes that commit.

    Seen to fail with `ms >= target.ms` in place of `ms > target.ms`.
    """
    objects = [snapshot(1, 0), segment(2, 2, 3), segment(2, 5, 5), segment(6, 6, 6)]
    assert reached(objects, AtTime(at(0))) == 1
    assert reached(objects, AtTime(at(5))) == 5
    assert reached(objects, AtTime(at(6))) == 6


def test_a_time_within_a_segment_is_settled_by_its_index() -> None:
    """Keys tell the time of a segment's last commit only: the segment is asked for, and then decides."""
    found = [snapshot(1, 0), segment(2, 5, 5), segment(6, 6, 6)]
    line = line_of_history(history(found))
    answer = resolve(line, AtTime(at(3)))
    assert answer == IndexNeeded(segment=line.segments[0])
    times = {line.segments[0].name: minutes((2, 1), (3, 3), (4, 3), (5, 5))}
    assert reached(found, AtTime(at(3)), times) == 4, "two commits in one millisecond: the newer"
    assert reached(found, AtTime(at(2.9)), times) == 2
    assert reached(found, AtTime(at(0.5)), times) == 1


def test_before_the_window_is_an_error_that_names_its_ends() -> None:
    """TRAP: T before the window is TargetOutsideWindow, and names what can be reached.

    Seen to fail without the comparison with the first span: the first snapshot came back, a state of later.
    """
    line = line_of_history(history([segment(1, 4, 1), snapshot(5, 5), segment(6, 7, 7)]))
    for target in (AtTime(at(4.999)), AtTXID(TXID(3))):
        with pytest.raises(TargetOutsideWindow) as caught:
            resolve(line, target)
        assert "TXID 5 (2025-11-21T02:05:00.000Z) to TXID 7 (2025-11-21T02:07:00.000Z)" in str(caught.value)


def test_a_transaction_that_is_not_there_yet_is_outside_the_window() -> None:
    """A TXID behind the newest is an error that names the newest."""
    with pytest.raises(TargetOutsideWindow, match=r"the newest transaction is TXID 7 \(2025-11-21T02:07"):
        resolve(line_of_history(history([snapshot(5, 5), segment(6, 7, 7)])), AtTXID(TXID(8)))


@pytest.mark.parametrize(
    "target", [*(AtTime(at(when)) for when in (5.001, 6, 8.999)), *(AtTXID(TXID(txid)) for txid in (6, 7, 8))], ids=str
)
def test_in_a_gap_is_an_error_that_names_both_sides(target: Target) -> None:
    """TRAP: T in a gap must be an error, not an older state.

    Seen to fail with `return below` in place of the gap in `_resolve_time` (5 came back for 6), and with runs
    of segments in `reachable` joined over the gap.
    """
    with pytest.raises(HistoryGap) as caught:
        resolve(line_of_history(history(GAP)), target)
    assert "transactions 6 to 8 cannot be put together" in str(caught.value)
    assert "TXID 5 (2025-11-21T02:05:00.000Z) and TXID 9 (2025-11-21T02:09:00.000Z)" in str(caught.value)
    assert caught.value.exit_code == 14


def test_the_instants_a_gap_names_can_be_asked_for() -> None:
    """What the error offers works: the exact time of the last commit before a gap, and of the snapshot behind it."""
    assert reached(GAP, AtTime(at(5))) == 5
    assert reached(GAP, AtTime(at(9))) == 9
    assert reached(GAP, AtTXID(TXID(5))) == 5
    assert reached(GAP, Latest()) == 10


def test_a_snapshot_as_the_very_next_transaction_leaves_no_gap() -> None:
    """When nothing is missing before a snapshot, times before it mean the last transaction before it."""
    objects = [snapshot(1, 0), segment(2, 5, 5), snapshot(6, 9), segment(7, 7, 10)]
    assert reached(objects, AtTime(at(8.999))) == 5
    assert reached(objects, AtTime(at(9))) == 6


def test_a_lost_tail_is_a_gap_not_an_older_state() -> None:
    """When the end tells of more than the segments hold, the latest state is an error, never an older one."""
    line = line_of_history(history([snapshot(1, 0), segment(2, 5, 5)], ends=[end(1, 7)]))
    for target in (Latest(), AtTime(at(6)), AtTXID(TXID(7))):
        with pytest.raises(HistoryGap, match=r"transactions 6 to 7 .* are TXID 5 \(2025-11-21T02:05:00.000Z\)\."):
            resolve(line, target)


def test_segments_without_a_snapshot_are_a_gap() -> None:
    """Transactions that no snapshot leads to cannot be restored, and nothing is nearest."""
    line = line_of_history(history([segment(3, 5, 5)]))
    for target in (Latest(), AtTime(at(6)), AtTXID(TXID(4))):
        with pytest.raises(HistoryGap, match=r"no usable snapshot is left\. .* are none\."):
            resolve(line, target)


def test_an_epoch_that_stored_nothing_is_no_backup() -> None:
    """An instance that started its epoch and died before anything was durable leaves no history."""
    with pytest.raises(NoBackup):
        resolve(line_of_history(history([], starts=[start(1)])), Latest())


def test_an_object_that_cannot_be_used_makes_a_gap() -> None:
    """What was found damaged is planned around or is a gap; its commit time still counts."""
    line = line_of_history(history([snapshot(1, 0), segment(2, 5, 5), segment(6, 6, 6)]))
    without = {line.segments[0].name}
    for target in (Latest(), AtTime(at(3)), AtTime(at(5)), AtTXID(TXID(2))):
        with pytest.raises(HistoryGap, match="transactions 2 to 6"):
            resolve(line, target, without=without)
    assert resolve(line, AtTime(at(0)), without=without) == 1


def test_a_cut_segment_does_not_lend_its_key_s_time() -> None:
    """Where a child continues from the middle of a segment, only the index tells when that was."""
    objects = [snapshot(1, 0), segment(2, 9, 9), segment(6, 7, 8, epoch=2)]
    line = line_of_history(history(objects, starts=[start(1), start(2, 1, 5)]))
    cut = line.segments[0]
    assert resolve(line, AtTime(at(4))) == IndexNeeded(segment=cut)
    times = {cut.name: minutes((2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9))}
    assert resolve(line, AtTime(at(4)), times=times) == 4
    assert resolve(line, AtTime(at(6)), times=times) == IndexNeeded(segment=line.segments[1])
    times |= {line.segments[1].name: minutes((6, 7), (7, 8))}
    assert resolve(line, AtTime(at(6)), times=times) == 5
    assert resolve(line, AtTime(at(8.5)), times=times) == 7, "TXIDs 8 and 9 of the parent are no part of the line"


def test_times_beyond_the_calendar_are_still_printed() -> None:
    """A message never fails over a number."""
    assert format_ms(0) == "1970-01-01T00:00:00.000Z"
    assert format_ms(2**53) == "9007199254740992 ms"
