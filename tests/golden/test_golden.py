from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicad.ownership.records import decode_claim, decode_end, decode_start
from replicad.position import NO_WAL, WALPosition
from replicad.segment import SegmentHeader, SegmentIndex, decode, decode_rollup, read_block
from replicad.snapshot import decode_manifest, decompress_chunk
from tests.golden.fixtures import (
    CLAIM,
    END,
    FOLDER,
    FOLLOWING,
    LARGE_PAGES,
    MANIFEST,
    ONLY_READ,
    PIECES,
    REFERENCES,
    REFERRING,
    SMALL,
    START,
    WAL_END,
    WIDE,
    WRITTEN_WITH,
    ZSTD,
    objects,
    write_missing,
)

if TYPE_CHECKING:
    from tests.support.segments import Written

if os.environ.get("REPLICAD_WRITE_GOLDEN"):
    write_missing()

SEGMENTS = [
    pytest.param("small.seg", *SMALL, WAL_END, id="small, version 1"),
    pytest.param("large-pages.seg", *LARGE_PAGES, NO_WAL, id="large-pages, version 1"),
    pytest.param("small-2.seg", *SMALL, WAL_END, id="small"),
    pytest.param("large-pages-2.seg", *LARGE_PAGES, NO_WAL, id="large-pages"),
    pytest.param("referring-2.seg", *REFERRING, WAL_END, id="referring"),
    pytest.param("wide-2.seg", *WIDE, WAL_END, id="wide"),
]
PACKED = (".seg", ".segs", ".zst")


def _body(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def _blocks(index: SegmentIndex, body: bytes) -> bytes:
    older = b"".join(image for _, image in REFERENCES) if index.references else b""
    return b"".join(
        read_block(index, number, body[block.offset :][: block.stored_bytes], what="golden", references=older)
        for number, block in enumerate(index.blocks)
    )


@pytest.mark.parametrize(("name", "head", "transactions", "wal_end"), SEGMENTS)
def test_old_segments_are_read(
    name: str, head: SegmentHeader, transactions: tuple[Written, ...], wal_end: WALPosition
) -> None:
    """A segment written by the first version of its format is read as what it was written from, page by page."""
    body = _body(name)
    index = decode(body, what=name)
    frames = [frame for one in transactions for frame in one.images]
    assert index.header == head
    assert index.wal_end == wal_end
    assert [(one.commit_ms, one.pages, one.checksum, one.frames) for one in index.transactions] == [
        (one.commit_ms, one.pages, one.checksum, len(one.images)) for one in transactions
    ]
    assert list(index.pgnos) == [pgno for pgno, _ in frames]
    assert _blocks(index, body) == b"".join(image for _, image in frames)


def test_old_roll_ups_are_read() -> None:
    """A roll-up written by the first version of its format holds the segments that it was made of."""
    body = _body("rollup.1.segs")
    found = [(one.first, one.last, one.last_ms) for one in decode_rollup(body, what="rollup")]
    assert found == [(4711, 4713, 1_764_547_200_999), (4714, 4714, 1_764_547_201_000)]
    for one, (head, transactions) in zip(decode_rollup(body, what="rollup"), (SMALL, FOLLOWING), strict=True):
        member = body[one.offset : one.offset + one.size_bytes]
        index = decode(member, what="rollup")
        assert (index.header, index.wal_end) == (head, WAL_END)
        assert _blocks(index, member) == b"".join(image for each in transactions for _, image in each.images)


@pytest.mark.parametrize("number", [0, 1])
def test_old_chunks_are_read(number: int) -> None:
    """A chunk written by the first version is found by its manifest's name and size."""
    chunk = MANIFEST.chunks[number]
    stored = _body(f"chunk-{number}.zst")
    assert len(stored) == chunk.stored_bytes
    raw = decompress_chunk(stored, raw_bytes=chunk.raw_bytes, name=chunk.name, what="golden")
    assert raw == PIECES[number]


def test_old_documents_are_read() -> None:
    """Manifest, claim, start and end written by the first version are read as what they were written from."""
    assert decode_manifest(_body("manifest.json"), what="golden") == MANIFEST
    assert decode_claim(_body("claim.json"), what="golden") == CLAIM
    assert decode_start(_body("start.json"), what="golden") == START
    assert decode_end(_body("end.json"), what="golden") == END


@pytest.mark.parametrize("name", objects())
def test_new_objects_are_the_same(name: str) -> None:
    """Today's code writes the same bytes; where another zstd packs to other ones, the same content."""
    if ZSTD == WRITTEN_WITH or not name.endswith(PACKED):
        assert objects()[name] == _body(name)
    elif name.endswith(".seg"):
        old, new = _body(name), objects()[name]
        there, here = decode(old, what="old"), decode(new, what="new")
        assert replace(here, blocks=()) == replace(there, blocks=())
        assert [block.frames for block in here.blocks] == [block.frames for block in there.blocks]
        assert _blocks(here, new) == _blocks(there, old)


def test_every_file_is_known() -> None:
    """No golden file lies about untested."""
    names = {path.name for path in FOLDER.iterdir() if path.suffix in {".seg", ".segs", ".zst", ".json"}}
    assert names == {*objects(), *ONLY_READ}
