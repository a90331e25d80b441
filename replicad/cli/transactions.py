"""Single transactions and snapshots of a line of history, newest first, with as few requests as that takes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal

from replicad.errors import Damaged, ObjectMissing
from replicad.host.threads import Threads
from replicad.plan.rollup import covers, uncovered
from replicad.plan.target import format_ms
from replicad.position import TXID
from replicad.restore.fetch import Fetch
from replicad.restore.pieces import segments_in
from replicad.snapshot import decode_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from replicad.plan.line import Line, LineSegment
    from replicad.plan.listing import ManifestObject
    from replicad.restore.segments import OpenSegment
    from replicad.store.protocol import ObjectStore

_AT_ONCE = 8
_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log."""

    kind: Literal["transaction", "snapshot", "damaged"]
    txid: TXID  # of a damaged segment or snapshot: its last
    epoch: int
    ms: int | None  # commit time
    pages: int | None  # written by the transaction; of a snapshot: all
    database_bytes: int | None  # afterwards
    size_bytes: int  # page bytes of a transaction, stored bytes of a snapshot or a damaged object
    note: str = ""

    @property
    def at(self) -> str | None:
        """Commit time, ISO 8601 in UTC."""
        return None if self.ms is None else format_ms(self.ms)

    def as_json(self) -> Mapping[str, object]:
        """Return the fields, the time as text too."""
        return asdict(self) | {"at": self.at}


async def read_entries(store: ObjectStore, line: Line, *, limit: int, since_ms: int | None) -> list[Entry]:
    """Return the newest transactions of a line, and the snapshots among them.

    Args:
        store: the database's own part of the store.
        line: the line of history.
        limit: most transactions to return; 0 for all.
        since_ms: leave out what was committed before.
    """
    threads = Threads("log", _THREADS)
    try:
        return await _Reader(Fetch(store, threads, concurrency=_AT_ONCE), line).read(limit, since_ms)
    finally:
        await threads.close()


class _Reader:
    def __init__(self, fetch: Fetch, line: Line) -> None:
        self._fetch = fetch
        self._line = line
        self._seen: set[TXID] = set()  # roll-ups and the segments they were made of tell of the same transactions

    async def read(self, limit: int, since_ms: int | None) -> list[Entry]:
        entries: list[Entry] = []
        for batch in _batches(self._newest_first(since_ms), limit):
            opened = await asyncio.gather(*(self._transactions(segment, limit, since_ms) for segment in batch))
            entries += [entry for found in opened for entry in found if self._is_new(entry)]
            if limit and sum(entry.kind == "transaction" for entry in entries) >= limit:
                break
        entries.sort(key=lambda entry: entry.txid, reverse=True)
        entries = entries[:limit] if limit else entries
        if since_ms is not None:
            entries = [entry for entry in entries if entry.ms is None or entry.ms >= since_ms]
        oldest = entries[-1].txid if limit and len(entries) == limit else TXID(0)
        snapshots = [
            found
            for found in self._line.manifests
            if found.key.txid >= oldest and (since_ms is None or found.key.ms >= since_ms)
        ]
        newest = snapshots[-limit:] if limit else snapshots
        entries += await asyncio.gather(*(self._snapshot(found) for found in newest))
        # A snapshot stands above the transaction it holds.
        return sorted(entries, key=lambda entry: (entry.txid, entry.kind == "snapshot"), reverse=True)

    def _newest_first(self, since_ms: int | None) -> Iterator[LineSegment]:
        by_object = {part.stored: part for part in self._line.segments}
        segments = [by_object[stored] for stored in uncovered(by_object)]
        for segment in sorted(segments, key=lambda part: (part.until, part.first), reverse=True):
            if since_ms is not None and segment.until_ms is not None and segment.until_ms < since_ms:
                return
            yield segment

    def _is_new(self, entry: Entry) -> bool:
        if entry.kind != "transaction":  # what is damaged may be told by another object
            return True
        if entry.txid in self._seen:
            return False
        self._seen.add(entry.txid)
        return True

    async def _transactions(self, segment: LineSegment, limit: int, since_ms: int | None) -> list[Entry]:
        """Return the transactions of a segment, or the newest ones of a roll-up: as many as are wanted."""
        entries: list[Entry] = []
        try:
            newest = segments_in(self._fetch, segment, database_id=self._line.database_id)
            async with aclosing(newest) as newest_first:
                async for opened in newest_first:
                    entries += self._entries(opened, segment.until)
                    oldest_ms = opened.index.transactions[0].commit_ms
                    if (limit and len(entries) >= limit) or (since_ms is not None and oldest_ms < since_ms):
                        break
        except (Damaged, ObjectMissing) as error:
            key, size_bytes = segment.stored.key, segment.stored.size_bytes
            entries.append(_damaged(segment.until, key.epoch, size_bytes, str(error)))
            for other in self._line.segments:  # what it was made of may still be there
                if covers(segment.stored, other.stored):
                    entries += await self._transactions(other, limit, since_ms)
        return entries

    def _entries(self, opened: OpenSegment, until: TXID) -> list[Entry]:
        page_size = opened.index.header.page_size
        return [
            Entry(
                kind="transaction",
                txid=transaction.txid,
                epoch=opened.segment.stored.key.epoch,
                ms=transaction.commit_ms,
                pages=transaction.frames,
                database_bytes=transaction.pages * page_size,
                size_bytes=transaction.frames * page_size,
            )
            for transaction in opened.index.transactions
            if transaction.txid <= until
        ]

    async def _snapshot(self, found: ManifestObject) -> Entry:
        try:
            manifest = await self._fetch.proven(found.name, partial(decode_manifest, what=found.name))
        except (Damaged, ObjectMissing) as error:
            return _damaged(found.key.txid, found.key.epoch, found.size_bytes, str(error))
        return Entry(
            kind="snapshot",
            txid=found.key.txid,
            epoch=found.key.epoch,
            ms=found.key.ms,
            pages=manifest.pages,
            database_bytes=manifest.pages * manifest.page_size,
            size_bytes=manifest.stored_bytes,
            note=manifest.reason,
        )


def _damaged(txid: TXID, epoch: int, size_bytes: int, note: str) -> Entry:
    return Entry(
        kind="damaged",
        txid=txid,
        epoch=epoch,
        ms=None,
        pages=None,
        database_bytes=None,
        size_bytes=size_bytes,
        note=note,
    )


def _batches(segments: Iterator[LineSegment], limit: int) -> Iterator[Sequence[LineSegment]]:
    """Group segments for concurrent requests: no more of them than transactions are wanted."""
    size = min(_AT_ONCE, limit) if limit else _AT_ONCE
    while batch := tuple(islice(segments, size)):
        yield batch
