from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import Damaged
from replicad.segment import decode, read_block
from tests.support.segments import Forged, forged, pack

if TYPE_CHECKING:
    from collections.abc import Callable

Lie = tuple[str, "Callable[[Forged], object]", str]


def _first(pages: int = 100, commit_ms: int = 5, checksum: int = 7, frames: int = 3) -> tuple[int, int, int, int]:
    return commit_ms, checksum, pages, frames


def _in_first(record: tuple[int, int, int, int]) -> Callable[[Forged], object]:
    return lambda lie: lie.transactions.__setitem__(0, record)


def _in_pgnos(pgno: int) -> Callable[[Forged], object]:
    return lambda lie: lie.pgnos.__setitem__(4, pgno)


def _in_records(records: list[tuple[int, int, int]]) -> Callable[[Forged], object]:
    return lambda lie: setattr(lie, "block_records", records)


def _in_trailer(**fields: int | bytes) -> Callable[[Forged], object]:
    return lambda lie: lie.trailer.update(fields)


def _in_header(**fields: object) -> Callable[[Forged], object]:
    return lambda lie: lie.header.update(fields)


def _in_json(document: bytes) -> Callable[[Forged], object]:
    return lambda lie: setattr(lie, "header_json", document)


def _in_head(**fields: int | bytes) -> Callable[[Forged], object]:
    return lambda lie: lie.head.update(fields)


LIES: list[Lie] = [
    # transactions
    ("time goes back", _in_first(_first(commit_ms=2**50)), "transaction 1001: expected a commit time"),
    ("time beyond all", _in_first(_first(commit_ms=2**53)), "transaction 1000: expected a commit time"),
    ("no pages", _in_first(_first(pages=0)), "transaction 1000: expected 1 to 4294967294 pages, found 0"),
    ("too many pages", _in_first(_first(pages=2**32 - 1)), "transaction 1000: expected 1 to"),
    ("frame too few", _in_first(_first(frames=2)), "frames of all transactions: expected 5, found 4"),
    ("frame too many", _in_first(_first(frames=2**32 - 1)), "frames of all transactions"),
    ("other checksum", _in_trailer(checksum_after=1), "checksum after: expected 0000000000000001"),
    ("no transaction", _in_trailer(last_txid=999), "TXIDs: expected from 1"),
    ("TXID 0", _in_trailer(first_txid=0, last_txid=2), "TXIDs"),
    ("transaction too few", _in_trailer(last_txid=1001), "index, content size"),
    # page numbers
    ("page 0", _in_pgnos(0), "page numbers: expected 1 to 4294967294, found 0 to 5"),
    ("page beyond the last", _in_pgnos(2**32 - 1), "page numbers: expected 1 to 4294967294"),
    ("lock page", _in_pgnos(2**30 // 512 + 1), "expected all but the lock page 2097153, found it in frame 4"),
    # blocks
    ("frame too few in blocks", _in_records([(9, 2, 0), (9, 2, 0)]), "frames of all blocks: expected 5, found 4"),
    ("frame too many in blocks", _in_records([(9, 3, 0), (9, 3, 0)]), "frames of all blocks: expected 5, found 6"),
    ("block without frames", _in_records([(9, 5, 0), (9, 0, 0)]), "block 1: expected 1 to 131072 frames"),
    ("block without bytes", _in_records([(0, 5, 0)]), "block 0: expected 1 to 131072 frames in some bytes"),
    ("block too large", _in_records([(9, 131073, 0)]), "block 0: expected 1 to 131072 frames"),
    ("blocks end early", _in_records([(9, 5, 0)]), "bytes of all blocks"),
    ("blocks run over", _in_records([(2**32 - 1, 5, 0)]), "bytes of all blocks"),
    ("more blocks than frames", _in_records([(9, 1, 0)] * 6), "number of blocks: expected at most 5, found 6"),
    # the trailer
    ("other magic", _in_trailer(magic=b"RPDTAIL\0"), "magic of the trailer"),
    (
        "version 0",
        _in_trailer(version=0),
        "trailer: expected version 1 of 152 bytes or version 2 of 44 bytes, found version 0",
    ),
    ("other length", _in_trailer(trailer_bytes=160), "found version 1 of 160"),
    ("no room for a head", _in_trailer(data_offset=15), "offset of the blocks: expected 16 to"),
    ("head too long", _in_trailer(data_offset=16 + 65537), "offset of the blocks"),
    ("index before blocks", _in_trailer(index_offset=20), "offset of the index: expected at least"),
    ("index too short", _in_trailer(index_bytes=1), "size: expected"),
    ("frame without WAL", _in_trailer(wal_frame=1), "WAL position: expected flags 1, or zeros"),
    ("salts without WAL", _in_trailer(salts=b"saltsalt"), "WAL position"),
    ("checksum without WAL", _in_trailer(frame_checksum=b"checksum"), "WAL position"),
    ("checksum of frame 0", _in_trailer(flags=1, frame_checksum=b"checksum"), "WAL position"),
    ("unknown flag", _in_trailer(flags=2), "WAL position"),
    ("other head", _in_trailer(head_hash=0), "hash of the head"),
    ("other index", _in_trailer(index_hash=0), "hash of the index"),
    # the head
    ("other magic in front", _in_head(magic=b"SQLite f"), "magic: expected"),
    ("version 0 in front", _in_head(version=0), "version: expected 1 to 2, found 0"),
    ("header too long", _in_head(length=2**32 - 1), "header length: expected at most"),
    ("header too short", _in_head(length=10), "is damaged"),
    ("head ends early", _in_trailer(data_offset=16), "header length"),
    ("head runs over", _in_trailer(data_offset=160), "end of the head: expected 160"),
    ("page size", _in_header(page_size=1000), "page_size: expected a power of two"),
    ("other first TXID", _in_header(first_txid=999), "header: expected TXID 1000"),
    ("other checksum before", _in_header(checksum_before="0" * 16), "header: expected TXID 1000 from checksum 0123"),
    ("epoch 0", _in_header(epoch=0), r"JSON: expected .*\$\.epoch"),
    ("no id", _in_header(database_id=""), r"JSON: expected .*\$\.database_id"),
    ("checksum in upper case", _in_header(checksum_before="0123456789ABCDEF"), r"\$\.checksum_before"),
    ("checksum and a newline", _in_header(checksum_before="0123456789abcdef\n"), r"\$\.checksum_before"),
    ("number as text", _in_header(first_txid="1000"), r"\$\.first_txid"),
    ("no JSON", _in_json(b"no JSON"), "JSON: expected a"),
    ("no text", _in_json(b'{"database_id":"\xff"}'), "JSON: expected a"),
    ("brackets without end", _in_json(b'{"x":' + b"[" * 60000), "JSON: expected a"),
    ("field missing", _in_json(b"{}"), "missing required field"),
    # the index
    ("no zstd", lambda lie: setattr(lie, "index", b"no zstd frame"), "index: expected a zstd frame"),
    ("empty index", lambda lie: setattr(lie, "index", b""), "index: expected a zstd frame"),
    ("two frames", lambda lie: setattr(lie, "index", pack(b"x" * 140) * 2), "index: expected a zstd frame"),
]


@pytest.mark.parametrize(("lie", "where"), [pytest.param(lie, where, id=name) for name, lie, where in LIES])
def test_lies(lie: Callable[[Forged], object], where: str) -> None:
    """A segment that contradicts itself is damaged though all its hashes are right, and the message says where."""
    forgery = forged()
    decode(forgery.build(), what="x.seg")
    lie(forgery)
    with pytest.raises(Damaged, match=where) as caught:
        decode(forgery.build(), what="x.seg")
    assert set(caught.value.details) == {"what", "where", "expected", "found"}
    assert str(caught.value).startswith("x.seg is damaged: ")


def test_unknown_fields_are_passed_over() -> None:
    """A header with a field of a later writer, which old readers may miss, is read."""
    forgery = forged()
    forgery.header["compressed_with"] = {"level": [3]}
    assert decode(forgery.build(), what="x.seg").header == decode(forged().build(), what="x.seg").header


@settings(max_examples=300)
@given(edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3))
def test_any_index(edits: list[tuple[int, bytes]]) -> None:
    """Whatever stands in an index whose hashes are right, the answer is an index that holds together, or Damaged."""
    forgery = forged()
    raw = bytearray(forgery.raw_index())
    for offset, noise in edits:
        at = offset % (len(raw) - len(noise))
        raw[at : at + len(noise)] = noise
    forgery.index = pack(bytes(raw))
    _check(forgery.build())


FIELDS = (
    *("data_offset", "index_offset", "index_bytes", "frames", "first_txid", "last_txid", "checksum_before"),
    *("checksum_after", "wal_frame", "head_hash", "index_hash"),
)


@settings(max_examples=300)
@given(
    fields=st.dictionaries(
        st.sampled_from(FIELDS), st.one_of(st.integers(0, 2000), st.integers(0, 2**64 - 1)), min_size=1, max_size=3
    )
)
def test_any_trailer(fields: dict[str, int]) -> None:
    """Whatever stands in a trailer whose hashes are right, the answer is an index that holds together, or Damaged."""
    forgery = forged()
    forgery.trailer = dict(fields)
    _check(forgery.build())


@settings(max_examples=300)
@given(document=st.binary(max_size=200))
def test_any_header(document: bytes) -> None:
    """Whatever stands in a header whose hashes are right, the answer is a header or Damaged."""
    forgery = forged()
    forgery.header_json = document or b" "
    _check(forgery.build())


def _check(body: bytes) -> None:
    """Decode, and prove that what was decoded can be used without looking at it again."""
    try:
        index = decode(body, what="x.seg")
    except Damaged:
        return
    assert sum(one.frames for one in index.transactions) == len(index.pgnos)
    assert sum(block.frames for block in index.blocks) == len(index.pgnos)
    for number, block in enumerate(index.blocks):
        try:
            raw = read_block(index, number, body[block.offset : block.offset + block.stored_bytes], what="x.seg")
        except Damaged:
            continue
        assert len(raw) == block.frames * index.header.page_size


def test_messages_are_whole() -> None:
    """A message says what, where, expected, found and the next step."""
    forgery = forged()
    forgery.pgnos[0] = 0
    with pytest.raises(Damaged) as caught:
        decode(forgery.build(), what="a/b.seg")
    assert re.fullmatch(
        r"a/b\.seg is damaged: page numbers: expected 1 to 4294967294, found 0 to 4294967294\. It was not used; .*\.",
        str(caught.value),
    )
