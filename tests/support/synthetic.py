"""A history of a given size in a folder, without a database: for what has to be large and soon made."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import ManifestKey, SegmentKey, start_key
from replicad.ownership.records import EpochStart, encode_record
from replicad.position import NO_WAL, TXID, Epoch, lock_page
from replicad.segment import SegmentEncoder, SegmentHeader
from replicad.snapshot import Chunk, Manifest, chunk_name, compress_chunk, encode_manifest
from replicad.wal.pagetable import PageTable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
T0_MS = 1_763_690_400_000
_RANDOM_BYTES = 4 * MIB


@dataclass
class Synthetic:
    """Pages that compress to about a half, in a snapshot of 1 MiB chunks and segments behind it.

    Args:
        root: the folder; what a directory store opened on it finds.
        database_bytes: size of the database.
        page_size: in bytes.
        filled_pages: pages that are not zeros; None for all.
    """

    root: Path
    database_bytes: int
    page_size: int = 4096
    filled_pages: frozenset[int] | None = None

    def __post_init__(self) -> None:
        """Make what pages are cut from."""
        self.pages = self.database_bytes // self.page_size
        self.checksum = 0
        self.txid = 1
        self._dice = random.Random(1)
        self._random = self._dice.randbytes(_RANDOM_BYTES)
        self._table = PageTable(self.page_size)
        self._lock_page = lock_page(self.page_size)

    def page(self, pgno: int, version: int) -> bytes:
        """Return the image of a page after a transaction."""
        if version == 1 and self.filled_pages is not None and pgno not in self.filled_pages:
            return bytes(self.page_size)
        begin = (pgno * 7919 + version * 104_729) % (_RANDOM_BYTES - self.page_size)
        half = self.page_size // 2
        head = pgno.to_bytes(4, "big") + version.to_bytes(4, "big")
        return head + self._random[begin : begin + half - 8] + bytes(self.page_size - half)

    def begin(self) -> None:
        """Store the start of epoch 1, and a snapshot of transaction 1."""
        start = EpochStart(
            database_id="synthetic",
            epoch=1,
            parent_epoch=0,
            parent_txid=0,
            checksum="0" * 16,
            pages=0,
            started_ms=T0_MS,
        )
        self._put(start_key(Epoch(1)), encode_record(start))
        chunks = tuple(self._chunks())
        self.checksum = self._table.commit(self.pages)
        manifest = Manifest(
            database_id="synthetic",
            epoch=1,
            txid=1,
            commit_ms=T0_MS,
            page_size=self.page_size,
            pages=self.pages,
            checksum=f"{self.checksum:016x}",
            chunk_pages=MIB // self.page_size,
            created_ms=T0_MS,
            reason="test",
            chunks=chunks,
        )
        self._put(str(ManifestKey(epoch=Epoch(1), txid=TXID(1), ms=T0_MS)), encode_manifest(manifest))

    def append(self, transactions: int, pages_each: int, pgnos: list[int] | None = None) -> None:
        """Store a segment of transactions that change pages chosen at random, or those named."""
        header = SegmentHeader(
            database_id="synthetic",
            epoch=Epoch(1),
            page_size=self.page_size,
            first_txid=TXID(self.txid + 1),
            checksum_before=self.checksum,
            pages_before=self.pages,
        )
        encoder = SegmentEncoder(header)
        output = []
        for _ in range(transactions):
            self.txid += 1
            numbers = pgnos or sorted(self._dice.sample(range(1, self.pages + 1), pages_each))
            numbers = [pgno for pgno in numbers if pgno != self._lock_page]
            images = [self.page(pgno, self.txid) for pgno in numbers]
            self._table.write(numbers, images)
            self.checksum = self._table.commit(self.pages)
            encoder.add_pages(numbers, images)
            encoder.commit(commit_ms=T0_MS + self.txid, pages=self.pages, checksum=self.checksum)
            output += encoder.take()
        output += encoder.finish(NO_WAL)
        key = SegmentKey(epoch=Epoch(1), first=header.first_txid, last=TXID(self.txid), last_ms=T0_MS + self.txid)
        self._put(str(key), b"".join(output))

    def _chunks(self) -> Iterator[Chunk]:
        each = MIB // self.page_size
        for first in range(1, self.pages + 1, each):
            numbers = range(first, min(first + each, self.pages + 1))
            # What stands in the lock page of a file is nobody's business: not even zeros are promised.
            images = [self.page(pgno, 1) if pgno != self._lock_page else b"L" * self.page_size for pgno in numbers]
            hashed = [(pgno, image) for pgno, image in zip(numbers, images, strict=True) if pgno != self._lock_page]
            self._table.write([pgno for pgno, _ in hashed], [image for _, image in hashed])
            raw = b"".join(images)
            stored = compress_chunk(raw, level=1)
            chunk = Chunk(name=chunk_name(raw), epoch=1, stored_bytes=len(stored), raw_bytes=len(raw))
            self._put(chunk.key, stored)
            yield chunk

    def _put(self, key: str, body: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
