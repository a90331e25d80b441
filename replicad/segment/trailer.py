"""The end of a segment of version 1: where everything is, what it covers, and the hashes that prove it."""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from replicad.document import MAX_TXID
from replicad.errors import Damaged
from replicad.position import NO_WAL, TXID, WALPosition
from replicad.segment.form import (
    BLOCK,
    FLAG_WAL,
    HEAD,
    MAX_BLOCKS,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    MAX_TRANSACTIONS,
    PGNO,
    TRAILER_1,
    TRAILER_BYTES,
    TRAILER_HASH_OFFSET,
    TRANSACTION,
)

_ZEROS = bytes(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """Fields of the trailer; offsets and sizes in bytes of the object."""

    data_offset: int  # of the first block; the head is all before it
    index_offset: int  # the blocks end here
    index_bytes: int  # as stored
    frames: int
    blocks: int
    first_txid: TXID
    last_txid: TXID
    checksum_before: int
    checksum_after: int
    wal_end: WALPosition
    head_hash: int  # xxh3_64
    index_hash: int  # xxh3_64 of the stored index
    object_hash: bytes = b""  # xxh3_128 of all before it, 16 bytes; empty until it is known

    @property
    def transactions(self) -> int:
        """How many transactions the segment holds."""
        return self.last_txid - self.first_txid + 1

    @property
    def raw_index_bytes(self) -> int:
        """Size of the index when unpacked."""
        return self.transactions * TRANSACTION.size + self.frames * PGNO.size + self.blocks * BLOCK.size


def read_trailer(packed: bytes, *, object_bytes: int, what: str) -> Trailer:
    """Return the trailer, whose last fields were looked at, of an object of `object_bytes`.

    Raises:
        Damaged: the bytes are not the end of a segment of that size.
    """
    fields = TRAILER_1.unpack(packed)
    _check_hash(packed, fields[-4], what)
    trailer = Trailer(
        data_offset=fields[0],
        index_offset=fields[1],
        index_bytes=fields[2],
        frames=fields[3],
        blocks=fields[4],
        first_txid=TXID(fields[6]),
        last_txid=TXID(fields[7]),
        checksum_before=fields[8],
        checksum_after=fields[9],
        wal_end=_wal_end(fields[5], fields[10], fields[11], fields[12], what),
        head_hash=fields[13],
        index_hash=fields[14],
        object_hash=fields[15],
    )
    _check_places(trailer, object_bytes, what)
    _check_counts(trailer, what)
    return trailer


def _check_hash(packed: bytes, trailer_hash: int, what: str) -> None:
    expected_hash = xxhash.xxh3_64_intdigest(packed[:TRAILER_HASH_OFFSET])
    if trailer_hash != expected_hash:
        expected = f"{expected_hash:016x}"
        raise Damaged(what=what, where="hash of the trailer", expected=expected, found=f"{trailer_hash:016x}")


def _wal_end(flags: int, salts: bytes, frame: int, frame_checksum: bytes, what: str) -> WALPosition:
    if flags == FLAG_WAL and frame:
        return WALPosition(salts=salts, frame=frame, frame_checksum=frame_checksum)
    if flags == FLAG_WAL and frame_checksum == _ZEROS:
        return WALPosition(salts=salts, frame=0, frame_checksum=b"")
    if (flags, salts, frame, frame_checksum) == (0, _ZEROS, 0, _ZEROS):
        return NO_WAL
    found = f"flags {flags}, salts {salts.hex()}, frame {frame}, checksum {frame_checksum.hex()}"
    raise Damaged(what=what, where="WAL position", expected=f"flags {FLAG_WAL}, or zeros", found=found)


def _check_places(trailer: Trailer, object_bytes: int, what: str) -> None:
    """Every part lies behind the one before it, inside the object."""
    header_bytes = trailer.data_offset - HEAD.size
    if not 0 <= header_bytes <= MAX_HEADER_BYTES:
        expected = f"{HEAD.size} to {HEAD.size + MAX_HEADER_BYTES}"
        raise Damaged(what=what, where="offset of the blocks", expected=expected, found=trailer.data_offset)
    if trailer.index_offset < trailer.data_offset:
        expected = f"at least {trailer.data_offset}"
        raise Damaged(what=what, where="offset of the index", expected=expected, found=trailer.index_offset)
    size = trailer.index_offset + trailer.index_bytes + TRAILER_BYTES
    if size != object_bytes:
        raise Damaged(what=what, where="size", expected=f"{size} bytes", found=f"{object_bytes} bytes")


def _check_counts(trailer: Trailer, what: str) -> None:
    """No count is larger than a reader can keep in memory."""
    if not 1 <= trailer.first_txid <= trailer.last_txid <= MAX_TXID:
        txids = f"{trailer.first_txid} to {trailer.last_txid}"
        raise Damaged(what=what, where="TXIDs", expected="from 1, first to last", found=txids)
    limits: tuple[tuple[str, int, int], ...] = (
        ("number of transactions", trailer.transactions, MAX_TRANSACTIONS),
        ("number of frames", trailer.frames, MAX_FRAMES),
        ("number of blocks", trailer.blocks, min(MAX_BLOCKS, trailer.frames)),
    )
    for where, count, most in limits:
        if count > most:
            raise Damaged(what=what, where=where, expected=f"at most {most}", found=count)
