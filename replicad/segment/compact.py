"""Index and trailer of version 2: what a small segment costs beside its pages is what it has to say, and little more.

The index begins with a front: the place in the WAL, how many there are of everything, and the references. In small
segments the hashes follow, which no compressor makes smaller, and then the columns; in others the columns alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from replicad import zstd
from replicad.document import MAX_TXID
from replicad.errors import Damaged
from replicad.position import NO_WAL, WALPosition, lock_page
from replicad.segment.columns import (
    HASH_BYTES,
    Columns,
    Contents,
    Counts,
    compact_columns,
    hashes_of,
    numbers_in,
    read_compact,
    read_hashes,
    read_wide,
    wide_columns,
)
from replicad.segment.form import (
    BLOCK,
    FLAG_PACKED,
    FLAG_WAL,
    FLAG_WIDE,
    HEAD,
    MAX_BLOCKS,
    MAX_COMPACT,
    MAX_COMPACT_BYTES,
    MAX_FRAMES,
    MAX_REFERENCE_BYTES,
    MAX_REFERENCES,
    MAX_REFERRING_BYTES,
    MAX_TRANSACTIONS,
    PGNO,
    TRAILER,
    TRAILER_MAGIC,
    TRANSACTION,
    VERSION,
)
from replicad.segment.index import SegmentIndex, blocks_of, check_index, transactions_of
from replicad.segment.varint import Reader, differences, write_varints

if TYPE_CHECKING:
    from array import array

    from replicad.segment.header import SegmentHeader

_SALTS_BYTES = 8
_COMPACT_MOST = 512  # transactions, and frames, up to which the columns are integers of variable length
_COMPACT_LEVEL = 3  # of zstd, for these
_HASHED_BYTES = 20  # of the trailer, before its own hash
_MAX_RAW_BYTES = MAX_TRANSACTIONS * TRANSACTION.size + MAX_FRAMES * PGNO.size + MAX_BLOCKS * BLOCK.size
_FLAGS = FLAG_WAL | FLAG_WIDE | FLAG_PACKED


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactTrailer:
    """Fields of the trailer; offsets and sizes in bytes of the object."""

    data_offset: int  # of the first block; the head is all before it
    index_offset: int  # the blocks end here
    index_bytes: int  # as stored
    raw_column_bytes: int  # unpacked
    flags: int
    seal: int  # xxh3_64 of the head and the stored index


def check_wal_position(position: WALPosition) -> None:
    """Refuse a WAL position that has no stored form.

    Raises:
        ValueError: a length is wrong, or the parts contradict one another.
    """
    salts, checksum = len(position.salts), len(position.frame_checksum)
    known = (salts, checksum, position.frame > 0) in {(0, 0, False), (8, 0, False), (8, 8, True)}
    if not known or not 0 <= position.frame < 1 << 64:
        raise ValueError(f"no such place in a WAL: {position}")


def encode_end(head: bytes, contents: Contents, *, level: int) -> bytes:
    """Return index and trailer; `head` is the segment's."""
    transactions, frames = len(contents.transactions) // TRANSACTION.size, len(contents.pgnos)
    compact = max(transactions, frames) <= _COMPACT_MOST
    plain, columns = _front(contents), compact_columns(contents) if compact else wide_columns(contents)
    if compact:
        plain += hashes_of(contents)
    flags = (FLAG_WAL if contents.wal_end.salts else 0) | (0 if compact else FLAG_WIDE)
    packed = zstd.compress(columns, _COMPACT_LEVEL if compact else level)
    if len(packed) < len(columns):
        flags |= FLAG_PACKED
    stored = bytes(plain) + (packed if flags & FLAG_PACKED else columns)
    seal = _seal(head, stored)
    trailer = TRAILER.pack(len(head), flags, len(stored), len(columns), seal, 0, VERSION, TRAILER.size, TRAILER_MAGIC)
    digest = xxhash.xxh3_64_intdigest(trailer[:_HASHED_BYTES]).to_bytes(HASH_BYTES, "little")
    return stored + trailer[:_HASHED_BYTES] + digest + trailer[_HASHED_BYTES + HASH_BYTES :]


def _seal(head: bytes, index: bytes) -> int:
    digest = xxhash.xxh3_64(head)
    digest.update(index)
    return digest.intdigest()


def read_compact_trailer(packed: bytes, *, object_bytes: int, what: str) -> CompactTrailer:
    """Return the trailer, whose last fields were looked at, of an object of `object_bytes`.

    Raises:
        Damaged: the bytes are not the end of a segment of that size.
    """
    data_offset, flags, index_bytes, raw_column_bytes, seal, digest, *_ = TRAILER.unpack(packed)
    found = xxhash.xxh3_64_intdigest(packed[:_HASHED_BYTES])
    if found != digest:
        raise Damaged(what=what, where="hash of the trailer", expected=f"{found:016x}", found=f"{digest:016x}")
    index_offset = object_bytes - TRAILER.size - index_bytes
    if not HEAD.size <= data_offset <= index_offset:
        expected = f"{HEAD.size} to {index_offset}"
        raise Damaged(what=what, where="offset of the blocks", expected=expected, found=data_offset)
    if flags & ~_FLAGS:
        raise Damaged(what=what, where="flags", expected=f"some of {_FLAGS}", found=flags)
    most = _MAX_RAW_BYTES if flags & FLAG_WIDE else MAX_COMPACT_BYTES
    if raw_column_bytes > most:
        expected = f"at most {most}"
        raise Damaged(what=what, where="unpacked size of the columns", expected=expected, found=raw_column_bytes)
    return CompactTrailer(
        data_offset=data_offset,
        index_offset=index_offset,
        index_bytes=index_bytes,
        raw_column_bytes=raw_column_bytes,
        flags=flags,
        seal=seal,
    )


def read_compact_index(
    head: bytes, stored: bytes, header: SegmentHeader, trailer: CompactTrailer, *, what: str
) -> SegmentIndex:
    """Return the index; `head` is all of the segment's, `header` what stands in it.

    Raises:
        Damaged: a hash is another, or a number contradicts the others, the header or the trailer.
    """
    found = _seal(head, stored)
    if found != trailer.seal:
        where = "hash of the head and the index"
        raise Damaged(what=what, where=where, expected=f"{trailer.seal:016x}", found=f"{found:016x}")
    reader = Reader(stored, what=what, where="index")
    wal_end = _read_wal_end(reader) if trailer.flags & FLAG_WAL else NO_WAL
    counts = Counts(*reader.varints(4))
    _check_counts(counts, header, what, wide=bool(trailer.flags & FLAG_WIDE))
    reference_hash = int.from_bytes(reader.take(HASH_BYTES), "little") if counts.references else 0
    references = numbers_in(reader.sums(counts.references, before=0), "references", what)
    _check_references(references, header, what)
    transactions, pgnos, blocks = _read_columns(reader, counts, header, trailer, what)
    index = SegmentIndex(
        header=header,
        transactions=transactions_of(transactions, header.first_txid),
        pgnos=pgnos,
        blocks=blocks_of(blocks, trailer.data_offset),
        wal_end=wal_end,
        references=references,
        reference_hash=reference_hash,
    )
    check_index(index, frames=counts.frames, data_bytes=trailer.index_offset - trailer.data_offset, what=what)
    return index


def _front(contents: Contents) -> bytearray:
    front = bytearray(contents.wal_end.salts)
    if front:
        write_varints(front, (contents.wal_end.frame,))
        front += contents.wal_end.frame_checksum
    write_varints(
        front,
        (
            len(contents.transactions) // TRANSACTION.size,
            len(contents.pgnos),
            len(contents.blocks) // BLOCK.size,
            len(contents.references),
        ),
    )
    if contents.references:
        front += contents.reference_hash.to_bytes(HASH_BYTES, "little")
        write_varints(front, differences(contents.references, before=0))
    return front


def _read_wal_end(reader: Reader) -> WALPosition:
    salts, frame = bytes(reader.take(_SALTS_BYTES)), reader.varint()
    return WALPosition(salts=salts, frame=frame, frame_checksum=bytes(reader.take(HASH_BYTES)) if frame else b"")


def _read_columns(reader: Reader, counts: Counts, header: SegmentHeader, trailer: CompactTrailer, what: str) -> Columns:
    wide = trailer.flags & FLAG_WIDE
    checksums = [] if wide else read_hashes(reader, counts.transactions)
    hashes = [] if wide else read_hashes(reader, counts.blocks)
    rest: bytes | memoryview = reader.rest()
    if trailer.flags & FLAG_PACKED:
        rest = zstd.decompress(rest, raw_bytes=trailer.raw_column_bytes, what=what, where="index")
    if len(rest) != trailer.raw_column_bytes:
        raise Damaged(what=what, where="columns", expected=f"{trailer.raw_column_bytes} bytes", found=len(rest))
    columns = Reader(rest, what=what, where="columns of the index")
    if wide:
        found = read_wide(columns, counts)
    else:
        found = read_compact(columns, counts, header, checksums=checksums, hashes=hashes, what=what)
    columns.end()
    return found


def _check_counts(counts: Counts, header: SegmentHeader, what: str, *, wide: bool) -> None:
    """No count is larger than a reader can keep in memory."""
    refers = counts.references > 0
    transactions, frames = (MAX_TRANSACTIONS, MAX_FRAMES) if wide else (MAX_COMPACT, MAX_COMPACT)
    if refers:
        frames = min(frames, MAX_REFERRING_BYTES // header.page_size)
    for where, count, least, most in (
        ("number of transactions", counts.transactions, 1, min(transactions, MAX_TXID + 1 - header.first_txid)),
        ("number of frames", counts.frames, 0, frames),
        ("number of blocks", counts.blocks, int(refers), 1 if refers else min(MAX_BLOCKS, counts.frames)),
        ("number of references", counts.references, 0, most_references(header.page_size)),
    ):
        if not least <= count <= most:
            raise Damaged(what=what, where=where, expected=f"{least} to {most}", found=count)


def most_references(page_size: int) -> int:
    """Return how many pages a segment may refer to."""
    return min(MAX_REFERENCES, MAX_REFERENCE_BYTES // page_size)


def _check_references(references: array[int], header: SegmentHeader, what: str) -> None:
    lock = lock_page(header.page_size)
    bad = [pgno for pgno in references if not 1 <= pgno <= header.pages_before or pgno == lock]
    if bad or len(set(references)) != len(references):
        expected = f"different pages from 1 to {header.pages_before} without the lock page"
        raise Damaged(what=what, where="references", expected=expected, found=list(references))
