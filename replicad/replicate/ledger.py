"""What of a database was captured, what of it is durable, and who waits for that.

A transaction is durable when everything a restore of it needs is in the store: its segment and all before it back
to a snapshot. While a snapshot is owed (the first one, or the one after a loss of continuity) nothing new counts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from replicad.position import TXID


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A transaction and its commit time (Unix ms, UTC)."""

    txid: TXID
    ms: int


ORIGIN = Mark(txid=TXID(0), ms=0)


class Ledger:
    """Lives on the event loop; nothing here may be called from a thread."""

    def __init__(self, durable: Mark = ORIGIN) -> None:
        self.captured = durable
        self.shipped = durable  # the newest transaction in a stored segment
        self.durable = durable
        self.snapshot_owed_at: TXID | None = None  # nothing from this transaction on is durable before its snapshot is
        self.pending_bytes = 0  # page bytes read and not yet stored
        self.unread_bytes = 0  # committed in the WAL and not yet read
        self.oldest_pending_ms: int | None = None  # commit time of the oldest transaction that is not durable
        self._changed = asyncio.Condition()

    def owe_snapshot(self, txid: TXID) -> None:
        """Note that from `txid` on nothing is durable before a snapshot of that state, or a later one, is stored."""
        self.snapshot_owed_at = txid

    async def shipped_through(self, mark: Mark) -> None:
        """Note that a segment that ends with this transaction is stored."""
        async with self._changed:
            self.shipped = mark
            self._settle()

    async def snapshot_stored(self, mark: Mark) -> None:
        """Note that a snapshot of this state is stored."""
        async with self._changed:
            if self.snapshot_owed_at is not None and mark.txid >= self.snapshot_owed_at:
                self.snapshot_owed_at = None
            if mark.txid > self.shipped.txid:
                self.shipped = mark
            self._settle()

    async def until_durable(self, txid: TXID) -> None:
        """Wait until a transaction is durable; the caller sets the timeout."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.durable.txid >= txid)

    def lag_seconds(self, now_ms: int) -> float:
        """Return the age of the oldest commit that is not durable, 0 when there is none."""
        if self.oldest_pending_ms is None:
            return 0.0
        return max(0, now_ms - self.oldest_pending_ms) / 1000

    def _settle(self) -> None:
        if self.snapshot_owed_at is None:
            self.durable = self.shipped
        self._changed.notify_all()
