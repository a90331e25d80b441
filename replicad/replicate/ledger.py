"""What of a database was captured, what of it is durable, and who waits for that.

A transaction is durable when everything a restore of it needs is in the store: its segment, and all before it back
to a snapshot. No segment is sent while the snapshot it rests on is not stored, so stored and durable are the same.
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

    def __init__(self) -> None:
        self.captured = ORIGIN
        self.durable = ORIGIN
        self.pending_bytes = 0  # page bytes read and not yet stored
        self.unread_bytes = 0  # committed in the WAL and not yet read
        self.oldest_pending_ms: int | None = None  # commit time of the oldest transaction that is not durable
        self.steps = 0  # how often more became durable: with each segment
        self._changed = asyncio.Condition()

    def begin(self, mark: Mark) -> None:
        """Start from a transaction that is durable already."""
        self.captured = self.durable = mark

    async def now_durable(self, mark: Mark) -> None:
        """Note that everything up to this transaction is stored."""
        async with self._changed:
            if mark.txid > self.durable.txid:
                self.durable = mark
                self.steps += 1
            self._changed.notify_all()

    async def until_durable(self, txid: TXID) -> None:
        """Wait until a transaction is durable; the caller sets the timeout."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.durable.txid >= txid)

    async def until_steps(self, steps: int) -> None:
        """Wait until something has become durable so often; the caller sets the timeout."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.steps >= steps)

    @property
    def pending(self) -> bool:
        """Whether anything was committed that is not durable."""
        return bool(self.pending_transactions or self.unread_bytes)

    @property
    def pending_transactions(self) -> int:
        """How many transactions were read and are not durable."""
        return self.captured.txid - self.durable.txid

    def lag_seconds(self, now_ms: int) -> float:
        """Return the age of the oldest commit that is not durable, 0 when there is none."""
        if self.oldest_pending_ms is None:
            return 0.0
        return max(0, now_ms - self.oldest_pending_ms) / 1000
