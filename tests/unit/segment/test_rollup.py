"""Roll-ups: segments whole, one behind the other, and a directory that finds them."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import Damaged, NewerFormat
from replicad.position import NO_WAL, TXID
from replicad.segment import (
    Directory,
    Member,
    decode,
    decode_rollup,
    encode_rollup,
    read_directory,
    read_rollup_trailer,
)
from tests.support.segments import encode, header, written

WHAT = "x.1.segs"


def segment(txid: int) -> tuple[Member, bytes]:
    """Return a segment of one transaction."""
    one = written(txid, pgnos=[1, txid % 5 + 2])
    body = encode(header(first_txid=txid), [one], wal_end=NO_WAL)
    return Member(first=TXID(txid), last=TXID(txid), last_ms=one.commit_ms, offset=0, size_bytes=len(body)), body


SEGMENTS = [segment(txid) for txid in range(7, 12)]
ROLLUP = encode_rollup(SEGMENTS)


def sealed(records: bytes, *, count: int | None = None, **end: int | bytes) -> bytes:
    """Return a roll-up with this directory, whose hash fits."""
    front = ROLLUP[: -32 - 40 * len(SEGMENTS)]
    number = struct.pack("<Q", len(records) // 40 if count is None else count)
    fields: dict[str, int | bytes] = {"version": 1, "size": 32, "magic": b"RPDROLL\n"}
    fields |= end
    seal = struct.pack("<Q", xxhash.xxh3_64_intdigest(records + number))
    return front + records + number + seal + struct.pack("<II8s", *fields.values())


def records(*changes: tuple[int, int, int]) -> bytes:
    """Return the directory with some numbers added to: (member, field, by how much)."""
    rows = [list(row) for row in struct.iter_unpack("<QQQQQ", ROLLUP[-32 - 40 * len(SEGMENTS) : -32])]
    for member, field, by in changes:
        rows[member][field] += by
    return b"".join(struct.pack("<QQQQQ", *row) for row in rows)


def read_all(body: bytes) -> None:
    """Read a roll-up and every segment in it."""
    for one in decode_rollup(body, what=WHAT):
        decode(body[one.offset : one.offset + one.size_bytes], what=WHAT)


def test_members_are_what_they_were() -> None:
    """Every segment stands in the roll-up byte for byte, where the directory says, and is one by itself."""
    directory = decode_rollup(ROLLUP, what=WHAT)
    assert [(one.first, one.last, one.last_ms) for one in directory] == [
        (one.first, one.last, one.last_ms) for one, _ in SEGMENTS
    ]
    for found, (_, body) in zip(directory, SEGMENTS, strict=True):
        member = ROLLUP[found.offset : found.offset + found.size_bytes]
        assert member == body
        assert decode(member, what=WHAT).last_txid == found.last
    assert len(ROLLUP) == sum(len(body) for _, body in SEGMENTS) + 16 + 40 * len(SEGMENTS) + 32


def test_the_directory_is_read_from_the_end() -> None:
    """The last 32 bytes tell where the directory begins; it is proven without what stands before it."""
    trailer = read_rollup_trailer(ROLLUP[-32:], object_bytes=len(ROLLUP), what=WHAT)
    directory = read_directory(ROLLUP[trailer.directory_offset : -32], trailer, what=WHAT)
    assert list(directory) == list(decode_rollup(ROLLUP, what=WHAT))
    assert trailer.count == len(directory) == len(SEGMENTS)


def test_which_member_holds_a_transaction() -> None:
    """A member is found by any of its transactions; outside of all, the nearest one is."""
    directory = decode_rollup(ROLLUP, what=WHAT)
    assert [directory.number_of(txid) for txid in (1, 7, 9, 11, 99)] == [0, 0, 2, 4, 4]
    assert directory[-1].last == 11
    assert [one.first for one in directory[1:3]] == [8, 9]
    with pytest.raises(IndexError):
        directory[5]


def test_roll_ups_of_roll_ups_are_not_nested() -> None:
    """The members of two roll-ups make one that is the same as one made of the segments."""
    halves = [encode_rollup(SEGMENTS[:2]), encode_rollup(SEGMENTS[2:])]
    members = [
        (one, half[one.offset : one.offset + one.size_bytes]) for half in halves for one in decode_rollup(half, what="")
    ]
    assert encode_rollup(members) == ROLLUP


@pytest.mark.parametrize("chosen", [[1, 0], [0, 2], [0, 0], []], ids=["swapped", "a gap", "twice", "nothing"])
def test_segments_that_do_not_follow_one_another(chosen: list[int]) -> None:
    """A roll-up is made of transactions without a gap, in order, or not at all."""
    with pytest.raises(ValueError, match=r"a roll-up to be stored|not enough values"):
        encode_rollup([SEGMENTS[number] for number in chosen])


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (ROLLUP[:-1], "magic of the trailer"),
        (ROLLUP[:20], "size"),
        (b"", "size"),
        (ROLLUP[1:], "head"),
        (ROLLUP + b"garbage.", "magic of the trailer"),
        (b"\x89RPDSEG\n" + ROLLUP[8:], "head"),
        (SEGMENTS[0][1] * 3, "magic of the trailer"),
        (sealed(records(), count=6), "hash of the directory"),
        (sealed(records(), count=2**63), "number of members"),
        (sealed(b""), "number of members"),
        (sealed(records(), size=40), "trailer"),
        (sealed(records(), version=0), "trailer"),
        (sealed(records((0, 3, 1))), "member 0"),
        (sealed(records((2, 4, 1))), "member 3"),
        (sealed(records((4, 4, 1))), "end of the members"),
        (sealed(records((0, 4, -1))), "member 1"),
        (sealed(records((1, 0, 1))), "member 1"),
        (sealed(records((1, 1, 1))), "member 2"),
        (sealed(records((0, 0, -7))), "member 0"),
        (sealed(records((4, 1, 2**63))), "member 4"),
        (sealed(records((3, 2, -2))), "member 3"),
        (sealed(records((4, 2, 2**53))), "member 4"),
    ],
)
def test_damage_is_named(body: bytes, where: str) -> None:
    """Whatever contradicts itself is damaged, however well it is hashed."""
    with pytest.raises(Damaged, match=where):
        decode_rollup(body, what=WHAT)


def test_a_later_version_is_not_damage() -> None:
    """What a later replicad wrote asks for an upgrade."""
    with pytest.raises(NewerFormat, match="version 2"):
        decode_rollup(sealed(records(), version=2), what=WHAT)


@given(st.integers(0, len(ROLLUP) * 8 - 1))
@settings(max_examples=400)
def test_every_bit_counts(bit: int) -> None:
    """TRAP: one bit flipped anywhere is found out: by the roll-up, or within a segment by that one's own hashes.

    Seen to fail (a bit of the directory) when the hash of the directory was not compared.
    """
    body = bytearray(ROLLUP)
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Damaged, NewerFormat)):
        read_all(bytes(body))


@given(st.integers(0, len(ROLLUP) - 1))
def test_truncation(size_bytes: int) -> None:
    """A roll-up that lost its end, however little of it, is no roll-up."""
    with pytest.raises(Damaged):
        decode_rollup(ROLLUP[:size_bytes], what=WHAT)


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=300)
def test_any_bytes(noise: bytes, well_hashed: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever the bytes are, a reader makes a directory that fits, or says what is wrong; it never breaks."""
    body = sealed(noise[: len(noise) // 40 * 40]) if well_hashed else noise + ROLLUP[-24:]
    try:
        directory = decode_rollup(body, what=WHAT)
    except (Damaged, NewerFormat):
        return
    assert isinstance(directory, Directory)
    assert sum(one.size_bytes for one in directory) + 48 + 40 * len(directory) == len(body)
