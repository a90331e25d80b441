"""Newest first, each page once: against an oracle that applies everything in order."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.position import NO_WAL, TXID, Epoch
from replicad.restore.settled import Settled
from replicad.segment import Block, SegmentHeader, SegmentIndex, Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_SIZE = 65536  # the lock page is number 16385 then

Version = tuple[int, int]
"""(TXID, number of the frame among all) that wrote a page; (0, page number) for the snapshot."""


def index_of(first: int, transactions: Sequence[tuple[int, list[int]]], *, block_frames: int = 3) -> SegmentIndex:
    """Return the index of a segment with transactions given as (pages after, page numbers)."""
    pgnos = array("I", [pgno for _, numbers in transactions for pgno in numbers])
    firsts = range(0, len(pgnos), block_frames)
    return SegmentIndex(
        header=SegmentHeader(
            database_id="d",
            epoch=Epoch(1),
            page_size=PAGE_SIZE,
            first_txid=TXID(first),
            checksum_before=0,
            pages_before=0,
        ),
        transactions=tuple(
            Transaction(txid=TXID(first + n), commit_ms=n, pages=pages, checksum=0, frames=len(numbers))
            for n, (pages, numbers) in enumerate(transactions)
        ),
        pgnos=pgnos,
        blocks=tuple(
            Block(offset=n, stored_bytes=1, first_frame=n, frames=min(block_frames, len(pgnos) - n), hash=0)
            for n in firsts
        ),
        wal_end=NO_WAL,
    )


def test_the_last_version_counts_and_older_blocks_are_not_needed() -> None:
    """Of several versions only the newest is written, and a block without one is not even named."""
    index = index_of(1, [(9, [1, 2, 3]), (9, [4, 1, 2]), (9, [2, 3, 1])])
    settled = Settled(9, PAGE_SIZE)
    assert list(settled.frames(index, TXID(0), TXID(3))) == [(2, [(1, 8), (3, 7), (2, 6)]), (1, [(4, 3)])]
    assert list(settled.runs(0, 9)) == [(4, 5)]


def test_transactions_on_either_side_of_the_target_are_left_alone() -> None:
    """What is behind the target, or was applied by an older segment's part, settles nothing."""
    index = index_of(5, [(9, [1]), (9, [2]), (9, [3])])
    settled = Settled(9, PAGE_SIZE)
    assert list(settled.frames(index, TXID(5), TXID(6))) == [(0, [(2, 1)])]


def test_pages_cut_off_do_not_come_back() -> None:
    """TRAP: after the database shrank (VACUUM) and grew again, what stood behind the cut is not resurrected.

    Seen to fail with `bound` left at the final size: page 8 of the first transaction was written.
    """
    index = index_of(1, [(9, [7, 8, 9]), (6, [1]), (9, [7])])
    settled = Settled(9, PAGE_SIZE)
    assert list(settled.frames(index, TXID(0), TXID(3))) == [(1, [(7, 4), (1, 3)])]
    assert list(settled.runs(0, 9)) == [(1, 5)]


def test_the_lock_page_is_never_written() -> None:
    """The page at 1 GiB counts as settled from the beginning, whatever a chunk holds there."""
    settled = Settled(16390, PAGE_SIZE)
    assert list(settled.runs(16380, 100)) == [(16380, 4), (16385, 5)]
    assert list(settled.runs(16384, 1)) == []


def test_an_empty_database_has_nothing_to_settle() -> None:
    """A database of no pages gives no runs."""
    assert list(Settled(0, PAGE_SIZE).runs(0, 16)) == []


@pytest.mark.parametrize("frames", [1, 2, 1000])
def test_a_transaction_without_pages_between_others(frames: int) -> None:
    """A commit that wrote no page (it only cut the file) still ends the life of the pages behind its end."""
    index = index_of(1, [(9, [8, 9]), (7, []), (9, [])], block_frames=frames)
    assert list(Settled(9, PAGE_SIZE).frames(index, TXID(0), TXID(3))) == []


@given(st.data())
@settings(max_examples=300)
def test_the_same_database_as_transaction_by_transaction(draws: st.DataObject) -> None:
    """Whatever the history, going backwards writes each page once and gives what going forwards gives."""
    draw = draws.draw
    snapshot_pages = draw(st.integers(1, 12))
    state: dict[int, Version] = {pgno: (0, pgno) for pgno in range(1, snapshot_pages + 1)}
    history: list[tuple[int, list[int]]] = []
    written = 0
    for txid in range(1, draw(st.integers(1, 8)) + 1):
        pages = draw(st.integers(1, 14))
        numbers = draw(st.lists(st.integers(1, 16), max_size=6))
        for pgno in numbers:
            state[pgno] = (txid, written)
            written += 1
        state = {pgno: version for pgno, version in state.items() if pgno <= pages}
        history.append((pages, numbers))
    final_pages = history[-1][0]

    settled = Settled(final_pages, PAGE_SIZE)
    found: dict[int, Version] = {}
    through = len(history)
    while through:
        first = draw(st.integers(1, through))
        after = draw(st.integers(first - 1, through - 1))  # segments may overlap
        last = draw(st.integers(through, len(history)))
        before = sum(len(numbers) for _, numbers in history[: first - 1])
        index = index_of(first, history[first - 1 : last], block_frames=draw(st.integers(1, 5)))
        numbers_seen = []
        for number, frames in settled.frames(index, TXID(after), TXID(through)):
            numbers_seen.append(number)
            block = index.blocks[number]
            for pgno, frame in frames:
                assert block.first_frame <= frame < block.first_frame + block.frames
                assert pgno not in found, "written twice"
                found[pgno] = (_txid_of(history, before + frame), before + frame)
        assert numbers_seen == sorted(numbers_seen, reverse=True)
        through = after
    chunk = draw(st.integers(1, 5))
    for begin in range(0, snapshot_pages, chunk):
        for start, count in settled.runs(begin, min(chunk, snapshot_pages - begin)):
            found |= {pgno: (0, pgno) for pgno in range(start + 1, start + count + 1)}
    assert found == state


def _txid_of(history: list[tuple[int, list[int]]], frame: int) -> int:
    for txid, (_, numbers) in enumerate(history, 1):
        if frame < len(numbers):
            return txid
        frame -= len(numbers)
    raise AssertionError
