"""Whether this instance may write into its epoch: asked before anything is stored, and before it is called durable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.layout import log_prefix, parse_segment
from replicad.observe import events
from replicad.ownership.claim import claim
from replicad.ownership.owner import begin, report

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from replicad.observe.metrics import DatabaseMetrics
    from replicad.ownership.claim import Me
    from replicad.ownership.records import EpochStart
    from replicad.replicate.own import Owned
    from replicad.replicate.protocol import Driver
    from replicad.store.protocol import ObjectStore


class Tenure:
    """One epoch's time in office. Lives on the event loop.

    After a restart that can prove where it was the claim is deferred until there is something to store, so that a
    restart by itself stores nothing.
    """

    def __init__(
        self, driver: Driver, owned: Owned, me: Me, metrics: DatabaseMetrics, log: FilteringBoundLogger
    ) -> None:
        self.epoch = owned.epoch
        self.start: EpochStart | None = None  # where it continues from
        self.claimed = asyncio.Event()
        self.lost = asyncio.Event()  # another instance has claimed this epoch, or a later one
        self._open = asyncio.Event()
        self._open.set()
        self._claiming = asyncio.Lock()
        self._deferred: tuple[ObjectStore, EpochStart] | None = None
        self._driver = driver
        self._me = me
        self._metrics = metrics
        self._log = log
        if not owned.deferred:
            self.claimed.set()

    async def begin(self, store: ObjectStore, start: EpochStart) -> None:
        """Begin the epoch; a deferred one is claimed and begun by the first who wants to store something in it.

        Raises:
            StoreUnreachable, StoreRefused: it may have begun, or may begin later; take over again.
        """
        self.start = start
        if not self.claimed.is_set():
            self._deferred = (store, start)
        elif not await self._driver.run(begin(start)):
            self.lose()

    async def until_may_ship(self) -> None:
        """Return when something may be stored in the epoch; never, once it was ended or lost.

        Raises:
            StoreUnreachable, StoreRefused: the epoch is not claimed yet; ask again.
        """
        if not self.claimed.is_set():
            async with self._claiming:
                if not self.claimed.is_set():
                    await self._claim()
        await self._open.wait()

    async def still_owned(self) -> bool:
        """Look whether what is stored by now may be reported durable; False, for ever, once another one owns.

        Whoever claims the next epoch lists what is stored only afterwards. So what was stored before a look that finds
        no such claim is in every listing that a later owner begins with.

        Raises:
            StoreUnreachable, StoreRefused: it is not known.
        """
        if not self.lost.is_set() and not await self._driver.run(report(self.epoch)):
            self.lose()
        return not self.lost.is_set()

    def close(self) -> None:
        """Store nothing more in the epoch: its end is about to be stored."""
        self._open.clear()

    def lose(self) -> None:
        """Take note that another instance owns the database."""
        if not self.lost.is_set():
            self.lost.set()
            self._open.clear()
            self._metrics.fenced += 1
            self._log.error(events.FENCED, epoch=self.epoch)

    async def _claim(self) -> None:
        if self._deferred is None:
            raise AssertionError
        store, start = self._deferred
        ours = await self._driver.run(claim(self.epoch, self._me))
        # Claim before listing, as always: what the epoch before holds now is all it will ever count.
        if ours and not await self._has_grown(store, start) and await self._driver.run(begin(start)):
            self.claimed.set()
            return
        self.claimed.set()
        self.lose()

    async def _has_grown(self, store: ObjectStore, start: EpochStart) -> bool:
        """Return whether more is stored of the epoch before than this start continues from: by a copy of this disk."""
        async for found in store.list(log_prefix(start.position.epoch)):
            key = parse_segment(found.key)
            if key is not None and key.last > start.parent_txid:
                return True
        return False
