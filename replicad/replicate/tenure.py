"""Whether this instance may write into its epoch: asked before anything is stored, and before it is called durable."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import CreateUndecided, StoreUnreachable
from replicad.layout import claim_key, log_prefix, snapshots_prefix
from replicad.observe import events
from replicad.ownership.claim import claim
from replicad.ownership.owner import begin, report
from replicad.plan.listing import read_listing
from replicad.position import Epoch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    from replicad.observe.metrics import DatabaseMetrics
    from replicad.ownership.claim import Me
    from replicad.ownership.records import EpochStart
    from replicad.plan.listing import Listing
    from replicad.position import TXID
    from replicad.replicate.own import Owned
    from replicad.replicate.protocol import Driver
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """How an epoch is to begin."""

    start: EpochStart
    beyond: frozenset[str]  # what was listed that lies beyond the start: tails that are no part of the line
    taken: bool = False  # the epoch has a start already
    note: Callable[[], Awaitable[None]]  # writes into the state file that the epoch is ours


class Tenure:
    """One epoch's time in office. Lives on the event loop.

    After a restart that can prove where it was the claim is deferred until there is something to store, so that a
    restart by itself stores nothing.
    """

    def __init__(
        self, driver: Driver, owned: Owned, me: Me, metrics: DatabaseMetrics, log: FilteringBoundLogger
    ) -> None:
        self.epoch = owned.epoch
        self.served = Epoch(owned.epoch - 1) if owned.deferred else owned.epoch  # the newest epoch that was ours
        self.start: EpochStart | None = None  # where it continues from
        self.claimed = asyncio.Event()
        self.lost = asyncio.Event()  # another instance has claimed this epoch, or a later one
        self.retiring = False  # another instance has asked for the database, and is being let go on
        self._succeeded = False  # while it was retiring another instance's claim was found
        self.outgrown = False  # somebody wrote on behind what stands here: it is not the newest state
        self._open = asyncio.Event()
        self._open.set()
        self._claiming = asyncio.Lock()
        self._deferred: tuple[ObjectStore, Intent] | None = None
        self._driver = driver
        self._me = me
        self._metrics = metrics
        self._log = log
        if not owned.deferred:
            self.claimed.set()

    async def begin(self, store: ObjectStore, intent: Intent) -> EpochStart:
        """Begin the epoch, and return its start; a deferred one begins with the first who wants to store something.

        May be called again after a failure. A start that failed may still arrive, so another one is never put: when
        the line has moved on meanwhile, the epoch is lost, and the next one to be claimed.

        Raises:
            StoreUnreachable, StoreRefused: it may have begun, or may begin later.
        """
        if not self.claimed.is_set():
            self.start, self._deferred = intent.start, (store, intent)
            return intent.start
        taken = intent.taken and self.start is None  # by another instance, on a store that lets both claim
        start = self.start or intent.start
        self.start = start
        if msgspec.structs.replace(intent.start, started_ms=start.started_ms) != start:
            self._resign()
        elif taken or not await self._begin(start):
            self.lose()
        else:
            await intent.note()
        return start

    async def until_may_ship(self) -> None:
        """Return when something may be stored in the epoch; never, once it was ended or lost.

        Raises:
            StoreUnreachable, StoreRefused: the epoch is not claimed yet; ask again.
        """
        if not self.claimed.is_set():
            async with self._claiming:
                if not self.claimed.is_set():
                    await self._claim_deferred()
        await self._open.wait()

    async def still_owned(self) -> bool:
        """Look whether what is stored by now may be reported durable; False once another one owns.

        Whoever claims the next epoch lists what is stored only afterwards. So what was stored before a look that finds
        no such claim is in every listing that a later owner begins with.

        Raises:
            StoreUnreachable, StoreRefused: it is not known.
        """
        if self.lost.is_set():
            return False
        owned = await self._driver.run(report(self.epoch)) and await self._holds_claim()
        if not owned:
            if self.retiring:  # whoever hands over looks by itself, and expects the successor's claim
                self._succeeded = True
            else:
                self.lose()
        return owned and not self.lost.is_set()

    async def may_delete(self) -> bool:
        """Look whether what a plan lets go may be deleted: by the owner alone, and by none that is about to leave.

        Raises:
            StoreUnreachable, StoreRefused: it is not known.
        """
        return self.claimed.is_set() and not self.retiring and await self.still_owned()

    def stay(self) -> None:
        """Go on owning, because the handover came to nothing; if a claim was found meanwhile, it was no successor's."""
        self.retiring = False
        if self._succeeded:
            self.lose()

    def close(self) -> None:
        """Store nothing more in the epoch: its end is about to be stored."""
        self._open.clear()

    def lose(self) -> None:
        """Take note that another instance owns the database."""
        if not self.lost.is_set():
            self._resign()
            self._metrics.fenced += 1
            self._log.error(events.FENCED, epoch=self.epoch)

    def _resign(self) -> None:
        self.lost.set()
        self._open.clear()

    async def _claim_deferred(self) -> None:
        if self._deferred is None:
            raise AssertionError
        store, intent = self._deferred
        try:
            await self._claim(store, intent)
        except CreateUndecided as error:  # reads work and writes do not: to whoever ships that is an outage
            key = claim_key(self.epoch)
            raise StoreUnreachable(store=store.url, operation=f"create {key}", found=error.details["found"]) from error

    async def _claim(self, store: ObjectStore, intent: Intent) -> None:
        ours = await self._driver.run(claim(self.epoch, self._me))
        # Claim before listing, as always: what the epochs before hold now is all they will ever count.
        self.outgrown = ours and await self._has_grown(store, intent)
        if ours and not self.outgrown:
            self.served = self.epoch
            await intent.note()
            ours = await self._begin(intent.start)
        self.claimed.set()
        if not ours or self.outgrown:
            self.lose()

    async def _begin(self, start: EpochStart) -> bool:
        return await self._driver.run(begin(start)) and await self._holds_claim()

    async def _holds_claim(self) -> bool:
        return await self._driver.holds_claim(self.epoch, self._me.id)

    async def _has_grown(self, store: ObjectStore, intent: Intent) -> bool:
        """Return whether more is stored beyond the start than when it was made up: by a copy of this disk."""
        found: list[tuple[str, int]] = []
        for number in range(max(1, intent.start.parent_epoch), self.epoch):
            for prefix in (log_prefix(Epoch(number)), snapshots_prefix(Epoch(number))):
                found += [(stored.key, stored.size_bytes) async for stored in store.list(prefix)]
        return not beyond(read_listing(found), intent.start.position.txid) <= intent.beyond


def beyond(listing: Listing, txid: TXID) -> frozenset[str]:
    """Return the keys of the segments and snapshots that hold later transactions than `txid`."""
    segments = (found.name for found in listing.segments if found.key.last > txid)
    return frozenset(segments) | {found.name for found in listing.manifests if found.key.txid > txid}
