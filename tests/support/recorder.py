"""A real database whose every transaction is written down, and stored as replicad stores it.

What capture does from outside is done here the simple way: after each transaction the new frames are taken from the
WAL file, and SQLite itself says what the whole database looks like now (`serialize`). That image is the oracle of
a restore.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import apsw

from replicad.layout import ManifestKey, SegmentKey, end_key, start_key
from replicad.ownership.records import EpochEnd, EpochStart, encode_record
from replicad.position import NO_WAL, TXID, Epoch
from replicad.segment import MAX_REFERRING_BYTES, SegmentEncoder, SegmentHeader, most_references
from replicad.snapshot import Chunk, Manifest, compress_chunk, encode_manifest
from replicad.store.database import chunk_names
from replicad.wal.pagetable import PageTable

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.store.protocol import ObjectStore

DATABASE_ID = "0f1e2d3c"
T0_MS = 1_763_690_400_000  # 2025-11-21T02:00:00Z
STEP_MS = 60_000  # between two transactions

_WAL_HEADER_BYTES = 32
_FRAME_HEADER = struct.Struct(">IIII II")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One transaction, as it was seen, and all of the database after it."""

    txid: int
    ms: int
    pgnos: list[int]
    images: list[bytes]
    pages: int
    checksum: int
    database: bytes


@dataclass
class Recorder:
    """One epoch of a database, transaction by transaction.

    Transaction 1 is whatever the database holds when the recorder is made; the others are `commit`ted.
    """

    path: Path
    page_size: int = 4096
    epoch: int = 1
    transactions: dict[int, Recorded] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # a name for the test -> key

    def __post_init__(self) -> None:
        """Open the database and take its first state."""
        self._connection = apsw.Connection(str(self.path))
        self._connection.pragma("page_size", self.page_size)
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("wal_autocheckpoint", 0)
        self._consumed = self._frames_in_wal()
        self._table = PageTable(self.page_size)
        if not self.transactions:
            self._connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)")
            self._consumed = self._frames_in_wal()
            self._record(1, [], [])

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def newest(self) -> int:
        """The last transaction."""
        return max(self.transactions)

    def commit(self, *statements: str) -> int:
        """Run the statements as one transaction; return its TXID."""
        outside = any(word in statements[0].upper() for word in ("VACUUM",))
        if outside:
            self._connection.execute(statements[0])
        else:
            with self._connection:
                for statement in statements:
                    self._connection.execute(statement)
        txid = self.newest + 1
        pgnos, images = self._new_frames()
        self._record(txid, pgnos, images)
        return txid

    def fill(self, rows: int, *, row_bytes: int = 1000) -> int:
        """Insert rows that do not compress, as one transaction; return its TXID."""
        return self.commit(
            "INSERT INTO t (body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT "
            f"{rows}) SELECT randomblob({row_bytes}) FROM n"
        )

    def fork(self, path: Path, txid: int, *, epoch: int) -> Recorder:
        """Return a recorder of a later epoch that continues from one of this one's transactions."""
        path.write_bytes(self.transactions[txid].database)
        before = {number: found for number, found in self.transactions.items() if number <= txid}
        forked = Recorder(path=path, page_size=self.page_size, epoch=epoch, transactions=before)
        forked._record(txid, [], [], remember=False)
        return forked

    # --- storing -------------------------------------------------------------------------------

    async def start(self, store: ObjectStore, *, parent: int = 0, txid: int = 0) -> None:
        """Store the epoch's start."""
        state = self.transactions.get(txid)
        record = EpochStart(
            database_id=DATABASE_ID,
            epoch=self.epoch,
            parent_epoch=parent,
            parent_txid=txid,
            checksum=f"{state.checksum if state else 0:016x}",
            pages=state.pages if state else 0,
            started_ms=T0_MS,
        )
        await store.put(start_key(Epoch(self.epoch)), encode_record(record))

    async def end(self, store: ObjectStore, txid: int) -> None:
        """Store the epoch's end."""
        state = self.transactions[txid]
        record = EpochEnd(
            epoch=self.epoch, txid=txid, checksum=f"{state.checksum:016x}", pages=state.pages, ended_ms=state.ms
        )
        await store.put(end_key(Epoch(self.epoch)), encode_record(record))

    async def segment(
        self, store: ObjectStore, first: int, last: int | None = None, *, block_bytes: int | None = None
    ) -> str:
        """Store the transactions `first` to `last` as one segment; return its key."""
        last = first if last is None else last
        key = SegmentKey(
            epoch=Epoch(self.epoch), first=TXID(first), last=TXID(last), last_ms=self.transactions[last].ms
        )
        await store.put(str(key), self.encode_segment(first, last, block_bytes=block_bytes))
        return str(key)

    def encode_segment(
        self,
        first: int,
        last: int,
        *,
        block_bytes: int | None = None,
        database_id: str = DATABASE_ID,
        epoch: int | None = None,
    ) -> bytes:
        """Return the transactions as a segment; it refers to older pages when it can and `block_bytes` is not given."""
        before = self.transactions[first - 1]
        pgnos = [pgno for txid in range(first, last + 1) for pgno in self.transactions[txid].pgnos]
        refers = block_bytes is None and 0 < len(pgnos) * self.page_size <= MAX_REFERRING_BYTES
        encoder = SegmentEncoder(
            SegmentHeader(
                database_id=database_id,
                epoch=Epoch(epoch or self.epoch),
                page_size=self.page_size,
                first_txid=TXID(first),
                checksum_before=before.checksum,
                pages_before=before.pages,
            ),
            block_bytes=MAX_REFERRING_BYTES if refers else block_bytes or 1 << 16,
        )
        for txid in range(first, last + 1):
            found = self.transactions[txid]
            encoder.add_pages(found.pgnos, found.images)
            encoder.commit(commit_ms=found.ms, pages=found.pages, checksum=found.checksum)
        if refers:
            others = range(first % 7 + 1, before.pages + 1, 7)  # some that it does not write
            known = [pgno for pgno in dict.fromkeys((*pgnos, *others)) if pgno <= before.pages]
            chosen = known[: most_references(self.page_size)]
            images = [before.database[(n - 1) * self.page_size : n * self.page_size] for n in chosen]
            encoder.refer(chosen, images)
        return b"".join(encoder.finish(NO_WAL))

    async def snapshot(self, store: ObjectStore, txid: int, *, chunk_pages: int = 16) -> str:
        """Store a snapshot of the state after a transaction; return the manifest's key."""
        found = self.transactions[txid]
        chunk_bytes = chunk_pages * self.page_size
        names = await chunk_names(store)
        chunks = []
        for offset in range(0, len(found.database), chunk_bytes):
            raw = found.database[offset : offset + chunk_bytes]
            stored = compress_chunk(raw)
            chunk = Chunk(name=names.name(raw), epoch=self.epoch, stored_bytes=len(stored), raw_bytes=len(raw))
            await store.put(chunk.key, stored)
            chunks.append(chunk)
        manifest = Manifest(
            database_id=DATABASE_ID,
            epoch=self.epoch,
            txid=txid,
            commit_ms=found.ms,
            page_size=self.page_size,
            pages=found.pages,
            checksum=f"{found.checksum:016x}",
            chunk_pages=chunk_pages,
            created_ms=found.ms,
            reason="test",
            chunks=tuple(chunks),
        )
        key = str(ManifestKey(epoch=Epoch(self.epoch), txid=TXID(txid), ms=found.ms))
        await store.put(key, encode_manifest(manifest))
        return key

    # --- looking at the database ---------------------------------------------------------------

    def _record(self, txid: int, pgnos: list[int], images: list[bytes], *, remember: bool = True) -> None:
        database = self._connection.serialize("main") or b""
        pages = len(database) // self.page_size
        if pgnos:
            self._table.write(pgnos, images)
        else:  # the first state: every page
            numbers = list(range(1, pages + 1))
            self._table.write(numbers, [database[(n - 1) * self.page_size : n * self.page_size] for n in numbers])
        checksum = self._table.commit(pages)
        if remember:
            ms = T0_MS + txid * STEP_MS
            self.transactions[txid] = Recorded(
                txid=txid, ms=ms, pgnos=pgnos, images=images, pages=pages, checksum=checksum, database=database
            )

    def _frames_in_wal(self) -> int:
        wal = self.path.with_name(self.path.name + "-wal")
        size = wal.stat().st_size if wal.exists() else 0
        return max(0, size - _WAL_HEADER_BYTES) // (self.page_size + _FRAME_HEADER.size)

    def _new_frames(self) -> tuple[list[int], list[bytes]]:
        """Return the frames of the transaction that was just committed (the WAL is never reset here)."""
        frame_bytes = self.page_size + _FRAME_HEADER.size
        raw = self.path.with_name(self.path.name + "-wal").read_bytes()[
            _WAL_HEADER_BYTES + self._consumed * frame_bytes :
        ]
        pgnos, images = [], []
        for offset in range(0, len(raw), frame_bytes):
            pgnos.append(_FRAME_HEADER.unpack_from(raw, offset)[0])
            images.append(raw[offset + _FRAME_HEADER.size : offset + frame_bytes])
        self._consumed += len(pgnos)
        return pgnos, images
