"""When to ship: the first commit after a quiet time at once, further ones together, a full segment at once.

One segment is in flight; what commits meanwhile gathers in the next one, so that the rate adapts to the store.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from replicad.layout import SegmentKey
from replicad.plan.pace import Pace
from replicad.position import Position
from replicad.replicate.following import record_state, wait_for
from replicad.replicate.ledger import Mark
from replicad.replicate.reading import Reached

if TYPE_CHECKING:
    from replicad.position import WALPosition
    from replicad.replicate.capture import Capture
    from replicad.replicate.following import Following, Turn
    from replicad.replicate.stream import TransactionStream


class ShipObserver(Protocol):
    """Told on the event loop; must return at once."""

    def on_sealed(self) -> None:
        """A segment was closed, or a transaction streamed: there is room for the next one."""
        ...

    def on_shipped(self, stored_bytes: int) -> None:
        """A segment of this size is stored; the ledger says so next."""
        ...


class ShipLoop:
    """Sends what a capture gathers, and nothing before `base` is set."""

    def __init__(self, following: Following, turn: Turn, *, base: asyncio.Event, observer: ShipObserver) -> None:
        self.reached = Reached.END  # how the last round of reading ended
        self.in_flight_ms: int | None = None  # commit time of the first transaction in the segment in flight
        self.in_flight_bytes = 0
        self._following = following
        self._turn = turn
        self._base = base
        self._observer = observer
        self._captured = asyncio.Event()
        self._hurry = asyncio.Event()
        self._pace = Pace(following.settings.sync_interval_seconds)

    @property
    def due_at(self) -> float:
        """When the next segment is to be sent, at the earliest, if nobody hurries it: seconds, monotonic."""
        return self._pace.due_at

    def captured(self) -> None:
        """Say that there is something to ship."""
        self._captured.set()

    def hurry(self) -> None:
        """Ship what there is without waiting for more."""
        self._hurry.set()
        self._captured.set()

    async def run(self) -> None:
        """Ship until cancelled."""
        clock = self._following.tools.clock
        await self._base.wait()
        while True:
            await self._captured.wait()
            if self._turn.capture.open_segment is None and self.reached is not Reached.OVERSIZED:
                self._captured.clear()
                self._hurry.clear()  # there is nothing that could be sent sooner
                continue
            if self.reached is Reached.END:
                await wait_for(self._hurry, self._pace.due_at - clock.monotonic())
            self._pace.spend(clock.monotonic())
            if not await self._ship_segment() and self.reached is Reached.OVERSIZED:
                self._captured.clear()
                if self._turn.reading.is_set():
                    await self._ship_oversized()

    async def send_stream(self, transaction: TransactionStream) -> bool:
        """Send a transaction that is read as it goes; the caller holds the turn.

        Returns False when it was given up: the store is away, and what was committed behind the transaction has made
        the WAL too long to wait for it.
        """
        following, capture = self._following, self._turn.capture
        limit, pause = following.settings.max_wal_bytes, following.settings.safety_poll_interval_seconds
        sending = asyncio.ensure_future(self._send(transaction))
        try:
            while not sending.done():
                await asyncio.wait((sending,), timeout=pause)
                following.ledger.unread_bytes = await self._turn.within(capture.unread_bytes)
                behind_bytes = await self._turn.within(capture.bytes_behind, transaction.position)
                if following.shipper.away and behind_bytes > limit:
                    sending.cancel()
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
        if sending.cancelled():
            return False
        sending.result()
        return True

    async def _send(self, transaction: TransactionStream) -> None:
        stored_bytes = await self._following.shipper.stream(transaction)
        transaction.settle()
        capture, key = self._turn.capture, transaction.key
        position = Position(
            epoch=capture.epoch, txid=key.last, checksum=capture.table.checksum, pages=capture.table.pages
        )
        self._turn.count()
        await self._settle(key, position, capture.position, stored_bytes)

    async def _ship_segment(self) -> bool:
        """Send the open segment; return False when there is none."""
        capture = self._turn.capture
        async with self._turn.lock:
            self._hurry.clear()  # all that was read when somebody hurried goes now
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
        """Stream the next transaction; when it is given up, it stays where it is, in the WAL."""
        capture = self._turn.capture
        async with self._turn.lock:
            if capture.open_segment is not None:  # read since this was decided: what was committed first goes first
                self._captured.set()
                return
            transaction = await self._turn.within(capture.oversized)
            if transaction is not None:
                await self.send_stream(transaction)
        self._observer.on_sealed()

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
