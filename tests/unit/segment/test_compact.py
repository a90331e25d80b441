"""Version 2 of the index and the trailer: whatever stands in them, an index that holds together, or Damaged."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import Damaged
from replicad.segment import decode, read_block
from tests.support.segments import OLDER, Compact, compact, fold, pack, page, referring

if TYPE_CHECKING:
    from collections.abc import Callable

Lie = tuple[str, "Callable[[Compact], object]", str]


def _in_header(number: int, value: int | bytes) -> Callable[[Compact], object]:
    return lambda lie: lie.header.__setitem__(number, value)


def _in_counts(**counts: int) -> Callable[[Compact], object]:
    return lambda lie: lie.counts.update(counts)


def _in_trailer(**fields: int | bytes) -> Callable[[Compact], object]:
    return lambda lie: lie.trailer.update(fields)


def _in_first(commit_ms: int = 5, pages: int = 100, frames: int = 3) -> Callable[[Compact], object]:
    return lambda lie: lie.transactions.__setitem__(0, (commit_ms, 7, pages, frames))


def _wide(lie: Compact) -> Compact:
    lie.wide = True
    return lie


def _in_columns(at: int, number: int) -> Callable[[Compact], object]:
    def change(lie: Compact) -> None:
        lie.columns = lie.plain_columns()
        lie.columns[at] = number

    return change


LIES: list[Lie] = [
    # the head
    ("version 0 in front", lambda lie: lie.head.update(version=0), "version: expected 1 to 2, found 0"),
    ("version 1 in front", lambda lie: lie.head.update(version=1), "JSON: expected a"),
    ("header too long", lambda lie: lie.head.update(length=2**32 - 1), "header length: expected at most"),
    ("header too short", lambda lie: lie.head.update(length=10), "header: expected"),
    ("something behind the header", lambda lie: lie.header.append(b"x"), "header: expected 22 bytes, found 23"),
    ("no text", _in_header(1, b"\xff" * 8), "database_id: expected UTF-8"),
    ("identifier too long", lambda lie: (_in_header(0, 257)(lie), _in_header(1, b"x" * 257)(lie)), "at most 256"),
    ("epoch 0", _in_header(2, 0), "epoch: expected 1 to 4294967295, found 0"),
    ("epoch too high", _in_header(2, 2**32), "epoch: expected 1 to"),
    ("page size", _in_header(3, 8), "logarithm of the page size: expected 9 to 16, found 8"),
    ("TXID 0", _in_header(4, 0), "first_txid: expected 1 to"),
    ("TXID too high", _in_header(4, 2**63), "first_txid: expected 1 to"),
    ("too many pages before", _in_header(6, 2**32 - 1), "pages_before: expected 0 to"),
    ("number of 65 bits", _in_header(2, 2**64), "header: expected a whole number of at most 64 bits"),
    # counts
    ("no transaction", _in_counts(transactions=0), "number of transactions: expected 1 to"),
    ("too many transactions", _in_counts(transactions=4097), "number of transactions: expected 1 to"),
    ("more than TXIDs", _in_header(4, 2**63 - 2), "number of transactions: expected 1 to 2, found 3"),
    ("too many frames", _in_counts(frames=4097), "number of frames: expected 0 to 4096, found 4097"),
    ("too many blocks", _in_counts(blocks=6), "number of blocks: expected 0 to 5, found 6"),
    ("claimed transactions", _in_counts(transactions=4096), "index: expected at least 32768 bytes"),
    ("claimed frames", _in_counts(frames=4096), "columns of the index: expected at least 4096 bytes"),
    ("claimed records", lambda lie: (_wide(lie), _in_counts(frames=2**28)(lie)), "at least 1073741824 bytes"),
    ("too many records", lambda lie: (_wide(lie), _in_counts(frames=2**28 + 1)(lie)), "number of frames"),
    # columns
    ("time beyond all", _in_columns(0, 2**53), "transaction 1000: expected a commit time"),
    ("no pages", _in_first(pages=0), "transaction 1000: expected 1 to 4294967294 pages, found 0"),
    ("frame too few", _in_first(frames=2), "frames of all transactions: expected 5, found 4"),
    ("pages below zero", _in_columns(3, fold(-8)), "transaction 1000: expected 1 to"),
    ("page 0", lambda lie: lie.pgnos.__setitem__(4, 0), "page numbers: expected 1 to 4294967294, found 0 to 5"),
    ("page below zero", _in_columns(9, fold(-1)), "page numbers: expected numbers of 32 bits"),
    ("page beyond the last", lambda lie: lie.pgnos.__setitem__(4, 2**32 - 1), "page numbers: expected 1 to"),
    ("lock page", lambda lie: lie.pgnos.__setitem__(4, 2**30 // 512 + 1), "all but the lock page 2097153"),
    ("block without frames", _in_columns(-1, 0), "block 2: expected 1 to 131072 frames"),
    ("block too large", _in_columns(-1, 131073), "block 2: expected 1 to 131072 frames"),
    ("frame too many in blocks", _in_columns(-1, 2), "frames of all blocks: expected 5, found 6"),
    ("blocks end early", _in_columns(-2, 9), "bytes of all blocks"),
    ("number too few", lambda lie: setattr(lie, "columns", lie.plain_columns()[:-1]), "columns of the index: expected"),
    (
        "number too many",
        lambda lie: setattr(lie, "columns", [*lie.plain_columns(), 0]),
        "columns of the index: expected",
    ),
    (
        "records too short",
        lambda lie: (_wide(lie), _in_counts(frames=6)(lie)),
        "columns of the index",
    ),
    ("no zstd", _in_trailer(flags=4), "index: expected a zstd frame"),
    # the place in the WAL
    ("flag without WAL", _in_trailer(flags=1), "is damaged"),
    ("unknown flag", _in_trailer(flags=8), "flags: expected some of 7, found 8"),
    # the trailer
    ("other magic", _in_trailer(magic=b"RPDTAIL\0"), "magic of the trailer"),
    ("other length", _in_trailer(trailer_bytes=152), "version 2 of 44 bytes, found version 2 of 152"),
    ("other hash", _in_trailer(hash=0), "hash of the trailer"),
    ("other seal", _in_trailer(seal=0), "hash of the head and the index"),
    ("no room for a head", _in_trailer(data_offset=15), "offset of the blocks: expected 16 to"),
    ("head runs over", _in_trailer(data_offset=45), "end of the head: expected 45"),
    ("index too long", _in_trailer(index_bytes=2**32 - 1), "offset of the blocks"),
    ("columns too large", _in_trailer(column_bytes=2**32 - 1), "unpacked size of the columns: expected at most"),
    (
        "records too large",
        lambda lie: (_wide(lie), _in_trailer(column_bytes=2**32 - 1)(lie)),
        "of the columns: expected",
    ),
    ("columns of another size", _in_trailer(column_bytes=3), "columns: expected 3 bytes"),
]
REFERRING_LIES: list[Lie] = [
    ("page 0", lambda lie: lie.references.__setitem__(0, 0), "references: expected different pages from 1 to 7"),
    ("page behind the end", lambda lie: lie.references.__setitem__(0, 8), "references: expected different pages"),
    ("page below zero", lambda lie: lie.references.__setitem__(0, -1), "references: expected numbers of 32 bits"),
    ("page twice", lambda lie: lie.references.__setitem__(0, 2), "references: expected different pages"),
    ("too many", _in_counts(references=65), "number of references: expected 0 to 64, found 65"),
    ("too many of large pages", lambda lie: (_in_header(3, 16)(lie), _in_counts(references=5)(lie)), "expected 0 to 4"),
    ("no block", lambda lie: lie.blocks.clear(), "number of blocks: expected 1 to 1, found 0"),
    ("two blocks", lambda lie: lie.blocks.append((pack(page(1)), 1)), "number of blocks: expected 1 to 1, found 2"),
    ("too many frames", _in_counts(frames=513), "number of frames: expected 0 to 512, found 513"),
]
WITHOUT_REFERENCES = [pytest.param(compact, lie, where, id=name) for name, lie, where in LIES]
WITH_REFERENCES = [pytest.param(referring, lie, where, id=f"referring, {name}") for name, lie, where in REFERRING_LIES]


@pytest.mark.parametrize(("made", "lie", "where"), [*WITHOUT_REFERENCES, *WITH_REFERENCES])
def test_lies(made: Callable[[], Compact], lie: Callable[[Compact], object], where: str) -> None:
    """A segment that contradicts itself is damaged though all its hashes are right, and the message says where."""
    forgery = made()
    decode(forgery.build(), what="x.seg")
    lie(forgery)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match=where) as caught:
            decode(forgery.build(), what="x.seg")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert set(caught.value.details) == {"what", "where", "expected", "found"}


EDITS = st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3)


@settings(max_examples=400)
@given(made=st.sampled_from([compact, referring]), wide=st.booleans(), edits=EDITS)
def test_any_index(made: Callable[[], Compact], *, wide: bool, edits: list[tuple[int, bytes]]) -> None:
    """Whatever stands in an index whose hashes are right, the answer is an index that holds together, or Damaged."""
    forgery = made()
    forgery.wide = wide
    front, hashes, columns = forgery._front(), b"" if wide else forgery._hashes(), forgery.raw_columns()
    raw = bytearray(front + hashes + columns)
    for offset, noise in edits:
        at = offset % len(raw)
        raw[at : at + len(noise)] = noise
    _check(_sealed(forgery, bytes(raw), len(columns)))


def _sealed(forgery: Compact, index: bytes, column_bytes: int) -> bytes:
    whole = forgery.build()
    blocks = b"".join(stored for stored, _ in forgery.blocks)
    front = whole[: whole.index(blocks)] if blocks else whole[:39]
    forgery.trailer.setdefault("column_bytes", column_bytes)
    return forgery._seal(front, blocks, index, b"")


@settings(max_examples=400)
@given(
    fields=st.dictionaries(
        st.sampled_from(["data_offset", "flags", "index_bytes", "column_bytes"]),
        st.one_of(st.integers(0, 300), st.integers(0, 2**16 - 1)),
        min_size=1,
    )
)
def test_any_trailer(fields: dict[str, int]) -> None:
    """Whatever stands in a trailer whose hash is right, the answer is an index that holds together, or Damaged."""
    forgery = compact()
    forgery.trailer = dict(fields)
    _check(forgery.build())


@settings(max_examples=400)
@given(document=st.binary(max_size=60))
def test_any_header(document: bytes) -> None:
    """Whatever stands in a header whose hash is right, the answer is a header or Damaged."""
    forgery = compact()
    forgery.header = [document]
    _check(forgery.build())


def _check(body: bytes) -> None:
    """Decode, and prove that what was decoded can be used without looking at it again."""
    try:
        index = decode(body, what="x.seg")
    except Damaged:
        return
    assert sum(one.frames for one in index.transactions) == len(index.pgnos)
    assert sum(block.frames for block in index.blocks) == len(index.pgnos)
    assert len(index.blocks) == 1 or not index.references
    for number, block in enumerate(index.blocks):
        older = b"".join(image for _, image in OLDER)
        stored = body[block.offset : block.offset + block.stored_bytes]
        try:
            raw = read_block(index, number, stored, what="x.seg", references=older)
        except Damaged:
            continue
        assert len(raw) == block.frames * index.header.page_size
