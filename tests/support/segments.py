"""Segments for tests: what to write in plain values, and a second writer of the format that can lie.

`Compact` (and `Forged`, for version 1) is written from docs/format.md, not from the package: it proves the encoder, and
makes objects whose hashes are right and whose numbers are not.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xxhash
import zstandard

from replicad.position import NO_WAL, TXID, Epoch, WALPosition
from replicad.segment import SegmentEncoder, SegmentHeader

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A transaction to be written: its pages are (pgno, image)."""

    commit_ms: int
    pages: int
    checksum: int
    images: tuple[tuple[int, bytes], ...]


def header(**fields: int) -> SegmentHeader:
    """Return a header of a small segment; any numeric field can be given."""
    return SegmentHeader(
        database_id="0f1e2d3c",
        epoch=Epoch(fields.get("epoch", 3)),
        page_size=fields.get("page_size", 512),
        first_txid=TXID(fields.get("first_txid", 1000)),
        checksum_before=fields.get("checksum_before", 0x0123456789ABCDEF),
        pages_before=fields.get("pages_before", 7),
    )


def page(fill: int, page_size: int = 512) -> bytes:
    """Return a page image that is told apart by `fill`."""
    return fill.to_bytes(8, "big") * (page_size // 8)


def written(number: int, *, pgnos: Sequence[int], page_size: int = 512) -> Written:
    """Return a transaction whose content follows from its number."""
    return Written(
        commit_ms=1_700_000_000_000 + number,
        pages=100 + number,
        checksum=0xFEDCBA9876543210 - number,
        images=tuple((pgno, page(number * 1000 + pgno, page_size)) for pgno in pgnos),
    )


THREE = (written(0, pgnos=[1, 2, 1]), written(1, pgnos=[]), written(2, pgnos=[5, 2**32 - 2]))
"""Three transactions: a page written twice, no page at all, the highest page number."""


def encode(
    head: SegmentHeader,
    transactions: Sequence[Written],
    *,
    block_bytes: int = 4 << 20,
    wal_end: WALPosition = NO_WAL,
    references: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """Return the whole object that the encoder makes."""
    encoder = SegmentEncoder(head, block_bytes=block_bytes)
    output: list[bytes] = []
    for transaction in transactions:
        encoder.add_pages([pgno for pgno, _ in transaction.images], [image for _, image in transaction.images])
        encoder.commit(commit_ms=transaction.commit_ms, pages=transaction.pages, checksum=transaction.checksum)
        output += encoder.take()
    if references:
        encoder.refer([pgno for pgno, _ in references], [image for _, image in references])
    output += encoder.finish(wal_end)
    return b"".join(output)


def pack(raw: bytes) -> bytes:
    """Return a zstd frame that names its content size."""
    return zstandard.ZstdCompressor(level=1).compress(raw)


@dataclass(kw_only=True)
class Forged:
    """The parts of a segment of version 1; change any, and `build` seals them with hashes that fit."""

    header: dict[str, object] = field(
        default_factory=lambda: {
            "database_id": "0f1e2d3c",
            "epoch": 3,
            "page_size": 512,
            "first_txid": 1000,
            "checksum_before": "0123456789abcdef",
            "pages_before": 7,
        }
    )
    header_json: bytes | None = None
    head: dict[str, int | bytes] = field(default_factory=dict)  # magic, version, length
    transactions: list[tuple[int, int, int, int]]  # commit_ms, checksum, pages, frames
    pgnos: list[int]
    blocks: list[tuple[bytes, int]]  # raw, frames
    block_records: list[tuple[int, int, int]] | None = None  # stored bytes, frames, hash
    index: bytes | None = None  # as stored
    trailer: dict[str, int | bytes] = field(default_factory=dict)

    def build(self) -> bytes:
        """Return the object."""
        document = self.header_json or (json.dumps(self.header, separators=(",", ":")) + "\n").encode()
        head: dict[str, int | bytes] = {"magic": b"\x89RPDSEG\n", "version": 1, "length": len(document)}
        head |= self.head
        front = struct.pack("<8sII", *head.values()) + document
        index = self.index if self.index is not None else pack(self.raw_index())
        return self._seal(front, b"".join(pack(raw) for raw, _ in self.blocks), index)

    def raw_index(self) -> bytes:
        """Return the index before it is packed."""
        return b"".join(
            (
                *(struct.pack("<QQII", *record) for record in self.transactions),
                *(struct.pack("<I", pgno) for pgno in self.pgnos),
                *(struct.pack("<IIQ", *record) for record in self._records()),
            )
        )

    def _records(self) -> list[tuple[int, int, int]]:
        if self.block_records is not None:
            return self.block_records
        stored = [(pack(raw), frames) for raw, frames in self.blocks]
        return [(len(block), frames, xxhash.xxh3_64_intdigest(block)) for block, frames in stored]

    def _seal(self, front: bytes, blocks: bytes, index: bytes) -> bytes:
        fields: dict[str, int | bytes] = {
            "data_offset": len(front),
            "index_offset": len(front) + len(blocks),
            "index_bytes": len(index),
            "frames": len(self.pgnos),
            "blocks": len(self._records()),
            "flags": 0,
            "first_txid": 1000,
            "last_txid": 999 + len(self.transactions),
            "checksum_before": 0x0123456789ABCDEF,
            "checksum_after": self.transactions[-1][1] if self.transactions else 0,
            "salts": bytes(8),
            "wal_frame": 0,
            "frame_checksum": bytes(8),
            "head_hash": xxhash.xxh3_64_intdigest(front),
            "index_hash": xxhash.xxh3_64_intdigest(index),
        }
        ends: dict[str, int | bytes] = {"version": 1, "trailer_bytes": 152, "magic": b"RPDTAIL\n"}
        fields |= {name: value for name, value in self.trailer.items() if name in fields}
        ends |= {name: value for name, value in self.trailer.items() if name in ends}
        body = front + blocks + index + struct.pack("<QQQQIIQQQQ8sQ8sQQ", *fields.values())
        body += xxhash.xxh3_128_digest(body)
        body += struct.pack("<Q", xxhash.xxh3_64_intdigest(body[-128:]))
        return body + struct.pack("<II8s", *ends.values())


def forged() -> Forged:
    """Return the parts of what version 1 made of `header(), THREE, block_bytes=1024`: three blocks."""
    frames = [frame for transaction in THREE for frame in transaction.images]
    raw = [b"".join(image for _, image in frames[start : start + 2]) for start in range(0, len(frames), 2)]
    return Forged(
        transactions=[(one.commit_ms, one.checksum, one.pages, len(one.images)) for one in THREE],
        pgnos=[pgno for pgno, _ in frames],
        blocks=[(piece, len(piece) // 512) for piece in raw],
    )


def varint(number: int) -> bytes:
    """Return a number in seven bits a byte, the lowest first."""
    output = b""
    while number >= 128:
        output += bytes([number % 128 + 128])
        number //= 128
    return output + bytes([number])


def fold(number: int) -> int:
    """Return 0, -1, 1, -2 as 0, 1, 2, 3."""
    return 2 * number if number >= 0 else -2 * number - 1


def _steps(numbers: Sequence[int], start: int = 0) -> list[int]:
    return [fold(now - before) for before, now in zip((start, *numbers), numbers, strict=False)]


@dataclass(kw_only=True)
class Compact:
    """The parts of a segment; change any, and `build` seals them with hashes that fit. Columns are never packed."""

    header: list[int | bytes] = field(
        default_factory=lambda: [8, b"0f1e2d3c", 3, 9, 1000, bytes.fromhex("efcdab8967452301"), 7]
    )
    head: dict[str, int | bytes] = field(default_factory=dict)  # magic, version, length
    wal: list[int | bytes] = field(default_factory=list)  # salts, frame, checksum
    counts: dict[str, int] = field(default_factory=dict)  # transactions, frames, blocks, references
    references: list[int] = field(default_factory=list)
    reference_hash: bytes = b""
    transactions: list[tuple[int, int, int, int]]  # commit_ms, checksum, pages, frames
    pgnos: list[int]
    blocks: list[tuple[bytes, int]]  # stored, frames
    hashes: bytes | None = None
    columns: list[int] | None = None
    wide: bool = False
    trailer: dict[str, int | bytes] = field(default_factory=dict)

    def build(self) -> bytes:
        """Return the object."""
        document = _bytes(self.header)
        head: dict[str, int | bytes] = {"magic": b"\x89RPDSEG\n", "version": 2, "length": len(document)}
        front = struct.pack("<8sII", *(head | self.head).values()) + document
        columns = self.raw_columns()
        index = self._front() + (b"" if self.wide else self._hashes()) + columns
        return self._seal(front, b"".join(stored for stored, _ in self.blocks), index, columns)

    def raw_columns(self) -> bytes:
        """Return the columns."""
        if self.wide:
            return b"".join(
                (
                    *(struct.pack("<QQII", *record) for record in self.transactions),
                    *(struct.pack("<I", pgno) for pgno in self.pgnos),
                    *(
                        struct.pack("<IIQ", len(stored), frames, xxhash.xxh3_64_intdigest(stored))
                        for stored, frames in self.blocks
                    ),
                )
            )
        return _bytes(self.columns if self.columns is not None else self.plain_columns())

    def plain_columns(self) -> list[int]:
        """Return the numbers of the columns."""
        times = [record[0] for record in self.transactions]
        return [
            *(now - before for before, now in zip((0, *times), times, strict=False)),
            *_steps([record[2] for record in self.transactions], start=7),
            *(record[3] for record in self.transactions),
            *_steps(self.pgnos),
            *(number for stored, frames in self.blocks for number in (len(stored), frames)),
        ]

    def _front(self) -> bytes:
        counts = {
            "transactions": len(self.transactions),
            "frames": len(self.pgnos),
            "blocks": len(self.blocks),
            "references": len(self.references),
        }
        return _bytes([*self.wal, *(counts | self.counts).values(), self.reference_hash, *_steps(self.references)])

    def _hashes(self) -> bytes:
        if self.hashes is not None:
            return self.hashes
        checksums = b"".join(struct.pack("<Q", record[1]) for record in self.transactions)
        return checksums + b"".join(struct.pack("<Q", xxhash.xxh3_64_intdigest(stored)) for stored, _ in self.blocks)

    def _seal(self, front: bytes, blocks: bytes, index: bytes, columns: bytes) -> bytes:
        fields: dict[str, int | bytes] = {
            "data_offset": len(front),
            "flags": (1 if self.wal else 0) + (2 if self.wide else 0),
            "index_bytes": len(index),
            "column_bytes": len(columns),
            "seal": xxhash.xxh3_64_intdigest(front + index),
        }
        ends: dict[str, int | bytes] = {"version": 2, "trailer_bytes": 44, "magic": b"RPDTAIL\n"}
        fields |= {name: value for name, value in self.trailer.items() if name in fields}
        ends |= {name: value for name, value in self.trailer.items() if name in ends}
        trailer = struct.pack("<HHIIQ", *fields.values())
        trailer += struct.pack("<Q", self.trailer.get("hash", xxhash.xxh3_64_intdigest(trailer)))
        return front + blocks + index + trailer + struct.pack("<II8s", *ends.values())


def _bytes(parts: Sequence[int | bytes]) -> bytes:
    return b"".join(varint(part) if isinstance(part, int) else part for part in parts)


def compact() -> Compact:
    """Return the parts of what `encode(header(), THREE, block_bytes=1024)` gives: three blocks."""
    old = forged()
    return Compact(
        transactions=old.transactions,
        pgnos=old.pgnos,
        blocks=[(pack(raw), frames) for raw, frames in old.blocks],
    )


OLDER = ((7, page(1)), (2, page(5000)))
"""Pages that a segment refers to."""


def referring() -> Compact:
    """Return the parts of a segment that refers to OLDER, in one block; its page 2 is nearly what it was."""
    older = b"".join(image for _, image in OLDER)
    raw = page(5000)[:-1] + b"x"
    known = zstandard.ZstdCompressionDict(older, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    stored = zstandard.ZstdCompressor(level=3, dict_data=known, write_dict_id=False).compress(raw)
    return Compact(
        references=[pgno for pgno, _ in OLDER],
        reference_hash=struct.pack("<Q", xxhash.xxh3_64_intdigest(older)),
        transactions=[(1_700_000_000_000, 77, 7, 1)],
        pgnos=[2],
        blocks=[(stored, 1)],
    )
