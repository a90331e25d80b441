"""The columns of an index of version 2: times, sizes, page numbers and blocks, in one of two forms.

Of small segments they are integers of variable length, differences where neighbours are alike; of others the records of
fixed size of version 1, which cost a reader and a writer no step of Python's for each frame.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.segment.form import BLOCK, PGNO, TRANSACTION
from replicad.segment.index import little_endian, numbers_of
from replicad.segment.varint import Reader, differences, write_varints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.position import WALPosition
    from replicad.segment.header import SegmentHeader

HASH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an index says, as an encoder has gathered it."""

    header: SegmentHeader
    transactions: bytes | bytearray  # records
    pgnos: array[int]
    blocks: bytes | bytearray  # records
    wal_end: WALPosition
    references: array[int]
    reference_hash: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are of everything."""

    transactions: int
    frames: int
    blocks: int
    references: int


Columns = tuple["Iterator[tuple[int, int, int, int]]", "array[int]", "list[tuple[int, int, int]]"]


def hashes_of(contents: Contents) -> bytes:
    """Return the checksums of all transactions, and the hashes of all blocks."""
    checksums = (checksum for _, checksum, _, _ in TRANSACTION.iter_unpack(contents.transactions))
    hashes = (digest for _, _, digest in BLOCK.iter_unpack(contents.blocks))
    return b"".join(digest.to_bytes(HASH_BYTES, "little") for digest in chain(checksums, hashes))


def wide_columns(contents: Contents) -> bytes:
    """Return the columns as records."""
    return b"".join((contents.transactions, little_endian(contents.pgnos), contents.blocks))


def compact_columns(contents: Contents) -> bytes:
    """Return the columns as integers of variable length."""
    columns = bytearray()
    times, _, pages, frames = zip(*TRANSACTION.iter_unpack(contents.transactions), strict=True)
    write_varints(columns, [now - before for before, now in zip((0, *times), times, strict=False)])
    write_varints(columns, differences(pages, before=contents.header.pages_before))
    write_varints(columns, frames)
    write_varints(columns, differences(contents.pgnos, before=0))
    write_varints(columns, chain.from_iterable((stored, n) for stored, n, _ in BLOCK.iter_unpack(contents.blocks)))
    return bytes(columns)


def read_wide(columns: Reader, counts: Counts) -> Columns:
    """Return transactions (commit_ms, checksum, pages, frames), page numbers, and blocks (stored bytes, frames, hash).

    Raises:
        Damaged: there are not so many.
    """
    transactions = TRANSACTION.iter_unpack(columns.take(counts.transactions * TRANSACTION.size))
    pgnos = numbers_of(columns.take(counts.frames * PGNO.size))
    return transactions, pgnos, list(BLOCK.iter_unpack(columns.take(counts.blocks * BLOCK.size)))


def read_compact(  # noqa: PLR0913 - what the columns are put together with
    columns: Reader, counts: Counts, header: SegmentHeader, *, checksums: list[int], hashes: list[int], what: str
) -> Columns:
    """Return the same from integers of variable length, and from hashes that stood elsewhere.

    Raises:
        Damaged: there are not so many, or a number is too large.
    """
    times = list(accumulate(columns.varints(counts.transactions)))
    pages = columns.sums(counts.transactions, before=header.pages_before)
    frames = columns.varints(counts.transactions)
    pgnos = numbers_in(columns.sums(counts.frames, before=0), "page numbers", what)
    blocks = columns.varints(2 * counts.blocks)
    return (
        zip(times, checksums, pages, frames, strict=True),
        pgnos,
        list(zip(blocks[::2], blocks[1::2], hashes, strict=True)),
    )


def read_hashes(reader: Reader, count: int) -> list[int]:
    """Return the next hashes.

    Raises:
        Damaged: there are not so many.
    """
    stored = reader.take(count * HASH_BYTES)
    return [int.from_bytes(stored[at : at + HASH_BYTES], "little") for at in range(0, len(stored), HASH_BYTES)]


def numbers_in(numbers: list[int], where: str, what: str) -> array[int]:
    """Return the numbers as an array of 32 bits each.

    Raises:
        Damaged: one does not fit.
    """
    try:
        return array("I", numbers)
    except OverflowError as error:
        found = f"{min(numbers)} to {max(numbers)}"
        raise Damaged(what=what, where=where, expected="numbers of 32 bits", found=found) from error
