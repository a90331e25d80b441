from __future__ import annotations

import os
import tempfile
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import NoSpace
from replicad.position import NO_WAL, TXID, Epoch
from replicad.restore.older import Shelf, Version, Wanted
from replicad.segment import SegmentHeader, SegmentIndex, Transaction

PAGE_SIZE = 512
PAGES = 6

Step = tuple[int, list[int]]
"""(size of the database in pages, pages written): a transaction."""


def _content(number: int) -> bytes:
    return number.to_bytes(4, "big") * (PAGE_SIZE // 4)


class _Model:
    """A history replayed from its beginning: what every page held behind every transaction."""

    def __init__(self, segments: list[tuple[list[Step], list[int]]]) -> None:
        self.base = {pgno: _content(pgno) for pgno in range(1, PAGES + 1)}
        self.indexes: list[SegmentIndex] = []
        self.images: list[list[bytes]] = []  # of each segment's frames
        self.expected: list[bytes] = []  # of each segment's references
        state, txid, number = dict(self.base), 0, 100
        for steps, references in segments:
            header = SegmentHeader(
                database_id="x",
                epoch=Epoch(1),
                page_size=PAGE_SIZE,
                first_txid=TXID(txid + 1),
                checksum_before=0,
                pages_before=len(state),
            )
            known = [pgno for pgno in dict.fromkeys(references) if pgno <= len(state)]
            self.expected.append(b"".join(state[pgno] for pgno in known))
            transactions, pgnos, images = [], array("I"), []
            for pages, written in steps:
                txid, number = txid + 1, number + len(written)
                fresh = [_content(number + at) for at in range(len(written))]
                grown = {pgno: state.get(pgno, bytes(PAGE_SIZE)) for pgno in range(1, PAGES + 1)}
                grown.update(zip(written, fresh, strict=True))
                state = {pgno: grown[pgno] for pgno in range(1, pages + 1)}
                transactions.append(
                    Transaction(txid=TXID(txid), commit_ms=txid, pages=pages, checksum=0, frames=len(written))
                )
                pgnos.extend(written)
                images += fresh
            self.indexes.append(
                SegmentIndex(
                    header=header,
                    transactions=tuple(transactions),
                    pgnos=pgnos,
                    blocks=(),
                    wal_end=NO_WAL,
                    references=array("I", known),
                )
            )
            self.images.append(images)


_steps = st.tuples(st.integers(1, PAGES), st.lists(st.integers(1, PAGES), max_size=4))
_segments = st.lists(
    st.tuples(st.lists(_steps, min_size=1, max_size=3), st.lists(st.integers(1, PAGES), max_size=PAGES)),
    min_size=1,
    max_size=6,
)


@given(segments=_segments, memory_pages=st.integers(0, 4))
def test_every_reference_is_what_a_replay_gives(
    segments: list[tuple[list[Step], list[int]]], memory_pages: int
) -> None:
    """What a segment refers to is found as a replay would have it, wherever it was written, cut off or skipped.

    Seen to fail without `Wanted.cut`, and with the frames of a transaction taken from its first.
    """
    model = _Model(segments)
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder), page_size=PAGE_SIZE, memory_bytes=memory_pages * PAGE_SIZE)
        wanted = Wanted(shelf)
        kept: list[tuple[int, array[int], list[tuple[int, Version]]]] = []
        for number in reversed(range(len(model.indexes))):
            index = model.indexes[number]
            answers = wanted.answer(index, TXID(index.header.first_txid - 1), index.last_txid)
            kept.append((number, wanted.ask(index), answers))
        wanted.cut(PAGES)
        for pgno, version in wanted.pages.items():
            shelf.put(version, model.base[pgno])
        for number, versions, answers in reversed(kept):
            assert shelf.take(versions) == model.expected[number]
            for frame, version in answers:
                shelf.put(version, model.images[number][frame])
        assert not shelf._readers
        assert not shelf._memory
        assert not shelf._slots
        shelf.close()
        assert list(Path(folder).iterdir()) == []


def test_room_in_the_file_is_used_again(tmp_path: Path) -> None:
    """The file holds as many pages as wait at once, not as many as ever did; a page put twice counts once."""
    shelf = Shelf(tmp_path, page_size=PAGE_SIZE, memory_bytes=0)
    for number in range(100):
        shelf.reserve(Version(number))
        shelf.put(Version(number), _content(number))
        shelf.put(Version(number), _content(number))
        if number >= 3:
            assert shelf.take([number - 3]) == _content(number - 3)
    assert max(shelf._slots.values()) <= 4
    shelf.close()


def test_a_page_that_two_refer_to_stays_until_both_had_it(tmp_path: Path) -> None:
    """A version is let go by the last one that takes it, and one that nobody put there is left out."""
    shelf = Shelf(tmp_path, page_size=PAGE_SIZE, memory_bytes=PAGE_SIZE)
    for version in (Version(1), Version(1), Version(2)):
        shelf.reserve(version)
    shelf.put(Version(1), _content(1))
    assert shelf.take([1, 2]) == _content(1)
    assert shelf.take([1]) == _content(1)
    shelf.close()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRAP: an older page that finds no room on the disk is a NoSpace."""

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    shelf = Shelf(tmp_path, page_size=PAGE_SIZE, memory_bytes=0)
    shelf.reserve(Version(1))
    with pytest.raises(NoSpace):
        shelf.put(Version(1), _content(1))
    shelf.close()
