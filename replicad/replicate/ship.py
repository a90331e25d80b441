"""Sending: one segment in flight, again and again until it is stored.

Nothing is spooled. While the store is away the sealed segment waits here, the open one fills up to its bound, and
everything behind stays in the WAL. `away` tells the capture to keep it there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from replicad.errors import NoSpace, StoreRefused, StoreUnreachable
from replicad.layout import CLAIMS
from replicad.observe import events
from replicad.store.database import chunk_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from structlog.typing import FilteringBoundLogger

    from replicad.host.threads import Threads
    from replicad.layout import SegmentKey
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.replicate.stream import TransactionStream
    from replicad.snapshot import ChunkNames
    from replicad.store.protocol import ObjectStore

_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 15.0


class Leave(Protocol):
    """Whether something may be stored, and whether what is stored counts: see `Tenure`."""

    async def until_may_ship(self) -> None:
        """Return when something may be stored."""

    async def still_owned(self) -> bool:
        """Look whether what is stored by now may be reported durable."""


class Shipper:
    """Stores objects of one database, however long the store is away."""

    def __init__(
        self, store: ObjectStore, leave: Leave, threads: Threads, metrics: DatabaseMetrics, log: FilteringBoundLogger
    ) -> None:
        self.away = False
        self._store = store
        self._leave = leave
        self._threads = threads
        self._metrics = metrics
        self._log = log

    async def segment(self, key: SegmentKey, body: bytes) -> None:
        """Store a segment; returns when it is durable, and not before: stored, and the epoch still ours."""
        await self._until_stored(lambda: self._store.put(str(key), body))
        await self.confirm()
        self._count(key, len(body))

    async def stream(self, transaction: TransactionStream) -> int:
        """Make a transaction durable that is read while it is sent; return the size of its segment in bytes."""
        stored_bytes = 0

        async def attempt() -> None:
            nonlocal stored_bytes
            try:
                stored_bytes = await self._store.put_stream(str(transaction.key), self._in_threads(transaction.parts()))
            except BaseException:
                await self._threads.run(transaction.undo)
                raise

        await self._until_stored(attempt)
        await self.confirm()
        self._count(transaction.key, stored_bytes)
        return stored_bytes

    async def object(self, key: str, body: bytes) -> None:
        """Store any other object; returns when it is stored."""
        await self._until_stored(lambda: self._store.put(key, body))

    async def chunk_names(self) -> ChunkNames:
        """Return how the replica names its chunks."""
        async for attempt in self._patiently():
            with attempt:
                return await chunk_names(self._store)
        raise AssertionError

    async def until_may_ship(self) -> None:
        """Return when something may be stored in the epoch."""
        async for attempt in self._patiently():
            with attempt:
                await self._leave.until_may_ship()

    async def confirm(self) -> None:
        """Return when what is stored by now may be reported durable; never, once another instance owns the database."""
        owned = False
        async for attempt in self._patiently():
            with attempt:
                owned = await self._leave.still_owned()
        if not owned:
            await asyncio.Event().wait()  # until whoever waits for it is cancelled

    async def lost(self, keys: Iterable[str], prefixes: Iterable[str]) -> set[str]:
        """Return which of these stored keys are not there any more; each begins with one of the prefixes."""
        lost: set[str] = set()
        async for attempt in self._patiently():
            with attempt:
                lost = await missing(self._store, keys, prefixes)
        if lost:
            self._metrics.errors["ObjectsLost"] += len(lost)
            self._log.error(events.OBJECTS_LOST, objects=len(lost), first=min(lost))
        return lost

    async def until_back(self) -> None:
        """Wait until the store answers again, at once when it was not away; sends nothing."""
        if self.away:
            async for attempt in self._patiently():
                with attempt:
                    async for _ in self._store.list(CLAIMS):
                        pass

    async def _until_stored(self, send: Callable[[], Awaitable[None]]) -> None:
        async for attempt in self._patiently():
            with attempt:
                await self._leave.until_may_ship()
                await send()
        self._metrics.store_reachable = True
        if self.away:
            self.away = False
            self._log.info(events.STORE_RECOVERED)

    def _patiently(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type((StoreUnreachable, StoreRefused, NoSpace)),
            wait=wait_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS),
            before_sleep=self._note_failure,
        )

    def _note_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._metrics.errors[type(error).__name__] += 1
        self._metrics.store_reachable = False
        if not self.away:
            self.away = True
            event = events.STORE_REFUSED if isinstance(error, StoreRefused) else events.STORE_UNREACHABLE
            self._log.error(event, error=str(error))
        self._log.warning(events.SHIP_FAILED, error=type(error).__name__, next_attempt_seconds=state.upcoming_sleep)

    async def _in_threads(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (part := await self._threads.run(next, parts, None)) is not None:
            yield part

    def _count(self, key: SegmentKey, stored_bytes: int) -> None:
        self._metrics.segments += 1
        self._metrics.segment_bytes += stored_bytes
        self._log.info(events.SEGMENT_SHIPPED, first_txid=key.first, last_txid=key.last, stored_bytes=stored_bytes)


async def missing(store: ObjectStore, keys: Iterable[str], prefixes: Iterable[str]) -> set[str]:
    """Return which of the keys are not in the store; each begins with one of the prefixes."""
    lost = set(keys)
    for prefix in prefixes:
        async for found in store.list(prefix):
            lost.discard(found.key)
    return lost
