"""When to ship: the first commit after a quiet time at once, further ones together, a full segment at once.

One segment is in flight; what commits meanwhile gathers in the next one, so that the rate adapts to the store.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from replicad.layout import SegmentKey
from replicad.position import Position
from replicad.replicate.capture import Reached
from replicad.replicate.following import record_state, wait_for
from replicad.replicate.ledger import Mark

if TYPE_CHECKING:
    from replicad.position import WALPosition
    from replicad.replicate.capture import Capture
    from replicad.replicate.following import Following, Turn
    from replicad.replicate.stream import TransactionStream


class ShipObserver(Protocol):
    """Told on the event loop; must return at once."""

    def on_sealed(self) -> None:
        """A segment was closed: there is room for the next one."""
        ...

    def on_shipped(self, stored_bytes: int) -> None:
        """A segment of this size is stored; the ledger says so next."""
        ...


class ShipLoop:
    """Sends what a capture gathers, and nothing before `base` is set."""

    def __init__(self, following: Following, turn: Turn, *, base: asyncio.Event, observer: ShipObserver) -> None:
        self.reached = Reached.END  # how the last round of reading ended
        self.reading = asyncio.Event()  # not set while the WAL is let go
        self.reading.set()
        self.in_flight_ms: int | None = None  # commit time of the first transaction in the segment in flight
        self.in_flight_bytes = 0
        self._following = following
        self._turn = turn
        self._base = base
        self._observer = observer
        self._captured = asyncio.Event()
        self._hurry = asyncio.Event()

    def captured(self) -> None:
        """Say that there is something to ship."""
        self._captured.set()

    def hurry(self) -> None:
        """Ship what there is without waiting for more."""
        self._hurry.set()
        self._captured.set()

    async def run(self) -> None:
        """Ship until cancelled."""
        clock, interval = self._following.tools.clock, self._following.settings.sync_interval_seconds
        last = float("-inf")
        await self._base.wait()
        while True:
            await self._captured.wait()
            if self.reached is Reached.END:
                await wait_for(self._hurry, last + interval - clock.monotonic())
            self._hurry.clear()
            last = clock.monotonic()
            if not await self._ship_segment():
                self._captured.clear()
                if self.reached is Reached.OVERSIZED and self.reading.is_set():
                    await self._ship_oversized()

    async def send_stream(self, transaction: TransactionStream) -> None:
        """Send a transaction that is read as it goes. The caller holds the turn."""
        stored_bytes = await self._following.shipper.stream(transaction)
        transaction.settle()
        capture, key = self._turn.capture, transaction.key
        position = Position(
            epoch=capture.epoch, txid=key.last, checksum=capture.table.checksum, pages=capture.table.pages
        )
        self._following.ledger.captured = Mark(txid=key.last, ms=key.last_ms)
        self._following.metrics.transactions += 1
        await self._settle(key, position, capture.position, stored_bytes)

    async def _ship_segment(self) -> bool:
        """Send the open segment; return False when there is none."""
        capture = self._turn.capture
        async with self._turn.lock:
            waiting = capture.open_segment
            if waiting is None:
                return False
            self.in_flight_ms, self.in_flight_bytes = capture.open_since_ms, waiting.raw_bytes
            key, body, position, wal_end = await self._turn.within(_seal, capture)
        self._observer.on_sealed()
        await self._following.shipper.segment(key, body)
        self.in_flight_ms, self.in_flight_bytes = None, 0
        await self._settle(key, position, wal_end, len(body))
        return True

    async def _ship_oversized(self) -> None:
        """Stream the next transaction; given up when the store is away and the WAL too long to wait for it."""
        following, capture = self._following, self._turn.capture
        async with self._turn.lock:
            if capture.open_segment is not None:  # read since this was decided: what was committed first goes first
                self._captured.set()
                return
            transaction = await self._turn.within(capture.oversized)
            if transaction is None:
                return
            sending = asyncio.ensure_future(self.send_stream(transaction))
            try:
                while not sending.done():
                    await asyncio.wait((sending,), timeout=following.settings.safety_poll_interval_seconds)
                    following.ledger.unread_bytes = await self._turn.within(capture.unread_bytes)
                    if following.shipper.away and following.ledger.unread_bytes > following.settings.max_wal_bytes:
                        sending.cancel()
            finally:
                sending.cancel()
                await asyncio.wait((sending,))
        if not sending.cancelled():
            sending.result()

    async def _settle(self, key: SegmentKey, position: Position, wal_end: WALPosition, stored_bytes: int) -> None:
        following, mark = self._following, Mark(txid=key.last, ms=key.last_ms)
        await record_state(following, position, wal_end)
        following.metrics.durable_delay.observe(max(0, following.tools.clock.now_ms() - mark.ms) / 1000)
        self._observer.on_shipped(stored_bytes)
        await following.ledger.now_durable(mark)


def _seal(capture: Capture) -> tuple[SegmentKey, bytes, Position, WALPosition]:
    """Close the open segment; return key, body, the state behind it and where in the WAL it ends."""
    segment, wal_end = capture.seal()
    key = SegmentKey(
        epoch=capture.epoch, first=segment.header.first_txid, last=segment.last_txid, last_ms=segment.last_ms
    )
    position = Position(
        epoch=capture.epoch, txid=segment.last_txid, checksum=segment.checksum, pages=capture.table.pages
    )
    return key, b"".join(segment.finish(wal_end)), position, wal_end
