"""Roll-ups: segments that follow one another, whole and byte for byte, in one object with a directory behind them.

    head       magic, version, 0
    members    the segments
    directory  one record for each
    trailer    how many, hash, version, magic

Nothing is packed again: a small segment refers to older pages, which whoever makes a roll-up does not have. So every
member keeps its own hashes, and is what it was. A roll-up of roll-ups holds the members of all of them.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, overload

import xxhash

from replicad.document import MAX_MS, MAX_TXID
from replicad.errors import Damaged, NewerFormat
from replicad.position import TXID
from replicad.segment.form import HEAD, SEAL, TRAILER

if TYPE_CHECKING:
    from collections.abc import Iterable

ROLLUP_VERSION: Final = 1
ROLLUP_HEAD_MAGIC: Final = b"\x89RPDSGS\n"
ROLLUP_TRAILER_MAGIC: Final = b"RPDROLL\n"

MEMBER: Final = struct.Struct("<QQQQQ")
"""first TXID, last TXID, commit time of the last, offset, bytes."""

ROLLUP_TRAILER: Final = struct.Struct("<QQII8s")
"""members, hash, version, size of the trailer, magic."""

ROLLUP_HEAD_BYTES: Final = HEAD.size

MAX_MEMBERS: Final = 1 << 18
"""In a roll-up; a reader keeps 40 bytes for each."""

_COUNT_BYTES = 8
_LEAST_BYTES = HEAD.size + TRAILER.size  # of a member
_HEAD = HEAD.pack(ROLLUP_HEAD_MAGIC, ROLLUP_VERSION, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One segment of a roll-up."""

    first: TXID
    last: TXID
    last_ms: int  # commit time of its last transaction, Unix ms, UTC
    offset: int  # in the roll-up
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RollUpTrailer:
    """Fields of the trailer."""

    count: int
    seal: int  # xxh3_64 of the directory and the count
    directory_offset: int  # the members end here


class Directory(Sequence[Member]):
    """The members of a roll-up in order, kept as they are stored: there may be many."""

    def __init__(self, records: bytes) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records) // MEMBER.size

    @overload
    def __getitem__(self, number: int) -> Member: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Member]: ...
    def __getitem__(self, number: int | slice) -> Member | Sequence[Member]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        first, last, last_ms, offset, size_bytes = MEMBER.unpack_from(self._records, number % len(self) * MEMBER.size)
        return Member(first=TXID(first), last=TXID(last), last_ms=last_ms, offset=offset, size_bytes=size_bytes)

    def number_of(self, txid: int) -> int:
        """Return the number of the member that holds a transaction; of the nearest one, when none does."""
        return min(bisect_left(self, txid, key=lambda member: member.last), len(self) - 1)


def encode_rollup(members: Iterable[tuple[Member, bytes | memoryview]]) -> bytes:
    """Return a roll-up of these segments; the offsets of the members, as they are given, do not matter.

    Raises:
        ValueError: they do not follow one another, or a number is out of range.
    """
    described, bodies = zip(*members, strict=True)
    starts = accumulate(map(len, bodies), initial=HEAD.size)
    directory = b"".join(
        MEMBER.pack(one.first, one.last, one.last_ms, offset, len(body))
        for one, body, offset in zip(described, bodies, starts, strict=False)
    )
    count = struct.pack("<Q", len(described))
    seal = xxhash.xxh3_64_intdigest(directory + count)
    try:
        _check_directory(directory, HEAD.size + sum(map(len, bodies)), what="a roll-up to be stored")
    except Damaged as error:
        raise ValueError(str(error)) from error
    trailer = ROLLUP_TRAILER.pack(len(described), seal, ROLLUP_VERSION, ROLLUP_TRAILER.size, ROLLUP_TRAILER_MAGIC)
    return b"".join((_HEAD, *bodies, directory, trailer))


def read_rollup_trailer(tail: bytes, *, object_bytes: int, what: str) -> RollUpTrailer:
    """Return the trailer at the end of `tail`, the last bytes of an object of `object_bytes`.

    Raises:
        Damaged: the bytes are not the end of a roll-up of that size.
        NewerFormat: they are of a later version.
    """
    least = HEAD.size + _LEAST_BYTES + MEMBER.size + ROLLUP_TRAILER.size
    if object_bytes < least or len(tail) < ROLLUP_TRAILER.size:
        found = f"{object_bytes}, {len(tail)} of them at hand"
        raise Damaged(what=what, where="size", expected=f"at least {least} bytes", found=found)
    version, length, magic = SEAL.unpack(tail[-SEAL.size :])
    if magic != ROLLUP_TRAILER_MAGIC:
        raise Damaged(what=what, where="magic of the trailer", expected=ROLLUP_TRAILER_MAGIC, found=magic)
    if version > ROLLUP_VERSION:
        raise NewerFormat(what=what, found=version, expected=ROLLUP_VERSION)
    if (version, length) != (ROLLUP_VERSION, ROLLUP_TRAILER.size):
        expected = f"version {ROLLUP_VERSION} of {ROLLUP_TRAILER.size} bytes"
        raise Damaged(what=what, where="trailer", expected=expected, found=f"version {version} of {length}")
    count, seal, *_ = ROLLUP_TRAILER.unpack(tail[-ROLLUP_TRAILER.size :])
    directory_offset = object_bytes - ROLLUP_TRAILER.size - count * MEMBER.size
    most = min(MAX_MEMBERS, (object_bytes - HEAD.size - ROLLUP_TRAILER.size) // (_LEAST_BYTES + MEMBER.size))
    if not 1 <= count <= most:
        raise Damaged(what=what, where="number of members", expected=f"1 to {most}", found=count)
    return RollUpTrailer(count=count, seal=seal, directory_offset=directory_offset)


def read_directory(records: bytes, trailer: RollUpTrailer, *, what: str) -> Directory:
    """Return the directory, which stands from `trailer.directory_offset` on.

    Raises:
        Damaged: the bytes are not the directory of one roll-up, or its numbers contradict one another.
    """
    if len(records) != trailer.count * MEMBER.size:
        expected = f"{trailer.count * MEMBER.size} bytes"
        raise Damaged(what=what, where="directory", expected=expected, found=len(records))
    found = xxhash.xxh3_64_intdigest(records + struct.pack("<Q", trailer.count))
    if found != trailer.seal:
        where = "hash of the directory"
        raise Damaged(what=what, where=where, expected=f"{trailer.seal:016x}", found=f"{found:016x}")
    _check_directory(records, trailer.directory_offset, what=what)
    return Directory(bytes(records))


def check_rollup_head(head: bytes, *, what: str) -> None:
    """Refuse the first ROLLUP_HEAD_BYTES of an object when they are not those of a roll-up.

    Raises:
        Damaged: they are not.
    """
    if head != _HEAD:
        raise Damaged(what=what, where="head", expected=_HEAD.hex(), found=head.hex())


def decode_rollup(body: bytes, *, what: str) -> Directory:
    """Return the directory of the whole object `body`. The members are not looked at: each is a segment by itself.

    Raises:
        Damaged: the bytes are not a roll-up.
        NewerFormat: they are one of a later version.
    """
    trailer = read_rollup_trailer(body[-ROLLUP_TRAILER.size :], object_bytes=len(body), what=what)
    check_rollup_head(body[: HEAD.size], what=what)
    return read_directory(body[trailer.directory_offset : -ROLLUP_TRAILER.size], trailer, what=what)


def _check_directory(records: bytes, end: int, *, what: str) -> None:
    """The members fill all before the directory, and their transactions follow one another."""
    offset, next_txid, last_ms = HEAD.size, 0, 0
    for number, (first, last, ms, begin, size_bytes) in enumerate(MEMBER.iter_unpack(records)):
        where = f"member {number}"
        if begin != offset or size_bytes < _LEAST_BYTES:
            expected = f"at least {_LEAST_BYTES} bytes at {offset}"
            raise Damaged(what=what, where=where, expected=expected, found=f"{size_bytes} at {begin}")
        if not 1 <= first <= last <= MAX_TXID or (next_txid and first != next_txid):
            expected = f"TXIDs from {next_txid or 1} on"
            raise Damaged(what=what, where=where, expected=expected, found=f"{first} to {last}")
        if not last_ms <= ms <= MAX_MS:
            raise Damaged(what=what, where=where, expected=f"a commit time from {last_ms} on", found=ms)
        offset, next_txid, last_ms = begin + size_bytes, last + 1, ms
    if offset != end:
        raise Damaged(what=what, where="end of the members", expected=end, found=offset)
