"""Following one open database until it is stopped, replaced or disproven: three loops, one capture."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import DatabaseUnusable
from replicad.observe import events
from replicad.position import TXID
from replicad.replicate.beat import Wishes
from replicad.replicate.following import Turn
from replicad.replicate.ledger import Mark
from replicad.replicate.lookout import Lookout
from replicad.replicate.reading import Reached
from replicad.replicate.shiploop import ShipLoop
from replicad.replicate.snapshotloop import SnapshotLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.plan.snapshot import LogSince
    from replicad.replicate.beat import Beat, Round
    from replicad.replicate.following import Following
    from replicad.replicate.snapshotloop import Owed
    from replicad.snapshot import Manifest

_RETRY_SECONDS = 1.0  # after SQLite could not; the pins are held all the while
_FREEZE_ATTEMPT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 1.0  # that the application's writers stand behind its own checkpoint because of unread frames
_LONG_STALL_SECONDS = 0.1  # for which writers may wait for a checkpoint without a word about it


class Session:
    """One open database, followed until `run` ends."""

    def __init__(self, following: Following, beat: Beat, *, log: LogSince, owed: Owed | None) -> None:
        """Take over an opened capture; `log` and `owed` as for SnapshotLoop."""
        self._following = following
        self._beat = beat
        self._nudge = asyncio.Event()  # look now
        self._turn = Turn(following.tools.threads, beat.capture, used=self._count)
        self._snapshots = SnapshotLoop(following, self._turn, log=log, owed=owed)
        self._ship = ShipLoop(following, self._turn, base=self._snapshots.base, observer=self)
        self.ended = asyncio.Event()  # set by the owner: nothing is answered any more
        self.drained = False  # everything that was read is durable, and the page table speaks for it
        self._replaced = asyncio.Event()
        self._failed: str | None = None  # why the last checkpoint failed: said once

    async def run(self) -> None:
        """Follow until the database is replaced or disproven; the caller opens it again, or cancels."""
        await self._snapshots.pin_beginning()
        async with asyncio.TaskGroup() as group:
            shipping = group.create_task(self._ship.run())
            readers = [group.create_task(loop()) for loop in (self._follow, self._snapshots.run)]
            ends = [group.create_task(ended.wait()) for ended in (self._replaced, self._snapshots.disproven)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            # Before the wait for the store: our connections keep a WAL from beginning again, and the -shm of a file
            # that was replaced from being made anew.
            self._turn.reading.clear()
            await self._turn.take(self._turn.capture.source.close)
            if self._snapshots.base.is_set():
                self._ship.hurry()
                await self._following.ledger.until_durable(self._following.ledger.captured.txid)
                self.drained = True
            for task in (shipping, *ends):
                task.cancel()

    @property
    def was_replaced(self) -> bool:
        """Whether another file than the one that was followed stands at the path, or none."""
        return self._replaced.is_set()

    async def sync(self) -> Mark:
        """Return once everything that was committed at the call is durable."""
        ledger, capture = self._following.ledger, self._turn.capture
        async with self._turn.while_reading():
            end = await self._turn.within(capture.mark_end)
            replaced = await self._turn.within(capture.was_replaced)
        if replaced:  # what was committed to the file that stands there now is the next session's to say
            self._replaced.set()
            await asyncio.Event().wait()
        while not await self._turn.take(capture.has_read, end):
            durable = ledger.durable.txid
            round_ = await self._round()
            if round_.reached is not Reached.END:
                self._ship.hurry()
                await ledger.until_durable(TXID(durable + 1))
        target = ledger.captured
        self._ship.hurry()
        await ledger.until_durable(target.txid)
        return target

    async def snapshot(self, reason: str) -> Manifest:
        """Take a snapshot of the present state; return its manifest once it is stored."""
        return await self._snapshots.take_now(reason)

    async def freeze(self) -> None:
        """Keep the application's writers out, as soon as the one that writes now is done; readers go on."""
        while True:
            if await self._turn.take(self._turn.capture.source.freeze, timeout_seconds=_FREEZE_ATTEMPT_SECONDS):
                return
            await asyncio.sleep(0)  # others take their turn between two attempts: what is written is read meanwhile

    async def thaw(self, *, unless: Callable[[], bool]) -> None:
        """Let the application's writers go on, unless something is against it when it is our turn."""
        async with self._turn.lock:
            if not unless():
                await self._turn.within(self._turn.capture.source.thaw)

    async def resynchronise(self, reason: str) -> None:
        """Pin the present state, and send what differs from the state that was read last as one transaction."""
        following = self._following
        while True:
            async with self._turn.lock:
                difference = await self._turn.within(self._turn.capture.find_difference)
                self._turn.reading.set()
                if difference is None:
                    return
                if await self._ship.send_stream(difference):
                    break
            await self._let_frames_go()
            await following.shipper.until_back()
            await asyncio.sleep(_RETRY_SECONDS)  # without a pin: the WAL begins again meanwhile
        following.metrics.resynchronisations[reason] += 1
        following.log.warning(events.RESYNCHRONISED, reason=reason, txid=difference.key.last)

    # --- the capture loop --------------------------------------------------------------------------

    async def _follow(self) -> None:
        path = await self._following.tools.threads.run(self._following.path.resolve)
        watch = self._following.tools.watcher.watch(path.parent, (path.name, f"{path.name}-wal"), self._nudge)
        lookout = Lookout(
            self._turn,
            self._beat,
            self._ship,
            self._following.settings,
            self._following.tools.clock,
            watch=watch,
            nudge=self._nudge,
        )
        try:
            while True:
                try:
                    round_ = await self._round()
                except DatabaseUnusable as error:
                    self._following.metrics.errors[type(error).__name__] += 1
                    self._following.log.error(events.CAPTURE_FAILED, error=str(error))  # noqa: TRY400 - it says enough
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                await self._act_on(round_)
                await lookout.until_wanted(round_)
        finally:
            watch.disarm()

    async def _round(self) -> Round:
        async with self._turn.while_reading():
            wishes = Wishes(
                borrowed=self._snapshots.borrows_pin,
                pinned=self._snapshots.holds_pin,
                keep=self._following.shipper.away,
            )
            round_ = await self._turn.within(self._beat.round, wishes)
            self._note(round_)
            return round_

    async def _act_on(self, round_: Round) -> None:
        limit = self._following.settings.max_wal_bytes
        if round_.replaced:
            self._following.log.warning(events.DATABASE_REPLACED, path=str(self._following.path))
            self._replaced.set()
            await asyncio.Event().wait()  # until `run` cancels this loop: the old file is not looked at again
        if round_.waited_seconds or (round_.blocking and self._snapshots.borrows_pin):
            self._snapshots.pin_again()
        self._snapshots.watch_wal(round_.wal_bytes)
        streaming = round_.reached is Reached.OVERSIZED and not self._following.shipper.away
        if streaming:
            return
        if round_.unread_bytes > limit:
            await self._let_go("max_wal_bytes")
        elif round_.stuck and round_.waited_seconds >= _LONGEST_WAIT_SECONDS:
            await self._let_go("checkpoint_waits")

    async def _let_go(self, reason: str) -> None:
        """Let the WAL be reset unread; when everything in memory is durable, send the difference."""
        following = self._following
        if not self._snapshots.base.is_set():
            self._snapshots.abandon(f"the WAL had to be let go meanwhile: {reason}")
            await asyncio.Event().wait()  # until `run` cancels this loop
        self._snapshots.pin_again()
        await self._let_frames_go()
        following.metrics.wal_let_go += 1
        following.log.error(
            events.WAL_LET_GO,
            reason=reason,
            unread_bytes=following.ledger.unread_bytes,
            max_wal_bytes=following.settings.max_wal_bytes,
            consequence="no data is lost, but single transactions of this stretch cannot be restored",
        )
        self._ship.hurry()
        await following.ledger.until_durable(following.ledger.captured.txid)
        await self.resynchronise("wal_let_go")

    async def _let_frames_go(self) -> None:
        self._turn.reading.clear()
        await self._turn.take(self._turn.capture.source.release)

    def on_shipped(self, stored_bytes: int) -> None:
        """Count a segment that is durable."""
        self._snapshots.shipped(stored_bytes)
        self._publish()

    def on_sealed(self) -> None:
        """Go on reading into the next segment."""
        if self._ship.reached is not Reached.END:
            self._nudge.set()  # there is room again

    def _count(self) -> None:
        """Count the transactions that were read."""
        capture, ledger = self._beat.capture, self._following.ledger
        new = capture.next_txid - 1 - ledger.captured.txid
        if new:
            self._following.metrics.transactions += new
            ledger.captured = Mark(txid=TXID(capture.next_txid - 1), ms=capture.last_ms)

    def _note(self, round_: Round) -> None:
        capture, ledger, metrics = self._turn.capture, self._following.ledger, self._following.metrics
        self._ship.reached = round_.reached
        ledger.unread_bytes = round_.unread_bytes
        metrics.wal_bytes = round_.wal_bytes
        if round_.failed != self._failed and round_.failed is not None:
            metrics.errors["CheckpointFailed"] += 1
            self._following.log.warning(events.CHECKPOINT_FAILED, error=round_.failed)
        if round_.failed is not None or round_.room is not None:
            self._failed = round_.failed
        if round_.disk_free_bytes is not None:
            metrics.disk_free_bytes = round_.disk_free_bytes
        if round_.reached is not Reached.END:
            self._ship.hurry()  # reading goes on when there is room
        elif capture.open_segment is not None:
            self._ship.captured()
        if round_.room is not None and round_.room.done:
            metrics.checkpoints += 1
            metrics.checkpoint_stall.observe(round_.room.stall_seconds)
            stall_seconds = round(round_.room.stall_seconds, 6)
            if stall_seconds > _LONG_STALL_SECONDS:
                self._following.log.warning(events.CHECKPOINT_STALLED, stall_seconds=stall_seconds)
            else:
                self._following.log.debug(events.CHECKPOINT_DONE, stall_seconds=stall_seconds)
        self._publish()

    def _publish(self) -> None:
        """Bring ledger and metrics up to date with what waits where."""
        capture, ledger, metrics = self._turn.capture, self._following.ledger, self._following.metrics
        waiting = capture.open_segment
        ledger.pending_bytes = self._ship.in_flight_bytes + (waiting.raw_bytes if waiting else 0)
        times = (self._ship.in_flight_ms, capture.open_since_ms if waiting else None, capture.oldest_unread_ms())
        known = [ms for ms in times if ms is not None]
        if known or self._snapshots.base.is_set():  # while the first snapshot is owed, its state is what waits
            ledger.oldest_pending_ms = min(known, default=None)
        metrics.pending_bytes = ledger.pending_bytes + ledger.unread_bytes
        metrics.pending_transactions = ledger.pending_transactions
        metrics.captured_bytes = capture.captured_bytes
        metrics.captured_txid, metrics.durable_txid = ledger.captured.txid, ledger.durable.txid
        metrics.durable_ms = metrics.last_restorable_ms = ledger.durable.ms or None
        metrics.database_pages = capture.table.pages
        metrics.database_bytes = capture.table.pages * capture.table.page_size
