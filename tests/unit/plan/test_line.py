"""The line of history: which epochs, how far, and what is left beside it."""

from __future__ import annotations

import pytest

from replicad.errors import Damaged, NoBackup, UsageError
from replicad.layout import claim_key
from replicad.plan.line import Line, OrphanedTail, line_of_history
from replicad.position import TXID, Epoch
from tests.support.line_of_keys import DATABASE_ID, end, history, segment, snapshot, start


def stretches(line: Line) -> list[tuple[int, int | None]]:
    """Return (epoch, until) of the line's epochs, oldest first."""
    return [(part.epoch, part.until) for part in line.epochs]


def covered(line: Line) -> list[tuple[int, int, int]]:
    """Return (epoch, first, until) of the line's segments."""
    return [(part.stored.key.epoch, part.first, part.until) for part in line.segments]


def test_parents_are_followed_from_the_highest_start() -> None:
    """The line runs from the highest epoch with a start down to the one without a parent."""
    line = line_of_history(
        history(
            [snapshot(1, 0), segment(2, 9, 1), segment(10, 12, 3, epoch=3)],
            starts=[start(1), start(2, 1, 9), start(3, 2, 9)],
        )
    )
    assert stretches(line) == [(1, 9), (2, 9), (3, None)]
    assert (line.head, line.last_txid, line.database_id) == (3, 12, DATABASE_ID)
    assert line.orphans == ()


def test_a_claim_without_a_start_wrote_nothing() -> None:
    """A newcomer that died right after its claim does not hide the history before it."""
    line = line_of_history(history([snapshot(1, 0), segment(2, 3, 1), (claim_key(Epoch(7)), 100)]))
    assert stretches(line) == [(1, None)]


def test_what_a_parent_wrote_past_its_child_is_an_orphaned_tail() -> None:
    """Segments and snapshots behind the child's parent TXID are counted, and are no part of the line."""
    objects = [
        snapshot(1, 0),
        segment(2, 5, 1),
        segment(6, 9, 2, size_bytes=70),  # the child continues from 7: the line runs through two thirds of it
        segment(10, 11, 3, size_bytes=7),
        snapshot(11, 3, size_bytes=3),
        segment(8, 8, 4, epoch=2),
    ]
    line = line_of_history(history(objects, starts=[start(1), start(2, 1, 7)]))
    assert covered(line) == [(1, 2, 5), (1, 6, 7), (2, 8, 8)]
    assert [found.key.txid for found in line.manifests] == [1]
    assert line.orphans == (
        OrphanedTail(epoch=Epoch(1), first=TXID(8), last=TXID(11), segments=2, manifests=1, size_bytes=80),
    )
    assert line.segments[1].until_ms is None, "the key tells the time of TXID 9, not of 7"


def test_an_epoch_beside_the_line_is_orphaned_whole() -> None:
    """An epoch that no later one continues from is counted from its first transaction on."""
    objects = [snapshot(1, 0), segment(2, 5, 1), segment(6, 8, 2, epoch=2), segment(6, 6, 3, epoch=3)]
    line = line_of_history(history(objects, starts=[start(1), start(2, 1, 5), start(3, 1, 5)]))
    assert stretches(line) == [(1, 5), (3, None)]
    assert line.orphans == (
        OrphanedTail(epoch=Epoch(2), first=TXID(6), last=TXID(8), segments=1, manifests=0, size_bytes=1000),
    )


def test_an_orphaned_tail_is_restorable_by_naming_its_epoch() -> None:
    """`--epoch N` follows the line of that epoch to its own end."""
    objects = [snapshot(1, 0), segment(2, 9, 1), segment(6, 6, 3, epoch=2)]
    line = line_of_history(history(objects, starts=[start(1), start(2, 1, 5)]), epoch=Epoch(1))
    assert stretches(line) == [(1, None)]
    assert line.last_txid == 9


def test_an_epoch_that_is_not_there_is_a_usage_error() -> None:
    """Naming an epoch that never started says which ones did."""
    with pytest.raises(UsageError, match="one of 1, 2, found 4"):
        line_of_history(history([], starts=[start(1), start(2, 1, 0)]), epoch=Epoch(4))


def test_a_clean_end_tells_of_transactions_that_no_segment_reaches() -> None:
    """The end of the head counts as a transaction that was committed: missing segments are not overlooked."""
    assert line_of_history(history([snapshot(1, 0), segment(2, 3, 1)], ends=[end(1, 8)])).last_txid == 8


def test_the_end_of_a_parent_is_not_the_end_of_the_line() -> None:
    """An end that a child's start superseded says nothing about the line."""
    found = history([snapshot(1, 0), segment(2, 3, 1)], starts=[start(1), start(2, 1, 3)], ends=[end(1, 8)])
    assert line_of_history(found).last_txid == 3


def test_a_start_tells_of_transactions_that_no_segment_reaches() -> None:
    """A child that wrote nothing still proves that its parent got as far as the child says."""
    assert line_of_history(history([snapshot(1, 0)], starts=[start(1), start(2, 1, 8)])).last_txid == 8


def test_a_pruned_parent_ends_the_line() -> None:
    """When retention has emptied a parent's folder, the line begins with the child."""
    line = line_of_history(history([snapshot(9, 5, epoch=4)], starts=[start(4, 3, 8)]))
    assert stretches(line) == [(4, None)]


def test_an_empty_listing_is_no_backup() -> None:
    """Nothing stored at all is its own error, never mistaken for trouble."""
    with pytest.raises(NoBackup):
        line_of_history(history([], starts=[]))


def test_claims_alone_are_no_backup() -> None:
    """An instance that died between its claim and its start has stored nothing."""
    with pytest.raises(NoBackup):
        line_of_history(history([(claim_key(Epoch(1)), 100)], starts=[]))


def test_segments_without_any_start_are_not_called_no_backup() -> None:
    """A history whose starts were deleted is damaged: an application must not start empty over it."""
    with pytest.raises(Damaged, match=r"epochs/00000001/start\.json"):
        line_of_history(history([segment(1, 4, 1)], starts=[]))


def test_a_parent_with_objects_but_no_start_is_damage() -> None:
    """The line cannot be followed through an epoch whose start is missing."""
    with pytest.raises(Damaged, match=r"epochs/00000002/start\.json"):
        line_of_history(history([segment(5, 6, 1, epoch=2)], starts=[start(3, 2, 6)]))


@pytest.mark.parametrize("parent", [2, 3])
def test_a_parent_that_is_not_earlier_is_damage(parent: int) -> None:
    """A start that names itself or a later epoch as its parent would be followed for ever."""
    with pytest.raises(Damaged, match="parent_epoch"):
        line_of_history(history([], starts=[start(1), start(2, parent, 0), start(3, 2, 0)]))


def test_a_start_of_another_epoch_is_damage() -> None:
    """A start stored under another epoch's key is not believed."""
    found = history([], starts=[start(1), start(2, 1, 0)])
    swapped = {Epoch(1): start(1), Epoch(2): start(1)}
    with pytest.raises(Damaged, match="epoch: expected 2, found 1"):
        line_of_history(type(found)(label=found.label, listing=found.listing, starts=swapped))


def test_epochs_of_two_databases_are_no_line() -> None:
    """A child that continues another database's history is refused."""
    with pytest.raises(Damaged, match="database_id"):
        line_of_history(history([], starts=[start(1), start(2, 1, 0, database_id="another")]))


def test_a_child_cannot_continue_from_before_its_parent() -> None:
    """A parent TXID that lies before the parent's own beginning names a state that never was."""
    with pytest.raises(Damaged, match="parent_txid"):
        line_of_history(history([], starts=[start(1), start(2, 1, 9), start(3, 2, 4)]))
