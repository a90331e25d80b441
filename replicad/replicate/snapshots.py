"""Snapshots: the whole database as of one transaction, in chunks that are sent only when they are new.

The image is read under a pin of its own and held against the page table of the same transaction: what is stored
as a snapshot is at the same time the proof that capture has missed nothing so far.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import ProofFailed
from replicad.layout import ManifestKey, chunk_key
from replicad.position import Epoch
from replicad.replicate.pinned import EXTENT_BYTES, Pinned, StateMoved
from replicad.snapshot import Chunk, Manifest, chunk_name, chunk_pages, compress_chunk, encode_manifest
from replicad.sqlite.image import split

if TYPE_CHECKING:
    from replicad.host.threads import Threads
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.replicate.lineage import Lineage
    from replicad.replicate.ship import Shipper


class Snapshots:
    """Stores snapshots of one database, and remembers what is stored already."""

    def __init__(
        self, shipper: Shipper, lineage: Lineage, threads: Threads, metrics: DatabaseMetrics, *, concurrency: int
    ) -> None:
        self.newest: Manifest | None = None
        self.level = 3
        self._shipper = shipper
        self._lineage = lineage
        self._threads = threads
        self._metrics = metrics
        self._concurrency = concurrency
        self._stored: dict[str, Chunk] = {}  # by name; survives a broken attempt
        self._dirty: set[int] | None = None  # since `newest`; None: not known, every chunk is read

    def resume(self, newest: Manifest | None) -> None:
        """Take over what an earlier process stored last."""
        self.newest = newest
        self._dirty = None
        if newest is not None:
            self._stored |= {chunk.name: chunk for chunk in newest.chunks}

    async def store(self, pinned: Pinned, *, reason: str, now_ms: int) -> Manifest:
        """Store the chunks that are new, then the manifest.

        Raises:
            ProofFailed: the database is not as the page table says; nothing was stored that counts.
        """
        if self._dirty is not None:
            self._dirty |= pinned.dirty
        previous = self.newest.chunk_pages if self.newest else None
        per_chunk = chunk_pages(pinned.image.page_size, pinned.table.pages, previous)
        chunks = await self._chunks(pinned, per_chunk)
        manifest = Manifest(
            database_id=self._lineage.database_id,
            epoch=self._lineage.epoch,
            txid=pinned.txid,
            commit_ms=pinned.ms,
            page_size=pinned.image.page_size,
            pages=pinned.table.pages,
            checksum=f"{pinned.table.checksum:016x}",
            chunk_pages=per_chunk,
            created_ms=now_ms,
            reason=reason,
            chunks=tuple(chunks),
        )
        key = ManifestKey(epoch=self._lineage.epoch, txid=pinned.txid, ms=pinned.ms)
        await self._shipper.object(str(key), await self._threads.run(encode_manifest, manifest))
        self.newest, self._dirty = manifest, set()
        self._stored = {chunk.name: chunk for chunk in chunks}
        self._metrics.snapshots += 1
        return manifest

    async def _chunks(self, pinned: Pinned, per_chunk: int) -> list[Chunk]:
        numbers = iter(range(-(-pinned.table.pages // per_chunk)))
        found: dict[int, Chunk] = {}
        clean = self._clean(pinned, per_chunk)

        async def work() -> None:
            for number in numbers:  # each worker takes the next number: nothing is queued
                found[number] = clean.get(number) or await self._chunk(pinned, number, per_chunk)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work())
        except ExceptionGroup as failed:  # the workers share one fault: the first to meet it speaks for all
            raise failed.exceptions[0] from None
        return [found[number] for number in range(len(found))]

    def _clean(self, pinned: Pinned, per_chunk: int) -> dict[int, Chunk]:
        """Return the chunks of the newest manifest that no write has touched since."""
        newest = self.newest
        if newest is None or self._dirty is None:
            return {}
        if (newest.page_size, newest.chunk_pages) != (pinned.image.page_size, per_chunk):
            return {}
        extents_per_chunk = per_chunk * newest.page_size // EXTENT_BYTES
        dirty = {extent // extents_per_chunk for extent in self._dirty}
        whole = min(newest.pages, pinned.table.pages) // per_chunk
        same_end = newest.pages == pinned.table.pages
        return {
            number: chunk
            for number, chunk in enumerate(newest.chunks)
            if number not in dirty and (number < whole or same_end)
        }

    async def _chunk(self, pinned: Pinned, number: int, per_chunk: int) -> Chunk:
        raw, name = await self._threads.run(_read_proven, pinned, number, per_chunk)
        known = self._stored.get(name)
        if known is not None:
            self._metrics.chunks_reused += 1
            return known
        stored = await self._threads.run(compress_chunk, raw, self.level)
        chunk = Chunk(name=name, epoch=self._lineage.epoch, stored_bytes=len(stored), raw_bytes=len(raw))
        await self._shipper.object(chunk_key(Epoch(self._lineage.epoch), name), stored)
        self._stored[name] = chunk
        self._metrics.chunks_stored += 1
        self._metrics.chunk_bytes += len(stored)
        return chunk


def _read_proven(pinned: Pinned, number: int, per_chunk: int) -> tuple[bytearray, str]:
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
    return raw, chunk_name(raw)
