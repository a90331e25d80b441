from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
import xxhash
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import Damaged, NewerFormat
from replicad.segment import (
    HEAD_BYTES_HINT,
    TRAILER_BYTES,
    Block,
    SegmentIndex,
    decode,
    read_block,
    read_block_into,
    read_head,
    read_index,
    read_trailer,
)
from tests.support.segments import OLDER, THREE, Written, compact, encode, forged, header, page, referring

WHAT = "epochs/00000003/log/x.seg"
BODY = encode(header(), THREE, block_bytes=1024)
OLD_BODY = forged().build()
REFERRING_BODY = referring().build()
BODIES = {"version 1": OLD_BODY, "version 2": BODY, "referring": REFERRING_BODY}
OLDER_PAGES = b"".join(image for _, image in OLDER)
ANY_BODY = pytest.mark.parametrize("whole", BODIES.values(), ids=BODIES)


def _read_by_ranges(body: bytes) -> tuple[SegmentIndex, bytes]:
    """Read a segment as one would a large object: the end, the index, the head, then block after block."""
    trailer = read_trailer(body[-TRAILER_BYTES:], object_bytes=len(body), what=WHAT)
    index_range = body[trailer.index_offset : trailer.index_offset + trailer.index_bytes]
    index = read_index(body[: trailer.data_offset], index_range, trailer, what=WHAT)
    return index, b"".join(
        read_block(index, number, body[block.offset :][: block.stored_bytes], what=WHAT, references=OLDER_PAGES)
        for number, block in enumerate(index.blocks)
    )


@pytest.mark.parametrize("name", ["version 1", "version 2"])
def test_blocks_unpacked_into_a_room(name: str) -> None:
    """The same page images, at the beginning of memory that held others; nothing behind them is touched."""
    body = BODIES[name]
    index = decode(body, what=WHAT)
    for number, block in enumerate(index.blocks):
        stored = _stored(body, block)
        expected = read_block(index, number, stored, what=WHAT)
        room = memoryview(bytearray(b"?" * (len(expected) + 100)))
        assert read_block_into(room, index, number, stored, what=WHAT) == expected
        assert bytes(room[len(expected) :]) == b"?" * 100
    with pytest.raises(Damaged, match="hash of the block 0"):
        read_block_into(room, index, 0, bytes(index.blocks[0].stored_bytes), what=WHAT)
    with pytest.raises(Damaged, match="block 0: expected"):
        read_block_into(room, index, 0, b"short", what=WHAT)
    referring_index = decode(REFERRING_BODY, what=WHAT)
    with pytest.raises(ValueError, match="refers to pages"):
        read_block_into(room, referring_index, 0, _stored(REFERRING_BODY, referring_index.blocks[0]), what=WHAT)


def _index_range(body: bytes) -> bytes:
    trailer = read_trailer(body, object_bytes=len(body), what=WHAT)
    return body[trailer.index_offset :][: trailer.index_bytes]


def _stored(body: bytes, block: Block) -> bytes:
    return body[block.offset : block.offset + block.stored_bytes]


def test_ranges_give_what_the_whole_gives() -> None:
    """A segment read by ranges is the same as one decoded whole, and its head is found within the hint."""
    index, raw = _read_by_ranges(BODY)
    assert index == decode(BODY, what=WHAT)
    assert raw == b"".join(image for one in THREE for _, image in one.images)
    assert read_head(BODY[:HEAD_BYTES_HINT], what=WHAT) == index.header == header()
    assert [(block.first_frame, block.frames) for block in index.blocks] == [(0, 2), (2, 2), (4, 1)]


@ANY_BODY
def test_longer_ranges_do_no_harm(whole: bytes) -> None:
    """A reader that fetched more than it needed, from the front or the end, need not cut."""
    trailer = read_trailer(whole[10:], object_bytes=len(whole), what=WHAT)
    assert read_index(whole, _index_range(whole), trailer, what=WHAT) == decode(whole, what=WHAT)


def test_transactions_without_pages() -> None:
    """A segment whose transactions wrote no page at all has no blocks."""
    body = encode(header(), [Written(commit_ms=0, pages=1, checksum=0, images=())])
    index, raw = _read_by_ranges(body)
    assert (len(index.transactions), len(index.blocks), len(index.pgnos), raw) == (1, 0, 0, b"")


@ANY_BODY
def test_one_bit_flipped(whole: bytes) -> None:
    """Every single bit of a segment is guarded, whether it is read whole or by ranges.

    Seen to fail for the ranges without the hash check of the head, of the index, of a block, and of the trailer,
    each taken out alone.
    """
    for offset in range(len(whole)):
        for bit in range(8):
            body = bytearray(whole)
            body[offset] ^= 1 << bit
            for read in (
                lambda body=bytes(body): decode(body, what=WHAT),
                lambda body=bytes(body): _read_by_ranges(body),
            ):
                with pytest.raises((Damaged, NewerFormat)):
                    read()


@ANY_BODY
def test_zero_bytes_and_truncated(whole: bytes) -> None:
    """An object cut short anywhere, down to zero bytes, is damaged; so is one with bytes too many.

    Seen to fail (with a struct.error) without the check of the size in `read_trailer`.
    """
    for size in range(len(whole)):
        for body in (whole[:size], whole[len(whole) - size :]):
            with pytest.raises(Damaged, match=r"x\.seg is damaged"):
                decode(body, what=WHAT)
    for body in (whole + b"\0", b"\0" + whole):
        with pytest.raises(Damaged):
            decode(body, what=WHAT)


@ANY_BODY
def test_short_ranges(whole: bytes) -> None:
    """A range that came back too short, or the wrong one, is told by its size before any hash is."""
    trailer = read_trailer(whole, object_bytes=len(whole), what=WHAT)
    head, index_range = whole[: trailer.data_offset], _index_range(whole)
    for wrong in (index_range[:-1], index_range + b"\0", b""):
        with pytest.raises(Damaged, match=rf"index: expected {trailer.index_bytes} bytes, found {len(wrong)}"):
            read_index(head, wrong, trailer, what=WHAT)
    for size in range(len(head)):
        with pytest.raises(Damaged, match=r"head: expected at least 16|header length: expected at most"):
            read_index(head[:size], index_range, trailer, what=WHAT)
        with pytest.raises(Damaged, match=r"head: expected at least 16|header length: expected at most"):
            read_head(head[:size], what=WHAT)
    with pytest.raises(Damaged, match="size: expected"):
        read_trailer(whole[-43:], object_bytes=len(whole), what=WHAT)


def test_size_of_the_object_is_compared() -> None:
    """A trailer that is whole but speaks of another size than the listing's is found: by itself, or by the index."""
    with pytest.raises(Damaged, match="size: expected"):
        read_trailer(OLD_BODY[-TRAILER_BYTES:], object_bytes=len(OLD_BODY) + 1, what=WHAT)
    trailer = read_trailer(BODY[-TRAILER_BYTES:], object_bytes=len(BODY) + 1, what=WHAT)
    with pytest.raises(Damaged, match="hash of the head and the index"):
        read_index(BODY, BODY[trailer.index_offset :][: trailer.index_bytes], trailer, what=WHAT)


def test_parts_of_another_segment() -> None:
    """Head, index and blocks of another segment are not taken for this one's.

    Seen to fail without the hash check of the head and of the index, each taken out alone.
    """
    renumbered = replace(THREE[2], images=((6, THREE[2].images[0][1]), THREE[2].images[1]))
    other = encode(header(pages_before=8), [*THREE[:2], renumbered], block_bytes=1024)
    trailer = read_trailer(BODY, object_bytes=len(BODY), what=WHAT)
    for head, index_range in ((other, _index_range(BODY)), (BODY, _index_range(other))):
        with pytest.raises(Damaged, match="hash of the head and the index"):
            read_index(head[: trailer.data_offset], index_range, trailer, what=WHAT)
    old = forged()
    old.header["pages_before"] = 8
    old.pgnos[3] = 6
    theirs, ours = old.build(), read_trailer(OLD_BODY, object_bytes=len(OLD_BODY), what=WHAT)
    with pytest.raises(Damaged, match="hash of the head"):
        read_index(theirs[: ours.data_offset], _index_range(OLD_BODY), ours, what=WHAT)
    with pytest.raises(Damaged, match="hash of the index"):
        read_index(OLD_BODY[: ours.data_offset], _index_range(theirs), ours, what=WHAT)
    with pytest.raises(Damaged, match="version: expected that of the trailer"):
        read_index(_as_long_as(BODY, trailer.data_offset, ours.data_offset), _index_range(OLD_BODY), ours, what=WHAT)
    index = decode(BODY, what=WHAT)
    with pytest.raises(Damaged, match="block 0"):
        read_block(index, 0, _stored(BODY, index.blocks[1]), what=WHAT)


def _as_long_as(body: bytes, head_bytes: int, wanted_bytes: int) -> bytes:
    """Return a head of version 2 with an identifier that makes it so long."""
    name = "x" * (wanted_bytes - head_bytes + 8)
    head = encode(replace(header(), database_id=name), THREE)[:wanted_bytes]
    assert body[:8] == head[:8]
    return head


def test_references_are_proven() -> None:
    """TRAP: a segment is unpacked with the very pages that it refers to, or not at all; its index needs none.

    Seen to fail without the comparison of hashes in `read_block`.
    """
    index = decode(REFERRING_BODY, what=WHAT)
    assert list(index.references) == [pgno for pgno, _ in OLDER]
    stored = _stored(REFERRING_BODY, index.blocks[0])
    assert read_block(index, 0, stored, what=WHAT, references=OLDER_PAGES) == page(5000)[:-1] + b"x"
    for wrong in (b"", OLDER_PAGES[:-512], OLDER_PAGES[:-1] + b"?", OLDER_PAGES + bytes(512), bytes(1024)):
        with pytest.raises(Damaged, match=r"hash of the 2 pages that it refers to: expected [0-9a-f]{16}, found"):
            read_block(index, 0, stored, what=WHAT, references=wrong)


@given(first=st.integers(0, len(BODY)), second=st.integers(0, len(BODY)))
def test_spliced(first: int, second: int) -> None:
    """The front of one segment joined to the end of another is damaged, wherever they meet."""
    other = encode(header(epoch=4), THREE, block_bytes=1024)
    body = other[:first] + BODY[second:]
    if body not in {BODY, other}:
        with pytest.raises((Damaged, NewerFormat)):  # what has come to stand for the version may be any number
            decode(body, what=WHAT)


@given(body=st.binary(max_size=2000))
def test_random_bytes(body: bytes) -> None:
    """Bytes that are no segment are damaged, never another error."""
    with pytest.raises(Damaged):
        decode(body, what=WHAT)


@given(noise=st.binary(min_size=1, max_size=40), offset=st.integers(0, len(BODY)), end=st.booleans())
def test_random_bytes_inside(noise: bytes, offset: int, *, end: bool) -> None:
    """A segment with foreign bytes in it is refused, whether they replace others or push them on."""
    body = BODY[:offset] + noise + BODY[offset if end else offset + len(noise) :]
    if body != BODY:
        with pytest.raises((Damaged, NewerFormat)):
            decode(body, what=WHAT)


def test_newer_version() -> None:
    """A segment of a later version is not called damaged, whichever end is read first."""
    for newer in (forged(), compact()):
        newer.trailer = {"version": 3}
        with pytest.raises(NewerFormat, match="version 3, and this replicad reads up to version 2"):
            decode(newer.build(), what=WHAT)
        newer.trailer, newer.head = {}, {"version": 3}
        with pytest.raises(NewerFormat, match="version 3"):
            decode(newer.build(), what=WHAT)
        with pytest.raises(NewerFormat, match="version 3"):
            read_head(newer.build(), what=WHAT)


def test_decompression_bomb() -> None:
    """A block, or an index, that unpacks to more than was agreed is refused before it has cost any memory.

    Seen to fail without the comparison of the frame's content size in `zstd.decompress`: 1 GiB came out.
    """
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30))
    in_block, in_index = forged(), forged()
    in_block.blocks[0] = (b"", 2)
    in_block.block_records = [(len(bomb), 2, xxhash.xxh3_64_intdigest(bomb)), *_real_records()[1:]]
    in_index.index = bomb
    index = SegmentIndex(
        header=header(),
        transactions=(),
        pgnos=decode(BODY, what=WHAT).pgnos,
        blocks=(Block(offset=0, stored_bytes=len(bomb), first_frame=0, frames=2, hash=xxhash.xxh3_64_intdigest(bomb)),),
        wal_end=decode(BODY, what=WHAT).wal_end,
    )
    body = in_index.build()
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="content size"):
            read_block(index, 0, bomb, what=WHAT)
        with pytest.raises(Damaged, match="content size"):
            decode(body, what=WHAT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _real_records() -> list[tuple[int, int, int]]:
    return [(block.stored_bytes, block.frames, block.hash) for block in decode(BODY, what=WHAT).blocks]


@pytest.mark.parametrize(
    "lie",
    [
        {"frames": 2**28},
        {"frames": 2**64 - 1},
        {"blocks": 2**32 - 1},
        {"last_txid": 2**63 - 1},
        {"last_txid": 1000 + 2**20 - 1},
        {"index_bytes": 2**64 - 1},
        {"index_offset": 2**64 - 1},
        {"data_offset": 2**64 - 1},
        {"frames": 2**28, "blocks": 2**20},
    ],
    ids=str,
)
def test_huge_lengths(lie: dict[str, int | bytes]) -> None:
    """A length that claims terabytes is refused before it has cost any memory, its hashes being right or not.

    Seen to fail with `{"frames": 2**28}` when the index names that content size and `zstd.decompress` does not
    compare it with what is stored (peak 1 GiB).
    """
    forgery = forged()
    forgery.trailer = lie
    if lie == {"frames": 2**28}:
        forgery.index = _claiming(3 * 24 + 2**28 * 4 + 3 * 16)
    body = forgery.build()
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            decode(body, what=WHAT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _claiming(content_bytes: int) -> bytes:
    """Return a zstd frame that claims a content size and holds one byte (RFC 8878, section 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\xe0" + content_bytes.to_bytes(8, "little") + b"\x09\x00\x00x"


@pytest.mark.parametrize("size", [0, 1])
def test_block_of_another_length(size: int) -> None:
    """A block fetched too short or too long is damaged."""
    index = decode(BODY, what=WHAT)
    block = _stored(BODY, index.blocks[0])
    for wrong in (block[:size], block + bytes(size + 1)):
        with pytest.raises(Damaged, match=r"block 0: expected \d+ bytes"):
            read_block(index, 0, wrong, what=WHAT)


def test_block_of_the_right_hash_and_wrong_content() -> None:
    """A block whose hash is right is still unpacked with care: no frame, two frames, bytes behind, too few pages."""
    whole = page(1) + page(2)
    frame = zstandard.ZstdCompressor().compress(whole)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(whole)
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    short = zstandard.ZstdCompressor().compress(page(1))
    index = decode(BODY, what=WHAT)
    for wrong in (b"no frame", frame + frame, frame + b"\0", unsized, skippable, short, frame[:-1]):
        block = replace(index.blocks[0], stored_bytes=len(wrong), hash=xxhash.xxh3_64_intdigest(wrong))
        with pytest.raises(Damaged, match="block 0"):
            read_block(replace(index, blocks=(block,)), 0, wrong, what=WHAT)
