"""The duty that keeps a database's history as long as it was asked to, and no longer; and its preserve marks.

Nothing is asked of the store while nothing happens: it looks when something was stored since the last look, and at the
instant that the last plan named, neither more often than `retention_interval`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import ClockDiffers, Damaged, NoBackup, NotReady, OwnedByAnother, ReplicadError, StoreUnreachable
from replicad.layout import start_key
from replicad.observe import events
from replicad.plan.mark import Mark, encode_mark
from replicad.position import TXID
from replicad.replicate.pruning import Pruning
from replicad.replicate.removal import handing_over

if TYPE_CHECKING:
    from replicad.replicate.following import Following
    from replicad.replicate.pruning import Examined
    from replicad.store.protocol import ObjectStore

_SETTLE_SECONDS = 60.0  # behind a start: a process that dies over and over must not list each time
_LONGEST_SLEEP_SECONDS = 3600.0  # the wall clock may be set meanwhile; looking at it costs no request
_ATTEMPTS = 3  # at a plan that nothing overtakes


class Keeper:
    """Retention of one followed database. Lives on the event loop; implements `Duty`."""

    name = "keep"

    def __init__(self, following: Following, store: ObjectStore) -> None:
        settings, tools = following.settings, following.tools
        self._following = following
        self._pruning = Pruning(
            store, tools.clock, tools.background, settings.retention_policy, snapshots=following.snapshots
        )
        self._pruned_txid = following.ledger.durable.txid  # what was stored up to here was looked at
        self._not_before = tools.clock.monotonic() + min(_SETTLE_SECONDS, settings.retention_interval_seconds)
        self._next_ms: int | None = None  # when something becomes too old, as far as that is known
        self._marks: list[Mark] = []  # that are to be stored
        self._woken = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Look when it is time, until cancelled."""
        while True:
            await self._store_marks()
            pause_seconds = self._pause_seconds()
            if pause_seconds is not None and pause_seconds <= 0:
                await self._prune_unasked()
            else:
                await self._until_changed(pause_seconds)

    def note_replaced(self, *, before_pages: int, pages: int) -> None:
        """Have the newest durable state preserved when a much smaller database came in its place.

        An application that finds its restored database odd may well delete it and begin with an empty one. That is
        replicated as anything else is, and the good state would go with the window.
        """
        following, now_ms = self._following, self._following.tools.clock.now_ms()
        keep_ms = round(following.settings.preserve_replaced_seconds * 1000)
        txid = following.ledger.durable.txid
        if 2 * pages >= before_pages or not keep_ms or not txid:
            return
        mark = Mark(
            txid=txid,
            epoch=following.lineage.epoch,
            until_ms=now_ms + keep_ms,
            made_ms=now_ms,
            reason=f"a database of {pages} pages came in place of one of {before_pages}",
        )
        following.log.error(
            events.STATE_PRESERVED, txid=txid, before_pages=before_pages, pages=pages, key=str(mark.key)
        )
        following.metrics.states_preserved += 1
        self._marks.append(mark)
        self._woken.set()

    async def prune(self) -> Examined:
        """Look now, and delete what may go; return what was found.

        Raises:
            OwnedByAnother: another instance owns the database.
            ClockDiffers: nothing was deleted.
            NotReady: what is stored changed faster than it could be looked at, or the database is being handed over.
            NoBackup: nothing is stored.
            Damaged: what is stored is not the line that this instance writes.
            ReplicadError: the store failed, or did not allow it.
        """
        async with self._one_at_a_time:
            return await self._prune()

    async def _prune(self) -> Examined:
        tenure, txid = self._following.tenure, self._following.ledger.durable.txid
        if tenure.lost.is_set():
            raise OwnedByAnother(database=self._following.path, found="a later claim", hint="Only the owner deletes.")
        if tenure.retiring:
            raise handing_over()
        await tenure.until_may_ship()
        for _ in range(_ATTEMPTS):
            examined = await self._pruning.examine(probe=True)
            self._publish(examined)
            self._following.removal.tell_marks([str(mark) for mark in examined.inventory.marks])
            self._must_be_our_line(examined)
            if await self._pruning.carry_out(examined, self._following.removal):
                self._pruned_txid, self._next_ms = txid, examined.plan.next_ms
                self._say_done(examined)
                return examined
        found = "snapshots or preserve marks were stored meanwhile"
        raise NotReady(what="retention", timeout_seconds=0.0, found=found, hint="It is tried again.")

    def _must_be_our_line(self, examined: Examined) -> None:
        """Refuse a listing in which the epoch that is being written has no start.

        Somebody deleted it, then, and until the next snapshot puts it back the line seems to end earlier: all that was
        written in this epoch would pass for an orphaned tail.
        """
        epoch = self._following.lineage.epoch
        head = max(examined.inventory.history.listing.starts)
        if head != epoch:
            raise Damaged(
                what=start_key(epoch), where="listing", expected=f"epoch {epoch} as the newest", found=f"epoch {head}"
            )

    async def _prune_unasked(self) -> None:
        clock, settings = self._following.tools.clock, self._following.settings
        self._not_before = clock.monotonic() + settings.retention_interval_seconds
        self._next_ms = None
        txid = self._following.ledger.durable.txid
        try:
            await self.prune()
        except NoBackup:
            self._pruned_txid = txid
        except NotReady as error:
            self._following.log.info(events.RETENTION_FAILED, error=str(error))
        except StoreUnreachable:
            self._not_before = clock.monotonic()  # the pause before a duty that failed is enough
            raise
        except ReplicadError as error:  # trying again at once would not help: said once an interval
            self._pruned_txid = txid
            self._following.metrics.errors[type(error).__name__] += 1
            event = events.CLOCK_DIFFERS if isinstance(error, ClockDiffers) else events.RETENTION_FAILED
            self._following.log.error(event, error=str(error))  # noqa: TRY400 - it says enough

    async def _store_marks(self) -> None:
        shipper = self._following.shipper
        while self._marks:
            mark = self._marks[0]
            await shipper.until_may_ship()
            await shipper.object(str(mark.key), encode_mark(mark))
            self._marks.remove(mark)

    def _pause_seconds(self) -> float | None:
        """Return for how long there is nothing to look for; None: until something is stored."""
        clock, settings = self._following.tools.clock, self._following.settings
        if settings.retention == "off":
            return None
        stored = self._following.ledger.durable.txid > self._pruned_txid
        if not stored and self._next_ms is None:
            return None
        planned_seconds = 0.0 if stored or self._next_ms is None else (self._next_ms - clock.now_ms()) / 1000
        return max(planned_seconds, self._not_before - clock.monotonic())

    async def _until_changed(self, pause_seconds: float | None) -> None:
        """Wait until something is stored that was not looked at, a mark is to be stored, or the time has passed."""
        ledger = self._following.ledger
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._woken.wait())]
        if ledger.durable.txid == self._pruned_txid:
            waits.append(asyncio.ensure_future(ledger.until_durable(TXID(self._pruned_txid + 1))))
        timeout = None if pause_seconds is None else min(pause_seconds, _LONGEST_SLEEP_SECONDS)
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            self._woken.clear()

    def _publish(self, examined: Examined) -> None:
        metrics, plan = self._following.metrics, examined.plan
        for kind, weight in examined.weights.items():
            metrics.stored_objects[kind], metrics.stored_bytes[kind] = weight.objects, weight.size_bytes
        metrics.window_begin_ms = plan.window_begin_ms
        metrics.preserve_marks = sum(verdict.kind == "mark" for verdict in plan.kept)
        if examined.clock_difference_seconds is not None:
            metrics.clock_difference_seconds = examined.clock_difference_seconds

    def _say_done(self, examined: Examined) -> None:
        plan, metrics = examined.plan, self._following.metrics
        metrics.first_restorable_ms = plan.first_restorable_ms
        self._following.log.info(
            events.RETENTION_DONE,
            deleted=len(plan.deleted),
            deleted_bytes=sum(verdict.size_bytes for verdict in plan.deleted),
            stored=len(examined.inventory.rows) - len(plan.deleted),
            window_begin_ms=plan.window_begin_ms,
            next_ms=plan.next_ms,
        )
