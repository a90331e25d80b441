"""What a replica holds, found out without the product's restore: every state of it, each proven.

The stored objects are decoded and applied one transaction after another, on a line of history that is followed here
once more from docs/format.md. The checksum is computed anew from the page images, and held against every one that is
recorded anywhere: before and after each transaction, in each manifest, in each start and end.
"""

from __future__ import annotations

import sqlite3
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from replicad.layout import parse_manifest, parse_segment
from replicad.ownership.records import decode_end, decode_start
from replicad.segment import decode, read_block
from replicad.snapshot import PLAIN_NAMES, ChunkNames, decode_manifest, decompress_chunk
from tests.support.writers import row_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from replicad.segment import SegmentIndex
    from replicad.snapshot import Manifest

LOCK_BYTE = 1 << 30


class Contradiction(AssertionError):
    """Two things that are stored cannot both be true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """An epoch's part of the line: its transactions behind `after`, up to `until` (None: to its end)."""

    epoch: int
    after: int
    until: int | None


class State:
    """A database image and its checksum, page by page."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.image = bytearray()
        self.checksum = 0
        self._hashes: list[int] = []
        self._lock_page = LOCK_BYTE // page_size + 1

    @property
    def pages(self) -> int:
        """Size in pages."""
        return len(self._hashes)

    def write(self, pgno: int, page: bytes) -> None:
        """Replace one page."""
        if pgno > self.pages:
            self.resize(pgno)
        at = (pgno - 1) * self.page_size
        self.image[at : at + self.page_size] = page
        new = xxhash.xxh3_64_intdigest(page, seed=pgno) if pgno != self._lock_page else 0
        self.checksum ^= self._hashes[pgno - 1] ^ new
        self._hashes[pgno - 1] = new

    def resize(self, pages: int) -> None:
        """Cut the image off behind `pages`, or let it grow by zeros."""
        for gone in self._hashes[pages:]:
            self.checksum ^= gone
        del self._hashes[pages:]
        grown = range(self.pages + 1, pages + 1)
        del self.image[pages * self.page_size :]
        self.image += bytes(self.page_size * len(grown))
        for pgno in grown:
            zeros = xxhash.xxh3_64_intdigest(bytes(self.page_size), seed=pgno) if pgno != self._lock_page else 0
            self._hashes.append(zeros)
            self.checksum ^= zeros


class StoredHistory:
    """All objects of one database, below its prefix."""

    def __init__(self, objects: Mapping[str, bytes], names: ChunkNames = PLAIN_NAMES) -> None:
        """Take the contents of all objects, by key; `names` is how the chunks are named."""
        self._objects = objects = unrolled(objects)
        self._names = names
        self.line = self._line()
        stretches = {stretch.epoch: stretch for stretch in self.line}
        self._segments: list[tuple[SegmentIndex, str, int]] = []  # with the key and the last transaction on the line
        self._manifests: list[Manifest] = []
        for key, body in sorted(objects.items()):
            segment, manifest = parse_segment(key), parse_manifest(key)
            if segment is not None and (stretch := stretches.get(segment.epoch)) is not None:
                index = decode(body, what=key)
                _same(key, (segment.first, segment.last), (index.header.first_txid, index.last_txid))
                last = index.last_txid if stretch.until is None else min(index.last_txid, stretch.until)
                if index.header.first_txid <= last:
                    self._segments.append((index, key, last))
            elif (
                manifest is not None
                and (stretch := stretches.get(manifest.epoch)) is not None
                and (stretch.until is None or manifest.txid <= stretch.until)
            ):
                self._manifests.append(decode_manifest(body, what=key))
        self._segments.sort(key=lambda part: part[0].header.first_txid)
        self._manifests.sort(key=lambda found: found.txid)
        self.checksums: dict[int, int] = {}  # of every transaction that can be restored, once `states` has gone through

    def states(self, *, begin: int = 0) -> Iterator[tuple[int, State]]:
        """Go through every state that can be restored, from the newest snapshot not behind `begin` on, in order.

        The same state object is yielded again and again: copy what is to be kept.

        Raises:
            Contradiction: what is stored does not fit together.
            Damaged: an object cannot be read.
        """
        earlier = [found.txid for found in self._manifests if found.txid <= begin]
        waiting = [found for found in self._manifests if found.txid >= max(earlier, default=0)]
        while waiting:
            manifest = waiting.pop(0)
            state, txid = self._load(manifest), manifest.txid
            yield self._note(txid, state), state
            while (found := self._next(txid)) is not None:
                for txid in self._apply(*found, state, txid):  # noqa: B020 - where the last step ended
                    while waiting and waiting[0].txid <= txid:
                        passed = waiting.pop(0)
                        _same(f"snapshot {passed.txid}", self._load(passed).image, state.image)
                    yield self._note(txid, state), state
        self._check_ends()

    def images(self, wanted: Collection[int]) -> dict[int, bytes]:
        """Return the states after these transactions, as far as they can be restored."""
        return {txid: bytes(state.image) for txid, state in self.states() if txid in wanted}

    def newest(self) -> tuple[int, State]:
        """Return the newest state that can be restored."""
        newest = None
        for newest in self.states(begin=self._manifests[-1].txid):  # noqa: B007 - the last one is meant
            pass
        assert newest is not None
        return newest

    def _line(self) -> list[Stretch]:
        starts = {
            start.epoch: start
            for start in (
                decode_start(body, what=key) for key, body in self._objects.items() if key.endswith("/start.json")
            )
        }
        line: list[Stretch] = []
        epoch, until = max(starts), None
        while epoch in starts:  # of a parent that retention left nothing of, there is no start
            start = starts[epoch]
            line.append(Stretch(epoch=epoch, after=start.parent_txid, until=until))
            epoch, until = start.parent_epoch, start.parent_txid
        return line

    def _load(self, manifest: Manifest) -> State:
        state = State(manifest.page_size)
        raw = b"".join(
            decompress_chunk(
                self._objects[chunk.key],
                raw_bytes=chunk.raw_bytes,
                name=chunk.name,
                what=chunk.key,
                names=self._names,
            )
            for chunk in manifest.chunks
        )
        for pgno in range(1, manifest.pages + 1):
            state.write(pgno, raw[(pgno - 1) * manifest.page_size : pgno * manifest.page_size])
        where = f"snapshot {manifest.txid}"
        _same(where, (manifest.pages, int(manifest.checksum, 16)), (state.pages, state.checksum))
        return state

    def _next(self, txid: int) -> tuple[SegmentIndex, str, int] | None:
        """Return the segment that leads on from a transaction, the furthest if there are several."""
        leading = [part for part in self._segments if part[0].header.first_txid <= txid + 1 <= part[2]]
        return max(leading, key=lambda part: part[2], default=None)

    def _apply(self, index: SegmentIndex, key: str, last: int, state: State, after: int) -> Iterator[int]:
        body, size = self._objects[key], index.header.page_size
        if index.header.first_txid == after + 1:
            before = (index.header.pages_before, index.checksum_before)
            _same(f"{key}, before", before, (state.pages, state.checksum))
        elif index.references:
            raise Contradiction(f"{key} refers to the state before it, and a restore may begin behind TXID {after}")
        older = b"".join(bytes(state.image[(pgno - 1) * size : pgno * size]) for pgno in index.references)
        blocks = (
            read_block(index, number, body[block.offset :][: block.stored_bytes], what=key, references=older)
            for number, block in enumerate(index.blocks)
        )
        pages = (block[at : at + size] for block in blocks for at in range(0, len(block), size))
        pgnos = iter(index.pgnos)
        for transaction in index.transactions:
            frames = [(next(pgnos), next(pages)) for _ in range(transaction.frames)]
            if not after < transaction.txid <= last:
                continue
            for pgno, page in frames:
                state.write(pgno, page)
            state.resize(transaction.pages)
            _same(f"{key}, TXID {transaction.txid}", transaction.checksum, state.checksum)
            yield transaction.txid

    def _note(self, txid: int, state: State) -> int:
        _same(f"TXID {txid}", self.checksums.setdefault(txid, state.checksum), state.checksum)
        return txid

    def _check_ends(self) -> None:
        """Hold the starts and ends against the states that were gone through."""
        stretches = {stretch.epoch: stretch for stretch in self.line}
        for key, body in self._objects.items():
            if key.endswith("/start.json") and (start := decode_start(body, what=key)).epoch in stretches:
                if start.parent_txid in self.checksums:
                    _same(key, int(start.checksum, 16), self.checksums[start.parent_txid])
            elif key.endswith("/end.json") and (end := decode_end(body, what=key)).epoch in stretches:
                until = stretches[end.epoch].until
                _same(f"{key} is reached", until is None or end.txid <= until, found=True)
                if end.txid in self.checksums:
                    _same(key, int(end.checksum, 16), self.checksums[end.txid])


def unrolled(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the objects with the segments of each roll-up in its place, by docs/format.md.

    Raises:
        Contradiction: a roll-up is not what it says, or a segment of it is not the object that stands there still.
    """
    found = {key: body for key, body in objects.items() if not key.endswith(".segs")}
    for name in sorted(objects.keys() - found.keys()):
        body = objects[name]
        count, digest, *end = struct.unpack("<QQII8s", body[-32:])
        directory = body[-32 - 40 * count : -32]
        _same(f"{name}, head and end", (body[:16], end), (b"\x89RPDSGS\n\1" + bytes(7), [1, 32, b"RPDROLL\n"]))
        _same(f"{name}, hash", digest, xxhash.xxh3_64_intdigest(directory + body[-32:-24]))
        members = list(struct.iter_unpack("<QQQQQ", directory))
        for first, last, last_ms, offset, size_bytes in members:
            key = f"{name.rsplit('/', 1)[0]}/{first:016x}-{last:016x}-{last_ms}.seg"
            member = body[offset : offset + size_bytes]
            _same(f"{key} in {name}", found.setdefault(key, member), member)
        stands = f"{members[0][0]:016x}-{members[-1][1]:016x}-{members[-1][2]}."
        _same(f"{name}, numbers", name.rsplit("/", 1)[1].startswith(stands), found=True)
        _same(f"{name}, size", sum(one[4] for one in members) + 40 * count + 48, len(body))
    return found


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return all objects of a database in a file:// replica, below its prefix."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    }


def image_of(database: Path) -> bytes:
    """Return every page of a database as SQLite itself reads it now, whatever is in the file and what in the WAL."""
    connection = sqlite3.connect(f"file:{database}?mode=rw", uri=True, isolation_level=None, timeout=30)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        return connection.serialize()
    finally:
        connection.close()


def check_ledger(image: bytes) -> int:
    """Hold an image of a writers' database against what SQLite and its ledger say; return its newest transaction.

    Raises:
        AssertionError: this never was a state of the database.
    """
    rollback = bytearray(image)
    rollback[18:20] = b"\1\1"  # SQLite does not open an image in memory that asks for a WAL
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(bytes(rollback))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        numbers = [number for (number,) in connection.execute("SELECT number FROM ledger ORDER BY number")]
        assert numbers == list(range(len(numbers))), "the ledger has gaps"
        noted = connection.execute("SELECT rows, total FROM ledger ORDER BY number DESC LIMIT 1").fetchone()
        rows = connection.execute("SELECT id, k, v FROM t").fetchall()
        assert noted == (len(rows), sum(row_hash(*row) for row in rows) & ((1 << 62) - 1)), "rows and ledger differ"
        return int(numbers[-1])
    finally:
        connection.close()


def _same(where: str, recorded: object, found: object) -> None:
    if recorded != found:
        sides = (recorded, found)
        short = [f"{len(one)} bytes" if isinstance(one, (bytes, bytearray)) else repr(one) for one in sides]
        raise Contradiction(f"{where}: recorded {short[0]}, found {short[1]}")
