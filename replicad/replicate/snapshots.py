"""Snapshots: the whole database as of one transaction, in chunks that are sent only when they are new.

The image is read under a pin of its own and held against the page table of the same transaction: what is stored
as a snapshot is at the same time the proof that capture has missed nothing so far.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from replicad.errors import ProofFailed
from replicad.layout import ManifestKey, chunk_key, chunks_prefix, parse_chunk, start_key
from replicad.position import TXID, Epoch
from replicad.replicate.pinned import EXTENT_BYTES, Pinned, StateMoved
from replicad.snapshot import Chunk, Manifest, chunk_pages, compress_chunk, encode_manifest
from replicad.sqlite.image import split

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from collections.abc import Set as AbstractSet

    from replicad.host.threads import Threads
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.replicate.lineage import Lineage
    from replicad.snapshot import ChunkNames


class Pins(Protocol):
    """Who holds a state still for a snapshot."""

    let_go: asyncio.Event
    """Set: give the pin back as soon as the chunk at hand is read, and take another."""

    async def take(self) -> Pinned:
        """Hold a state still, the newest there is."""

    async def release(self, pinned: Pinned) -> None:
        """Let it go."""


class Sender(Protocol):
    """What stores the objects of a snapshot: a daemon's `Shipper`, or a command's."""

    async def chunk_names(self) -> ChunkNames:
        """Return how the replica names its chunks."""

    async def until_may_ship(self) -> None:
        """Return when something may be stored."""

    async def object(self, key: str, body: bytes) -> None:
        """Store an object."""

    async def confirm(self) -> None:
        """Return when what is stored by now counts."""

    async def lost(self, keys: Iterable[str], prefixes: Iterable[str]) -> set[str]:
        """Return which of these stored keys are not there any more; each begins with one of the prefixes."""


class Snapshots:
    """Stores snapshots of one database, and remembers what is stored already.

    A pin is needed for reading only. When it is wanted back, what was read under it stays good but for the chunks
    that are written to until the next pin, so a snapshot ends however often that happens.
    """

    def __init__(  # noqa: PLR0913 - one of each
        self,
        shipper: Sender,
        lineage: Lineage,
        threads: Threads,
        metrics: DatabaseMetrics,
        *,
        concurrency: int,
        compression_level: int,
    ) -> None:
        self.newest: Manifest | None = None
        self._compression_level = compression_level
        self._shipper = shipper
        self._lineage = lineage
        self._threads = threads
        self._metrics = metrics
        self._concurrency = concurrency
        self._stored: dict[str, Chunk] = {}  # by name; survives a broken attempt
        self._form = (0, 0)  # page size and pages in a chunk, of what follows
        self._distrusted: set[str] = set()  # keys of what is stored and damaged
        self._pages = 0  # size of the database when it was last held still
        self._found: dict[int, Chunk] = {}  # by number: stored, and not written to since
        self._sending: dict[int, asyncio.Task[None]] = {}  # likewise, but on their way
        self._uploads: set[asyncio.Task[None]] = set()  # on their way, whether or not they were written to since
        self._under_way = asyncio.Lock()  # while one is

    def resume(self, newest: Manifest | None) -> None:
        """Begin with another capture: what was written before is not known, so every chunk is read once."""
        self.newest = newest
        self._found.clear()
        if newest is not None:
            self._stored |= {chunk.name: chunk for chunk in newest.chunks}

    def in_use(self) -> frozenset[str]:
        """Return the keys of the chunks that the next snapshot may list without sending them again."""
        return frozenset(chunk.key for chunk in self._stored.values())

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """Wait until no snapshot is under way, and let none begin."""
        async with self._under_way:
            yield

    @property
    def distrusts(self) -> bool:
        """Whether something is to be sent again that no snapshot has begun with."""
        return bool(self._distrusted)

    def distrust(self, keys: Iterable[str]) -> None:
        """Have the next snapshot send what is stored under these keys again: it is there, and it is damaged.

        That goes for chunks, whose name is that of their content, and for the start of this epoch, which its owner
        alone writes: the same bytes are put once more. Anything else a snapshot makes anew, or cannot.
        """
        self._distrusted.update(keys)

    async def store(self, pins: Pins, *, reason: str, now_ms: int) -> tuple[Manifest, Pinned]:
        """Store the chunks that are new, then the manifest; return it with the state it is of.

        Raises:
            ProofFailed: the database is not as the page table says; nothing was stored that counts.
            StateMoved: no state could be held still long enough; what was stored by then need not be sent again.
        """
        async with self._under_way:
            return await self._take(pins, reason=reason, now_ms=now_ms)

    async def _take(self, pins: Pins, *, reason: str, now_ms: int) -> tuple[Manifest, Pinned]:
        await self._shipper.until_may_ship()
        await self._mend()
        if self.newest is not None:
            await self._look_after(self.newest)
        try:
            complete = False
            while not complete:
                pinned = await pins.take()
                try:
                    complete = await self._read(pinned, pins.let_go)
                finally:
                    await pins.release(pinned)
            while self._uploads:
                await self._wait_for_upload()
        finally:
            for upload in self._uploads:
                upload.cancel()
            await asyncio.gather(*self._uploads, return_exceptions=True)
            self._uploads.clear()
            self._sending.clear()
        manifest = self._manifest(pinned, reason=reason, now_ms=now_ms)
        key = ManifestKey(epoch=self._lineage.epoch, txid=pinned.txid, ms=pinned.ms)
        await self._shipper.object(str(key), await self._threads.run(encode_manifest, manifest))
        await self._shipper.confirm()
        self.newest = manifest
        self._stored = {chunk.name: chunk for chunk in manifest.chunks}
        self._metrics.snapshots += 1
        return manifest, pinned

    async def _look_after(self, newest: Manifest) -> None:
        """Hold what is thought to be stored against the store: a lifecycle rule, or a hand, may have deleted it.

        What is missing is forgotten, and so sent again with the snapshot that begins; a database without writes, and
        thus without snapshots, is not looked after here.
        """
        chunks = {chunk_key(Epoch(chunk.epoch), chunk.name): chunk for chunk in self._stored.values()}
        records = self._lineage.records
        manifest = str(ManifestKey(epoch=Epoch(newest.epoch), txid=TXID(newest.txid), ms=newest.commit_ms))
        folders = {chunks_prefix(Epoch(chunk.epoch)) for chunk in chunks.values()}
        missing = await self._shipper.lost([*chunks, *records, manifest], sorted({*folders, *records, manifest}))
        if not missing:
            return
        for key in sorted(missing & records.keys()):
            await self._shipper.object(key, records[key])
        self._forget({chunks[key].name for key in missing & chunks.keys()})

    async def _mend(self) -> None:
        """Have what is distrusted sent again: the chunks among it with the snapshot that begins."""
        distrusted, self._distrusted = self._distrusted, set()
        self._forget({name for _, name in filter(None, map(parse_chunk, distrusted))})
        key = start_key(self._lineage.epoch)
        if key in distrusted and key in self._lineage.records:
            await self._shipper.object(key, self._lineage.records[key])

    def _forget(self, names: AbstractSet[str]) -> None:
        """Forget that chunks of these names are stored."""
        self._stored = {name: chunk for name, chunk in self._stored.items() if name not in names}
        self._found = {number: chunk for number, chunk in self._found.items() if chunk.name not in names}

    def _manifest(self, pinned: Pinned, *, reason: str, now_ms: int) -> Manifest:
        page_size, per_chunk = self._form
        return Manifest(
            database_id=self._lineage.database_id,
            epoch=self._lineage.epoch,
            txid=pinned.txid,
            commit_ms=pinned.ms,
            page_size=page_size,
            pages=pinned.table.pages,
            checksum=f"{pinned.table.checksum:016x}",
            chunk_pages=per_chunk,
            created_ms=now_ms,
            reason=reason,
            chunks=tuple(self._found[number] for number in range(-(-pinned.table.pages // per_chunk))),
        )

    async def _read(self, pinned: Pinned, let_go: asyncio.Event) -> bool:
        """Read what is not known under a pin, and send it; return False when the pin is wanted back before the end."""
        self._forget_written(pinned)
        _, per_chunk = self._form
        letting = asyncio.ensure_future(let_go.wait())
        try:
            for number in range(-(-pinned.table.pages // per_chunk)):
                if number in self._found or number in self._sending:
                    continue
                while len(self._uploads) >= self._concurrency and not let_go.is_set():
                    await self._wait_for_upload(letting)
                if let_go.is_set():
                    return False
                raw = await self._threads.run(_read_proven, pinned, number, per_chunk)
                self._sending[number] = upload = asyncio.create_task(self._send(number, raw))
                self._uploads.add(upload)
        finally:
            letting.cancel()
        return True

    async def _wait_for_upload(self, *others: asyncio.Future[Any]) -> None:
        """Wait until some upload has ended, or another future; raises what an upload met."""
        done, _ = await asyncio.wait({*others, *self._uploads}, return_when=asyncio.FIRST_COMPLETED)
        for upload in self._uploads & done:
            self._uploads.discard(upload)
            upload.result()

    def _forget_written(self, pinned: Pinned) -> None:
        """Forget the chunks that are not in this state what they were in the one before."""
        page_size, pages = pinned.image.page_size, pinned.table.pages
        # A number of pages of another size says nothing of bytes: chunks could become too large to be read.
        alike = self.newest is not None and self.newest.page_size == page_size
        previous = self.newest.chunk_pages if self.newest and alike else None
        form = (page_size, chunk_pages(page_size, pages, previous))
        if form != self._form:
            self._found.clear()
            self._sending.clear()
        extents_per_chunk = form[1] * page_size // EXTENT_BYTES
        written = {extent // extents_per_chunk for extent in pinned.dirty}
        same_end = self._pages == pages
        whole = min(self._pages, pages) // form[1]
        for known in (self._found, self._sending):
            for number in [number for number in known if number in written or (number >= whole and not same_end)]:
                del known[number]
        self._form, self._pages = form, pages

    async def _send(self, number: int, raw: bytearray) -> None:
        names = await self._shipper.chunk_names()
        name = await self._threads.run(names.name, raw)
        chunk = self._stored.get(name)
        if chunk is None:
            stored = await self._threads.run(compress_chunk, raw, self._compression_level)
            chunk = Chunk(name=name, epoch=self._lineage.epoch, stored_bytes=len(stored), raw_bytes=len(raw))
            await self._shipper.object(chunk_key(Epoch(self._lineage.epoch), name), stored)
            self._stored[name] = chunk
            self._metrics.chunks_stored += 1
            self._metrics.chunk_bytes += len(stored)
        else:
            self._metrics.chunks_reused += 1
        if self._sending.get(number) is asyncio.current_task():  # else it was written to meanwhile
            self._found[number] = chunk
            del self._sending[number]


def _read_proven(pinned: Pinned, number: int, per_chunk: int) -> bytearray:
    first = number * per_chunk + 1
    raw = pinned.image.read(first, min(per_chunk, pinned.table.pages - first + 1))
    differing = pinned.table.differing(first, split(raw, pinned.image.page_size))
    if differing and not pinned.still:
        raise StateMoved
    if differing:
        raise ProofFailed(
            what="the state that capture holds",
            check=f"page {differing[0]} ({len(differing)} pages of chunk {number})",
            expected="as it was read from the WAL",
            found="other contents in the database",
        )
    return raw
