"""A file becomes the newest state of a replica, and the history that was there goes on behind it.

It is what an owner does, in small: claim an epoch, list behind the claim, say where it continues from, store a
snapshot, end the epoch. The state counts as one transaction. Until the manifest stands, the head is what it was
before, so whatever dies half way is simply done again; chunks that a manifest lists are not sent again.

Who owns the database meanwhile is asked to hand over, and never overruled while it lives: a command can be repeated,
what an application committed cannot.
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import DatabaseUnusable, ReplicadError
from replicad.host.interruptible import interruptible
from replicad.host.threads import Threads
from replicad.observe import events
from replicad.observe.logging import get_logger
from replicad.observe.metrics import DatabaseMetrics
from replicad.ownership.claim import Me
from replicad.position import Epoch, Position
from replicad.replicate.asking import Asking
from replicad.replicate.continuity import hashed
from replicad.replicate.lineage import Lineage
from replicad.replicate.lone_snapshot import CountingSender, OnePin, WatchedImage
from replicad.replicate.own import Owned, founding_records, new_start, store_end
from replicad.replicate.past import Past, look
from replicad.replicate.pinned import StateMoved
from replicad.replicate.protocol import Driver, showing_life
from replicad.replicate.snapshots import Snapshots
from replicad.replicate.tenure import Intent, Tenure
from replicad.restore.request import Integrity

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator

    from replicad.host.clock import Clock
    from replicad.ownership.timing import Timing
    from replicad.replicate.fencing import Fencing
    from replicad.restore.progress import Progress
    from replicad.sqlite.still import Still
    from replicad.store.protocol import ObjectStore
    from replicad.wal import PageTable

_THREADS = 2  # one reads, one compresses


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """What is asked of a push, but for the file."""

    database: str  # its name, for messages
    instance: str  # who pushes, for people
    reason: str  # what the manifest says of it, for people
    timing: Timing  # `patience_seconds`: how long an owner that lives is waited for
    fencing: Fencing
    committed_ms: int | None = None  # when the state was committed (Unix ms, UTC); None: now
    integrity: Integrity = Integrity.NONE
    concurrency: int = 4
    compression_level: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What was stored, or would be."""

    position: Position  # of the file's state in the history
    committed_ms: int
    page_size: int
    previous: Position | None  # the newest state before; None: there was no history
    same: bool  # the file is the newest state already: nothing had to be stored
    chunks: int
    chunks_sent: int
    sent_bytes: int  # chunks and manifest
    ended: bool  # the epoch's end is stored: the next start waits for nobody
    handed_over_by: str | None  # the instance that owned the database and ended in order
    seconds: float


async def push(store: ObjectStore, source: Still, request: PushRequest, progress: Progress, clock: Clock) -> Pushed:
    """Store the state that `source` holds as the newest one of the replica.

    Args:
        store: the database's own part of a store.
        source: the file; stays open.
        request: how.
        progress: is told of the bytes that were read, once for hashing and once for sending.
        clock: the machine's.

    Raises:
        OwnedByAnother: an instance that lives did not hand over in time, or another one took over meanwhile.
        DatabaseUnusable: SQLite finds fault with the file, or it was written to past SQLite's locks.
        Damaged, ObjectMissing, NewerFormat: the history cannot be gone on with.
        CreateUndecided, StoreUnreachable, StoreRefused, ConditionalWritesUnsupported: the store does not play along.
    """
    async with _pushing(store, source, request, progress, clock) as found:
        return await found.run()


async def weigh(store: ObjectStore, source: Still, request: PushRequest, progress: Progress, clock: Clock) -> Pushed:
    """Return what `push` would store; everything is read and compressed, nothing is asked of an owner or stored.

    Raises:
        ReplicadError: as `push`, as far as it can be known by now.
    """
    async with _pushing(store, source, request, progress, clock) as found:
        return await found.estimate()


@asynccontextmanager
async def _pushing(
    store: ObjectStore, source: Still, request: PushRequest, progress: Progress, clock: Clock
) -> AsyncIterator[_Push]:
    threads = Threads("push", _THREADS)
    try:
        image = await threads.run(partial(WatchedImage.under_pin, source, source.index, pages=source.pages))
        image.tell(progress)
        yield _Push(store, source, image, request, progress, clock, threads)
    except StateMoved as error:
        raise DatabaseUnusable(
            path=source.path,
            expected="a file that stays as it is while it is read",
            found="one that was written to",
            hint="What writes to it does so past SQLite's locks, or they do not work there: stop it, and try again.",
        ) from error
    finally:
        progress.finished()
        await threads.close()


class _Push:
    def __init__(  # noqa: PLR0913, PLR0917 - one of each
        self,
        store: ObjectStore,
        source: Still,
        image: WatchedImage,
        request: PushRequest,
        progress: Progress,
        clock: Clock,
        threads: Threads,
    ) -> None:
        self._source = source
        self._image = image
        self._store = store
        self._request = request
        self._progress = progress
        self._clock = clock
        self._began = clock.monotonic()
        self._threads = threads
        self._metrics = DatabaseMetrics()
        self._log = get_logger(database=request.database)
        self._asking = Asking(store, request.database)
        self._sender = CountingSender(store, self._asking)

    async def estimate(self) -> Pushed:
        table = await self._hash()
        past = await look(self._store)
        epoch = Epoch(max(past.listing.claims, default=0) + 1)
        if past.is_newest(table):
            return self._answer(table, past, epoch=epoch)
        return await self._store_snapshot(table, past, Lineage(database_id="", epoch=epoch, claim_id=""))

    async def run(self) -> Pushed:
        table = await self._hash()
        past = await look(self._store)  # what is wrong with it is found before anybody is asked to make way
        if past.is_at_rest and past.is_newest(table) and past.line is not None:
            return replace(self._answer(table, past, epoch=past.line.head), ended=True)
        me = Me(id=uuid.uuid4().hex, instance=self._request.instance)
        request = self._request
        driver = Driver(self._store, self._clock, self._log, self._metrics, host=self._asking, fencing=request.fencing)
        owned = await self._asking.own(driver, me, request.timing)
        async with showing_life(driver, owned.epoch, me, request.timing):
            pushed = await self._go_on(table, Tenure(driver, owned, me, self._metrics, self._log), owned)
        self._log.info(
            events.PUSHED,
            epoch=pushed.position.epoch,
            txid=pushed.position.txid,
            sent_bytes=pushed.sent_bytes,
            reason=request.reason,
        )
        return pushed

    async def _go_on(self, table: PageTable, tenure: Tenure, owned: Owned) -> Pushed:
        """Begin the claimed epoch, store the state in it, and end it."""
        past = await look(self._store)  # claim before list: what an owner before ever reported durable is in here
        lineage = await self._begin(past, owned, tenure)
        self._sender.tenure = tenure
        if past.is_newest(table):
            pushed = self._answer(table, past, epoch=owned.epoch)
        else:
            pushed = await self._store_snapshot(table, past, lineage)
        handed_over_by = self._asking.owner if owned.epoch - 1 in past.listing.ends else None
        return replace(pushed, ended=await self._end(pushed.position), handed_over_by=handed_over_by)

    async def _hash(self) -> PageTable:
        if self._request.integrity is not Integrity.NONE:
            full = self._request.integrity is Integrity.FULL
            await interruptible(self._threads, partial(self._source.check, full=full))
        self._progress.started(self._image.pages * self._image.page_size)

        def hash_all(stop: threading.Event) -> PageTable:
            self._image.stop = stop
            return hashed(self._image)

        return await interruptible(self._threads, hash_all)

    async def _begin(self, past: Past, owned: Owned, tenure: Tenure) -> Lineage:
        line = past.line
        database_id = line.database_id if line else uuid.uuid4().hex
        start = new_start(database_id, owned.epoch, past.head, clock=self._clock)
        taken = owned.epoch in past.listing.starts
        await tenure.begin(self._store, Intent(start=start, beyond=frozenset(), taken=taken, note=_nothing_to_note))
        if tenure.lost.is_set():
            raise self._asking.overtaken()
        records = founding_records(owned.claim_id, start, instance=self._request.instance)
        return Lineage(database_id=database_id, epoch=owned.epoch, claim_id=owned.claim_id, records=records)

    async def _end(self, position: Position) -> bool:
        """Store the end; without it the next owner asks whether somebody is still there, and loses nothing but time."""
        try:
            await store_end(self._store, position, clock=self._clock)
        except ReplicadError as error:
            self._log.warning(events.EPOCH_NOT_ENDED, error=str(error))
            return False
        return True

    # --- storing -----------------------------------------------------------------------------------

    async def _store_snapshot(self, table: PageTable, past: Past, lineage: Lineage) -> Pushed:
        answer = self._answer(table, past, epoch=lineage.epoch)
        request = self._request
        snapshots = Snapshots(
            self._sender,
            lineage,
            self._threads,
            self._metrics,
            concurrency=request.concurrency,
            compression_level=request.compression_level,
        )
        snapshots.resume(past.manifest)
        self._progress.started(self._image.pages * self._image.page_size)
        pin = OnePin(self._image, table, txid=answer.position.txid, ms=answer.committed_ms)
        manifest, _ = await snapshots.store(pin, reason=request.reason, now_ms=self._clock.now_ms())
        return replace(
            answer,
            same=False,
            chunks=len(manifest.chunks),
            chunks_sent=self._metrics.chunks_stored,
            sent_bytes=self._sender.sent_bytes,
            seconds=self._clock.monotonic() - self._began,
        )

    def _answer(self, table: PageTable, past: Past, *, epoch: Epoch) -> Pushed:
        """Return what to say of the state, with nothing sent yet."""
        same = past.is_newest(table)
        wanted_ms = self._request.committed_ms
        committed_ms = max(self._clock.now_ms() if wanted_ms is None else wanted_ms, past.newest_ms)
        txid = past.head.txid if same and past.head else past.next_txid
        return Pushed(
            position=Position(epoch=epoch, txid=txid, checksum=table.checksum, pages=table.pages),
            committed_ms=past.known.ms if same and past.known else committed_ms,
            page_size=table.page_size,
            previous=past.head,
            same=same,
            chunks=0,
            chunks_sent=0,
            sent_bytes=0,
            ended=False,
            handed_over_by=None,
            seconds=self._clock.monotonic() - self._began,
        )


async def _nothing_to_note() -> None:
    """There is no state file beside what is pushed."""
